//! What each layer remembers, and where in a block it lies.
//!
//! Layers with the same sliding window form a group. A page of a group is [`PAGE`](crate::PAGE) positions of all its
//! layers; each form of it ([`crate::schedule`]) is one block, in which a layer's heads lie side by side, keys before
//! values.

mod maker;

use crate::Error;
use crate::policy::Policy;
use crate::schedule::{RAW, SEALED, Schedule};
use maker::Maker;
use quant_kernels::attention::ValueDomains;
use quant_kernels::codecs::{KeyCodec, ValueCodec};
use std::ops::Range;
use std::sync::Arc;

/// Layers at either end that get the policy's further bits.
const BOUNDARY_LAYERS: usize = 2;
/// But no more than one of so many, so that a model of few layers does not consist of them.
const BOUNDARY_SHARE: usize = 6;

/// What one layer remembers per position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerShape {
    /// KV heads.
    pub kv_heads: usize,
    /// Values of a head's key.
    pub key_dim: usize,
    /// Values of a head's value.
    pub value_dim: usize,
}

/// What one layer remembers, and how its queries look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Sizes.
    pub shape: LayerShape,
    /// Sliding window: position k is visible from p if `p - k < window`. Older pages are forgotten.
    pub window: Option<usize>,
    /// The layer whose keys and values this one reads: an earlier one of the same shape and window.
    pub source: Option<usize>,
    /// Weight of each channel of keys, `[kv_head][key_dim]`, about the size of that channel in queries. Some codecs
    /// store channels that queries weigh more with more care.
    pub balance: Option<Arc<[f32]>>,
    /// Of a latent layer: values at the beginning of a row that are the latent; the others are rotary.
    pub latent: Option<usize>,
    /// Values of a recurrent layer's state, f32; such a layer has no keys and values.
    pub state: usize,
}

impl From<LayerShape> for Layer {
    fn from(shape: LayerShape) -> Self {
        Self { shape, window: None, source: None, balance: None, latent: None, state: 0 }
    }
}

impl Layer {
    /// A layer of multi-head latent attention: a row of `latent` and `rotary` values for each position, which all query
    /// heads share. It is the key, and its latent is the value: the last `rotary` values of an output mean nothing.
    pub fn latent(latent: usize, rotary: usize) -> Self {
        let dim = latent.saturating_add(rotary);
        let shape = LayerShape { kv_heads: 1, key_dim: dim, value_dim: dim };
        Self { latent: Some(latent), ..shape.into() }
    }

    /// A recurrent layer with a state of so many values.
    pub fn recurrent(values: usize) -> Self {
        let none = LayerShape { kv_heads: 0, key_dim: 0, value_dim: 0 };
        Self { state: values, ..none.into() }
    }
}

/// Where a layer's pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub group: usize,
    /// The layer's number in the group.
    pub slot: usize,
    /// It reads another layer's pages and writes none.
    pub shared: bool,
}

/// The keys or the values of one layer in a block.
#[derive(Debug)]
pub(crate) struct Cells<C: ?Sized> {
    start: usize,
    stride: usize,
    /// Bytes of a head.
    pub bytes: usize,
    pub store: Store<C>,
    /// A head is the beginning of what it is in the form that this one is made from.
    pub prefix: bool,
    /// These are the keys, read as values: nothing is written or encoded.
    pub alias: bool,
}

/// How a head's page is stored.
#[derive(Debug)]
pub(crate) enum Store<C: ?Sized> {
    F32,
    F16,
    /// One codec for each head, or one for all.
    Coded(Vec<Arc<C>>),
}

impl<C: ?Sized> Cells<C> {
    /// Bytes of a head in its block.
    pub fn of(&self, head: usize) -> Range<usize> {
        let start = self.start + head * self.stride;
        start..start + self.bytes
    }

    /// The codec of a head, if it is coded.
    pub fn codec(&self, head: usize) -> Option<&Arc<C>> {
        match &self.store {
            Store::Coded(codecs) => codecs.get(head).or(codecs.first()),
            _ => None,
        }
    }
}

/// Keys and values of one layer in a block.
#[derive(Debug)]
pub(crate) struct LayerCells {
    pub keys: Cells<dyn KeyCodec>,
    pub values: Cells<dyn ValueCodec>,
}

/// One form of a group's pages.
#[derive(Debug)]
pub(crate) struct BlockLayout {
    pub bytes: usize,
    /// Bytes between records.
    pub padding: usize,
    /// By the layers' slots.
    pub layers: Vec<LayerCells>,
}

/// Layers that share block tables.
#[derive(Debug)]
pub(crate) struct Group {
    pub schedule: Schedule,
    /// The layers' shapes, by slot.
    pub shapes: Vec<LayerShape>,
    /// By form.
    pub forms: Vec<BlockLayout>,
    /// The first sealed form without some of its low planes, from the most bits to the fewest.
    pub reduced: Vec<BlockLayout>,
    /// The domains of a layer's coded values, by slot.
    pub domains: Vec<ValueDomains>,
}

impl Group {
    /// A form, whole (level 0) or without some planes.
    pub fn layout(&self, form: usize, level: usize) -> &BlockLayout {
        match level.checked_sub(1) {
            Some(at) if form == SEALED => &self.reduced[at],
            _ => &self.forms[form],
        }
    }

    /// Levels of a form.
    pub fn levels(&self, form: usize) -> usize {
        1 + if form == SEALED { self.reduced.len() } else { 0 }
    }

    /// All forms and levels, the reduced ones last: their numbers name them in snapshots.
    pub fn kinds(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (forms, reduced) = (self.forms.len(), self.reduced.len());
        (0..forms).map(|form| (form, 0)).chain((1..=reduced).map(|level| (SEALED, level)))
    }

    /// Bytes that a position takes in f16.
    pub fn f16_bytes(&self) -> usize {
        let written = self.shapes.iter().zip(&self.forms[RAW].layers);
        let values = |(shape, cells): (&LayerShape, &LayerCells)| {
            shape.kv_heads * (shape.key_dim + if cells.values.alias { 0 } else { shape.value_dim })
        };
        2 * written.map(values).sum::<usize>()
    }
}

/// All layers.
#[derive(Debug)]
pub(crate) struct Layout {
    pub layers: Vec<Layer>,
    /// None for recurrent layers.
    pub places: Vec<Option<Place>>,
    pub groups: Vec<Group>,
}

impl Layout {
    pub fn new(layers: Vec<Layer>, policy: &Policy) -> Result<Self, Error> {
        policy.check()?;
        let mut places: Vec<Option<Place>> = Vec::with_capacity(layers.len());
        let mut members: Vec<(Option<usize>, Vec<usize>)> = Vec::new();
        for (i, layer) in layers.iter().enumerate() {
            if layer.state > 0 {
                places.push(None);
                continue;
            }
            if let Some(source) = layer.source {
                let fits = |place: &Place| {
                    let of = &layers[source];
                    !place.shared && (of.shape, of.window) == (layer.shape, layer.window)
                };
                let place = places.get(source).copied().flatten().filter(fits);
                let place = place.ok_or(Error::Source { layer: i, of: source })?;
                places.push(Some(Place { shared: true, ..place }));
                continue;
            }
            let of_window = members.iter().position(|(window, _)| *window == layer.window);
            let group = of_window.unwrap_or(members.len());
            if group == members.len() {
                members.push((layer.window, Vec::new()));
            }
            places.push(Some(Place { group, slot: members[group].1.len(), shared: false }));
            members[group].1.push(i);
        }
        let own: Vec<usize> =
            (0..layers.len()).filter(|&i| layers[i].source.is_none() && layers[i].state == 0).collect();
        let at_the_ends = |layer: usize| {
            let at = own.partition_point(|&other| other < layer);
            let each = BOUNDARY_LAYERS.min(own.len() / BOUNDARY_SHARE);
            at < each || at + each >= own.len()
        };
        let mut maker = Maker::new(layers.len());
        let mut groups = Vec::with_capacity(members.len());
        for (window, of_group) in members {
            groups.push(maker.group(&layers, window, &of_group, policy, &at_the_ends)?);
        }
        if policy.drop.is_some() && !groups.is_empty() && groups.iter().all(|group| group.levels(SEALED) == 1)
        {
            let reason = "drop: no layer has planes to lose; latent rows keep theirs";
            return Err(Error::PolicyParts { reason });
        }
        Ok(Self { layers, places, groups })
    }
}
