//! What each layer remembers, and where in a block it lies.
//!
//! Layers with the same sliding window form a group. A page of a group is [`PAGE`] positions of all its layers; each form
//! of it ([`crate::schedule`]) is one block, in which a layer's heads lie side by side, keys before values.

use crate::arena::ALIGN;
use crate::policy::{CodecRef, Form, Policy};
use crate::schedule::{RAW, Schedule};
use crate::{Error, Half, PAGE, presets};
use quant_kernels::attention::ValueDomains;
use quant_kernels::codecs::latent::{LatentKeys, LatentValues};
use quant_kernels::codecs::planes::{PlaneKeys, PlaneValues};
use quant_kernels::codecs::{Codec, CodecParams, KeyCodec, RotationKind, ValueCodec};
use std::ops::Range;
use std::sync::Arc;

/// Rotations and projections of all layers: queries meet the same one in every layer, so nothing is gained by more.
const SEED: u64 = 0x71_75_61_6e_74;
/// Layers at either end that get the policy's further bits.
const BOUNDARY_LAYERS: usize = 2;

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
    /// The domains of a layer's coded values, by slot.
    pub domains: Vec<ValueDomains>,
}

impl Group {
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
            at < BOUNDARY_LAYERS || at + BOUNDARY_LAYERS >= own.len()
        };
        let mut maker = Maker { known: Vec::new(), total: layers.len() };
        let mut groups = Vec::with_capacity(members.len());
        for (window, of_group) in members {
            groups.push(maker.group(&layers, window, &of_group, policy, &at_the_ends)?);
        }
        Ok(Self { layers, places, groups })
    }
}

/// Makes codecs, each once.
struct Maker {
    known: Vec<(Made, usize, Known)>,
    /// Layers of the cache, for messages.
    total: usize,
}

#[derive(Clone)]
enum Known {
    Key(Arc<dyn KeyCodec>),
    Value(Arc<dyn ValueCodec>),
}

/// A codec, and how many bits it was encoded with if pages were cut since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    half: Half,
    codec: CodecRef,
    /// Bits of the codec whose pages were cut, for plane codecs.
    cut_from: Option<usize>,
}

impl Maker {
    fn group(
        &mut self,
        layers: &[Layer],
        window: Option<usize>,
        members: &[usize],
        policy: &Policy,
        at_the_ends: &dyn Fn(usize) -> bool,
    ) -> Result<Group, Error> {
        let short = policy.sliding_f16 && window.is_some_and(|window| window <= presets::SLIDING_F16);
        let compressed = policy.compresses() && !short;
        let ages = std::iter::once(policy.window).chain(policy.tiers.iter().map(|tier| tier.age));
        let schedule = Schedule {
            tiers: if compressed { ages.map(|age| age / PAGE).collect() } else { Vec::new() },
            sinks: if compressed { policy.sinks / PAGE } else { 0 },
            sliding: window,
        };
        let raw = if policy.key == Form::F32 { Form::F32 } else { Form::F16 };
        let more = |layer: usize| if at_the_ends(layer) { policy.boundary } else { 0 };
        let of_form = |form: usize, layer: usize, half: Half| {
            let base = if half == Half::Key { policy.key } else { policy.value };
            if form == RAW {
                return raw;
            }
            if form == schedule.sink() {
                return sink(base, &layers[layer].shape, half);
            }
            let tier = if form == 1 { base } else { Form::Coded(policy.tiers[form - 2].codec) };
            match tier {
                Form::Coded(codec) => Form::Coded(codec.raised(more(layer))),
                plain => plain,
            }
        };
        let mut forms: Vec<BlockLayout> = Vec::with_capacity(schedule.forms());
        let mut chosen: Vec<Vec<[Option<Made>; 2]>> = Vec::new();
        for form in 0..schedule.forms() {
            let mut block = Block { total: self.total, end: 0, padding: 0 };
            let mut cells = Vec::with_capacity(members.len());
            let mut made = Vec::with_capacity(members.len());
            for (slot, &layer) in members.iter().enumerate() {
                let Layer { shape, balance, .. } = &layers[layer];
                let before = (form != RAW).then(|| chosen[schedule.made_from(form)][slot]);
                let [key, value] = [Half::Key, Half::Value].map(|half| of_form(form, layer, half));
                if let Some(latent) = layers[layer].latent {
                    cells.push(self.latent(layer, latent, shape, key, value, &mut block)?);
                    made.push([None, None]);
                    continue;
                }
                let (key_store, key_made, key_prefix) =
                    self.store(layer, Half::Key, shape, balance.as_deref(), key, before, key_codec)?;
                let (value_store, value_made, value_prefix) =
                    self.store(layer, Half::Value, shape, None, value, before, value_codec)?;
                cells.push(LayerCells {
                    keys: block.cells(shape.kv_heads, shape.key_dim, key_store, key_prefix)?,
                    values: block.cells(shape.kv_heads, shape.value_dim, value_store, value_prefix)?,
                });
                made.push([key_made, value_made]);
            }
            forms.push(BlockLayout { bytes: block.end, padding: block.padding, layers: cells });
            chosen.push(made);
        }
        let domains = (0..members.len())
            .map(|slot| {
                let codecs = forms.iter().filter_map(|form| form.layers[slot].values.codec(0));
                ValueDomains::new(codecs.map(Arc::clone))
            })
            .collect();
        let shapes = members.iter().map(|&layer| layers[layer].shape).collect();
        Ok(Group { schedule, shapes, forms, domains })
    }

    /// How a layer's keys or values are stored in a form, and whether that is a part of the form before.
    #[allow(clippy::too_many_arguments, reason = "all of them tell one codec from another")]
    fn store<C: ?Sized>(
        &mut self,
        layer: usize,
        half: Half,
        shape: &LayerShape,
        balance: Option<&[f32]>,
        form: Form,
        before: Option<[Option<Made>; 2]>,
        make: fn(&CodecParams<'_>, Made) -> Result<Arc<C>, quant_kernels::Error>,
    ) -> Result<(Store<C>, Option<Made>, bool), Error>
    where
        Arc<C>: Into<Known> + TryFrom<Known>,
    {
        let dim = if half == Half::Key { shape.key_dim } else { shape.value_dim };
        let codec = match form {
            Form::F32 => return Ok((Store::F32, None, before.is_some())),
            Form::F16 => return Ok((Store::F16, None, before.is_some())),
            Form::Coded(codec) => codec,
        };
        let before = before.and_then(|made| made[usize::from(half == Half::Value)]);
        let mut made = Made { half, codec, cut_from: None };
        let mut prefix = false;
        if let Some((bits, before)) = codec.planes().zip(before)
            && let Some(had) = before.codec.planes()
            && (bits == had || bits < had && bits.is_multiple_of(2))
        {
            prefix = true;
            made.cut_from = before.cut_from.or(Some(had)).filter(|&from| from != bits);
        }
        let refused = |source| Error::Codec { layer, half, codec: codec.name(), source };
        let params = CodecParams { dim, seed: SEED, rotation: RotationKind::HadamardTwice, balance: None };
        let balance = balance.filter(|_| codec.planes().is_some());
        if let Some(balance) = balance {
            let expected = shape.kv_heads.saturating_mul(dim);
            if balance.len() != expected {
                let source = quant_kernels::Error::Length { what: "balance", expected, got: balance.len() };
                return Err(refused(source));
            }
            let heads = balance.chunks_exact(dim.max(1)).map(|balance| {
                make(&CodecParams { balance: Some(balance), ..params }, made).map_err(refused)
            });
            return Ok((Store::Coded(heads.collect::<Result<_, _>>()?), Some(made), prefix));
        }
        let same = self.known.iter().find(|(other, of_dim, _)| *other == made && *of_dim == dim);
        let codec = match same.and_then(|(_, _, codec)| Arc::<C>::try_from(codec.clone()).ok()) {
            Some(codec) => codec,
            None => {
                let codec = make(&params, made).map_err(refused)?;
                self.known.push((made, dim, Arc::clone(&codec).into()));
                codec
            }
        };
        Ok((Store::Coded(vec![codec]), Some(made), prefix))
    }
}

impl Maker {
    /// The cells of a latent layer: values are read from the keys' pages where both are in one codec.
    fn latent(
        &mut self,
        layer: usize,
        latent: usize,
        shape: &LayerShape,
        key: Form,
        value: Form,
        block: &mut Block,
    ) -> Result<LayerCells, Error> {
        let dim = shape.key_dim;
        let rotary = dim.checked_sub(latent).filter(|rotary| *rotary > 0 && latent > 0);
        let refused =
            |codec: CodecRef, source| Error::Codec { layer, half: Half::Key, codec: codec.name(), source };
        let Form::Coded(key_codec_ref) = key else {
            let keys = block.cells(1, dim, Store::plain(key), true)?;
            let values = keys.read_as(Store::plain(key));
            return Ok(LayerCells { keys, values });
        };
        let (what, expected, got) = ("a latent row with a rotary part", latent + 1, dim);
        let rotary = rotary
            .ok_or_else(|| refused(key_codec_ref, quant_kernels::Error::Length { what, expected, got }))?;
        let part = |dim: usize| LayerShape { kv_heads: 1, key_dim: dim, value_dim: dim };
        // The rotary part is small, and scores hang on it.
        let eight = ["8", "q8_0"].into_iter().filter_map(CodecRef::find);
        let fits = |codec: &CodecRef| (codec.entry().key)(&CodecParams::new(rotary, SEED)).is_ok();
        let of_rotary = eight.clone().find(fits).or(eight.clone().next_back()).map_or(key, Form::Coded);
        let (latents, ..) = self.store(layer, Half::Key, &part(latent), None, key, None, key_codec)?;
        let (rotaries, ..) = self.store(layer, Half::Key, &part(rotary), None, of_rotary, None, key_codec)?;
        let (Some(latents), Some(rotaries)) = (latents.first(), rotaries.first()) else {
            return Err(Error::LayoutTooLarge { layers: self.total });
        };
        let key_codec = LatentKeys::new(latents, rotaries);
        let (values, ..) = self.store(layer, Half::Value, &part(latent), None, value, None, value_codec)?;
        let same = key == value && key_codec_ref.planes().is_none();
        let values = match values.first() {
            Some(codec) if same => {
                let codec = LatentValues::in_keys(codec, &key_codec)
                    .map_err(|source| refused(key_codec_ref, source))?;
                Some(Arc::new(codec) as Arc<dyn ValueCodec>)
            }
            Some(codec) => Some(Arc::new(LatentValues::new(codec, rotary)) as Arc<dyn ValueCodec>),
            None => None,
        };
        let keys =
            block.cells(1, dim, Store::Coded(vec![Arc::new(key_codec) as Arc<dyn KeyCodec>]), false)?;
        let values = match values {
            Some(codec) if same => keys.read_as(Store::Coded(vec![codec])),
            Some(codec) => block.cells(1, dim, Store::Coded(vec![codec]), false)?,
            None => block.cells(1, dim, Store::F16, true)?,
        };
        Ok(LayerCells { keys, values })
    }
}

impl<C: ?Sized> Store<C> {
    /// Rows as written.
    fn plain(form: Form) -> Self {
        if form == Form::F32 { Self::F32 } else { Self::F16 }
    }

    /// The codec of the first head.
    fn first(&self) -> Option<Arc<C>> {
        match self {
            Self::Coded(codecs) => codecs.first().cloned(),
            _ => None,
        }
    }
}

impl<C: ?Sized> Cells<C> {
    /// The same bytes, read in another way.
    fn read_as<D: ?Sized>(&self, store: Store<D>) -> Cells<D> {
        let &Self { start, stride, bytes, .. } = self;
        Cells { start, stride, bytes, store, prefix: false, alias: true }
    }
}

impl From<Arc<dyn KeyCodec>> for Known {
    fn from(codec: Arc<dyn KeyCodec>) -> Self {
        Self::Key(codec)
    }
}

impl From<Arc<dyn ValueCodec>> for Known {
    fn from(codec: Arc<dyn ValueCodec>) -> Self {
        Self::Value(codec)
    }
}

impl TryFrom<Known> for Arc<dyn KeyCodec> {
    type Error = ();

    fn try_from(known: Known) -> Result<Self, ()> {
        if let Known::Key(codec) = known { Ok(codec) } else { Err(()) }
    }
}

impl TryFrom<Known> for Arc<dyn ValueCodec> {
    type Error = ();

    fn try_from(known: Known) -> Result<Self, ()> {
        if let Known::Value(codec) = known { Ok(codec) } else { Err(()) }
    }
}

fn key_codec(params: &CodecParams<'_>, made: Made) -> Result<Arc<dyn KeyCodec>, quant_kernels::Error> {
    Ok(match made.cut_from.zip(made.codec.planes()) {
        Some((from, bits)) => Arc::new(PlaneKeys::new(params, from)?.cut(bits)?),
        None => (made.codec.entry().key)(params)?.into(),
    })
}

fn value_codec(params: &CodecParams<'_>, made: Made) -> Result<Arc<dyn ValueCodec>, quant_kernels::Error> {
    Ok(match made.cut_from.zip(made.codec.planes()) {
        Some((from, bits)) => Arc::new(PlaneValues::new(params, from)?.cut(bits)?),
        None => (made.codec.entry().value)(params)?.into(),
    })
}

/// The form of the first positions: planes of 8 bits where a half is coded, f16 for head sizes without a rotation.
fn sink(base: Form, shape: &LayerShape, half: Half) -> Form {
    let dim = if half == Half::Key { shape.key_dim } else { shape.value_dim };
    match base {
        Form::Coded(_) => CodecRef::find("8")
            .filter(|codec| (codec.entry().value)(&CodecParams::new(dim, SEED)).is_ok())
            .map_or(Form::F16, Form::Coded),
        plain => plain,
    }
}

/// A block while its cells are laid out.
struct Block {
    total: usize,
    end: usize,
    padding: usize,
}

impl Block {
    fn cells<C: ?Sized + Codec>(
        &mut self,
        heads: usize,
        dim: usize,
        store: Store<C>,
        prefix: bool,
    ) -> Result<Cells<C>, Error> {
        let plain = |size: usize| dim.checked_mul(PAGE * size);
        let bytes = match &store {
            Store::F32 => plain(4),
            Store::F16 => plain(2),
            Store::Coded(codecs) => Some(codecs.first().map_or(0, |codec| codec.page_bytes())),
        };
        let place = |bytes: usize| {
            let stride = bytes.checked_next_multiple_of(ALIGN)?;
            let end = heads.checked_mul(stride)?.checked_add(self.end)?;
            // Two of these must be countable.
            (end <= isize::MAX as usize / 4).then_some((bytes, stride, end))
        };
        let (bytes, stride, end) =
            bytes.and_then(place).ok_or(Error::LayoutTooLarge { layers: self.total })?;
        let cells = Cells { start: self.end, stride, bytes, store, prefix, alias: false };
        self.padding += heads * (stride - bytes);
        self.end = end;
        Ok(cells)
    }
}
