//! From a policy to codecs and cells: which codec each half of each layer gets in each form, and its place in the block.

use super::{BlockLayout, Cells, Group, Layer, LayerCells, LayerShape, Store};
use crate::arena::ALIGN;
use crate::policy::{CodecRef, Form, Policy};
use crate::schedule::{RAW, SEALED, Schedule};
use crate::{Error, Half, PAGE, presets};
use quant_kernels::attention::ValueDomains;
use quant_kernels::codecs::latent::{LatentKeys, LatentValues};
use quant_kernels::codecs::planes::{PlaneKeys, PlaneValues};
use quant_kernels::codecs::{Codec, CodecParams, KeyCodec, RotationKind, ValueCodec};
use std::sync::Arc;

/// Rotations and projections of all layers: queries meet the same one in every layer, so nothing is gained by more.
const SEED: u64 = 0x71_75_61_6e_74;

/// Makes codecs, each once.
pub(super) struct Maker {
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
    /// For a cache of so many layers.
    pub(super) fn new(total: usize) -> Self {
        Self { known: Vec::new(), total }
    }

    pub(super) fn group(
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
        let reduced = match (policy.drop, forms.get(SEALED), chosen.get(SEALED)) {
            (Some(drop), Some(sealed), Some(made)) => self.reduced(layers, members, drop, sealed, made)?,
            _ => Vec::new(),
        };
        let domains = (0..members.len())
            .map(|slot| {
                let codecs = forms.iter().filter_map(|form| form.layers[slot].values.codec(0));
                ValueDomains::new(codecs.map(Arc::clone))
            })
            .collect();
        let shapes = members.iter().map(|&layer| layers[layer].shape).collect();
        Ok(Group { schedule, shapes, forms, reduced, domains })
    }

    /// The sealed form cut to 6, 4 and 2 bits, down to `drop`, as far as that makes it smaller: each head's bytes are the
    /// beginning of those before. What has no planes stays as it is.
    fn reduced(
        &mut self,
        layers: &[Layer],
        members: &[usize],
        drop: usize,
        sealed: &BlockLayout,
        made: &[[Option<Made>; 2]],
    ) -> Result<Vec<BlockLayout>, Error> {
        let mut out: Vec<BlockLayout> = Vec::new();
        for bits in [6, 4, 2].into_iter().filter(|&bits| bits >= drop) {
            let Some(codec) = CodecRef::find(&bits.to_string()) else { continue };
            let mut block = Block { total: self.total, end: 0, padding: 0 };
            let mut cells = Vec::with_capacity(members.len());
            for ((&layer, whole), made) in members.iter().zip(&sealed.layers).zip(made) {
                let Layer { shape, balance, .. } = &layers[layer];
                let cut = |made: Option<Made>| made.filter(|made| made.codec.planes() > Some(bits));
                let [key, value] = made.map(cut);
                let keys = match key {
                    Some(_) => {
                        let form = Form::Coded(codec);
                        self.store(
                            layer,
                            Half::Key,
                            shape,
                            balance.as_deref(),
                            form,
                            Some([key, None]),
                            key_codec,
                        )?
                        .0
                    }
                    None => whole.keys.store.clone(),
                };
                let values = match value {
                    Some(_) => {
                        let form = Form::Coded(codec);
                        self.store(layer, Half::Value, shape, None, form, Some([None, value]), value_codec)?.0
                    }
                    None => whole.values.store.clone(),
                };
                let keys = block.cells(shape.kv_heads, shape.key_dim, keys, true)?;
                let values = if whole.values.alias {
                    keys.read_as(values)
                } else {
                    block.cells(shape.kv_heads, shape.value_dim, values, true)?
                };
                cells.push(LayerCells { keys, values });
            }
            if block.end < out.last().unwrap_or(sealed).bytes {
                out.push(BlockLayout { bytes: block.end, padding: block.padding, layers: cells });
            }
        }
        Ok(out)
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

impl<C: ?Sized> Clone for Store<C> {
    fn clone(&self) -> Self {
        match self {
            Self::F32 => Self::F32,
            Self::F16 => Self::F16,
            Self::Coded(codecs) => Self::Coded(codecs.clone()),
        }
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
