//! The decoder loop that runs every architecture.

use crate::context::{Batch, Buffers, Context, Entry, Turned};
use crate::layer::{FeedForward, Layer, Mixer, RmsNorm};
use crate::matrix::{Linear, Matrix};
use crate::probe::{Point, Probe};
use crate::rows::{TILE_ROWS, for_each, sized};
use crate::span::{LogitsWanted, Span};
use crate::{Error, ModelInfo, balance};
use quant_gguf::Bytes;
use quant_kernels::rope::Rope;
use quant_kernels::{Kernels, residual};
use quant_kvcache::{KvCache, Layer as KvLayer, PAGE, Policy, offset_of};

/// What an architecture crate puts together from a file.
#[derive(Debug)]
pub struct Parts {
    /// Shape and size.
    pub info: ModelInfo,
    /// `token_embd`: one row for each token.
    pub token_embd: Matrix,
    /// The ropes that layers refer to by index.
    pub ropes: Vec<Rope>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// Norm before the head.
    pub output_norm: RmsNorm,
    /// The head; tied models put `token_embd` here.
    pub output: Linear,
}

/// A model that is ready to run. It is immutable: threads may share it.
#[derive(Debug)]
pub struct Decoder {
    parts: Parts,
}

impl Decoder {
    /// Checks that the parts fit.
    ///
    /// # Errors
    /// [`Error::Parts`] naming those that do not.
    pub fn new(parts: Parts) -> Result<Self, Error> {
        let ModelInfo { n_embd, vocab, .. } = parts.info;
        for (i, layer) in parts.layers.iter().enumerate() {
            layer.fits(n_embd, &parts.ropes).map_err(|what| Error::Parts { layer: i, what })?;
        }
        let head = parts.token_embd.cols() == n_embd
            && parts.token_embd.rows() == vocab
            && parts.output_norm.weight.len() == n_embd
            && parts.output.cols() == n_embd
            && parts.output.rows() == vocab
            && n_embd > 0
            && parts.ropes.iter().all(|rope| !rope.inv_freq.is_empty());
        if !head {
            return Err(Error::Parts { layer: parts.layers.len(), what: "embedding, norm and head" });
        }
        Ok(Self { parts })
    }

    /// Shape and size.
    pub fn info(&self) -> &ModelInfo {
        &self.parts.info
    }

    /// The weights that every pass reads from end to end, in the order of their use, as they lie in the file.
    pub fn dense_weights(&self) -> impl Iterator<Item = &Bytes> {
        let Parts { layers, output, .. } = &self.parts;
        layers.iter().flat_map(Layer::matrices).chain([output.matrix()]).map(Matrix::weights)
    }

    /// What a KV cache for this model keeps, layer by layer.
    pub fn kv_layout(&self) -> Vec<KvLayer> {
        self.parts.layers.iter().map(kv_layer).collect()
    }

    /// The same with what the weights tell about the channels of keys, if this policy has a codec that uses it. It
    /// reads a sample of the query and key weights.
    ///
    /// # Errors
    /// [`Error::Kernels`] if a type has no arithmetic.
    pub fn kv_layers(&self, policy: &Policy, kernels: &Kernels) -> Result<Vec<KvLayer>, Error> {
        let balanced = |layer: &Layer| {
            let Mixer::Attention(attention) = &layer.mixer;
            let balance = balance::of(attention, &layer.attn_norm, &self.parts.ropes, kernels)?;
            Ok(KvLayer { balance: Some(balance), ..kv_layer(layer) })
        };
        if !policy.uses_balance() {
            return Ok(self.kv_layout());
        }
        self.parts.layers.iter().map(balanced).collect()
    }

    /// Appends every span's tokens to its sequence and writes the logits that are wanted to `logits`, one row of
    /// the vocabulary after the other, in the order of spans.
    ///
    /// The bits of a row do not depend on what else is in the pass, on how a sequence was cut into passes, on
    /// the number of workers, or on the SIMD tier. If it fails, every sequence is as long as it was before.
    ///
    /// # Errors
    /// [`Error::Token`], [`Error::Context`], [`Error::DuplicateSequence`], [`Error::CacheLayout`] for what can't
    /// be run, [`Error::Cache`] if the cache is full or a key does not fit in f16, [`Error::NotFinite`].
    pub fn forward(
        &self,
        cx: &mut Context,
        cache: &mut KvCache,
        spans: &[Span<'_>],
        logits: &mut Vec<f32>,
        probe: &mut dyn Probe,
    ) -> Result<(), Error> {
        logits.clear();
        self.check(cache, spans)?;
        cx.batch.gather(cx.limit, cache, spans)?;
        let result = self.run(cx, cache, spans, logits, probe);
        for entry in &cx.batch.entries {
            match &result {
                Ok(()) => cache.commit(entry.sequence, entry.tokens)?,
                Err(_) => {
                    cache.rewind(entry.sequence, entry.first_position)?;
                }
            }
        }
        if result.is_err() {
            logits.clear();
        }
        result
    }

    fn check(&self, cache: &KvCache, spans: &[Span<'_>]) -> Result<(), Error> {
        let layers = &self.parts.layers;
        let fits = |(i, layer): (usize, &Layer)| {
            let wanted = kv_layer(layer);
            cache.layer(i).is_some_and(|kept| (kept.shape, kept.window) == (wanted.shape, wanted.window))
        };
        if cache.layers() != layers.len() || !layers.iter().enumerate().all(fits) {
            return Err(Error::CacheLayout);
        }
        let vocab = self.parts.info.vocab;
        for (i, span) in spans.iter().enumerate() {
            if let Some(&token) = span.tokens.iter().find(|&&token| token as usize >= vocab) {
                return Err(Error::Token { token, vocab });
            }
            if let Some(first) = spans[..i].iter().position(|other| other.sequence == span.sequence) {
                return Err(Error::DuplicateSequence { first, second: i });
            }
        }
        Ok(())
    }

    fn run(
        &self,
        cx: &mut Context,
        cache: &mut KvCache,
        spans: &[Span<'_>],
        logits: &mut Vec<f32>,
        probe: &mut dyn Probe,
    ) -> Result<(), Error> {
        for entry in &cx.batch.entries {
            cache.reserve(entry.sequence, entry.tokens)?;
        }
        let Parts { ropes, layers, .. } = &self.parts;
        let (rows, width) = (cx.batch.rows(), self.parts.info.n_embd);
        if rows == 0 {
            return Ok(());
        }
        cx.batch.rotate(&*cx.parallel, ropes);
        self.embed(cx, spans)?;
        if probe.wants(Point::Embedding) {
            probe.record(Point::Embedding, &cx.buffers.stream[..rows * width], width);
        }
        for (i, layer) in layers.iter().enumerate() {
            match &layer.mixer {
                Mixer::Attention(attention) => attention.forward(i, &layer.attn_norm, ropes, cx, cache)?,
            }
            cx.add_branch(rows * width);
            // After the last mixer rows without logits serve nobody.
            let rows = if i + 1 == layers.len() && !probe.wants(Point::LayerOutput(i)) {
                cx.keep_wanted(width)
            } else {
                rows
            };
            match &layer.feed_forward {
                FeedForward::Gated(mlp) => mlp.forward(&layer.ffn_norm, cx, rows)?,
            }
            cx.add_branch(rows * width);
            if probe.wants(Point::LayerOutput(i)) {
                probe.record(Point::LayerOutput(i), &cx.buffers.stream[..rows * width], width);
                if i + 1 == layers.len() {
                    cx.keep_wanted(width);
                }
            }
        }
        self.head(cx, logits)
    }

    /// Fills the residual stream with the rows of the tokens.
    fn embed(&self, cx: &mut Context, spans: &[Span<'_>]) -> Result<(), Error> {
        let width = self.parts.info.n_embd;
        let stream = sized(&mut cx.buffers.stream, cx.batch.rows() * width);
        let tokens = spans.iter().flat_map(|span| span.tokens);
        for (row, &token) in stream.chunks_exact_mut(width).zip(tokens) {
            self.parts.token_embd.dequantize_row(&cx.kernels, token as usize, row)?;
        }
        Ok(())
    }

    /// The head, on the wanted rows: the first of the residual stream by now.
    fn head(&self, cx: &mut Context, logits: &mut Vec<f32>) -> Result<(), Error> {
        let ModelInfo { n_embd: width, vocab, .. } = self.parts.info;
        let Context { kernels, parallel, activations, matmul, batch, buffers, .. } = cx;
        let count = batch.wanted.len();
        if count == 0 {
            return Ok(());
        }
        let x = self.parts.output_norm.of(&buffers.stream[..count * width]);
        logits.resize(count * vocab, 0.0);
        let mut projections = [self.parts.output.projection(logits)?];
        kernels.matmul(&**parallel, matmul, *activations, x, count, &mut projections)?;
        for (values, &row) in logits.chunks_exact(vocab).zip(&batch.wanted) {
            // No early exit, so that the loop is vectorised.
            if !values.iter().fold(true, |finite, value| finite & value.is_finite()) {
                return Err(Error::NotFinite { position: batch.positions[row] });
            }
        }
        Ok(())
    }
}

impl Batch {
    /// Lays the spans' rows out, one span after the other.
    fn gather(&mut self, limit: Option<usize>, cache: &KvCache, spans: &[Span<'_>]) -> Result<(), Error> {
        self.entries.clear();
        self.positions.clear();
        self.wanted.clear();
        for span in spans {
            let (first_row, tokens) = (self.positions.len(), span.tokens.len());
            let first_position = cache.len(span.sequence)?;
            let needed = first_position.saturating_add(tokens);
            if let Some(context) = limit.filter(|&limit| needed > limit) {
                return Err(Error::Context { needed, context });
            }
            self.entries.push(Entry { sequence: span.sequence, first_row, tokens, first_position });
            let turns = cache.turns(span.sequence)?;
            self.positions.extend(
                (first_position..needed).map(|at| at.saturating_add_signed(offset_of(turns, at / PAGE))),
            );
            let rows = first_row..first_row + tokens;
            match span.logits {
                LogitsWanted::None => {}
                LogitsWanted::Last => self.wanted.extend(rows.last()),
                LogitsWanted::All => self.wanted.extend(rows),
            }
        }
        self.gather_turned(cache)
    }

    /// The rows' positions with every offset that some sequence's pages have; none if no sequence was shifted.
    fn gather_turned(&mut self, cache: &KvCache) -> Result<(), Error> {
        let Self { entries, positions, turned, .. } = self;
        let mut count = 0;
        for entry in &*entries {
            count = count.max(cache.turns(entry.sequence)?.len());
        }
        turned.resize_with(count, Turned::default);
        for (i, turned) in turned.iter_mut().enumerate() {
            turned.positions.clear();
            for entry in &*entries {
                let rows = entry.first_row..entry.first_row + entry.tokens;
                match cache.turns(entry.sequence)?.get(i) {
                    Some(turn) => {
                        let own = entry.first_position..entry.first_position + entry.tokens;
                        turned.positions.extend(own.map(|at| at.saturating_add_signed(turn.offset)));
                    }
                    None => turned.positions.extend_from_slice(&positions[rows]),
                }
            }
        }
        Ok(())
    }
}

impl Context {
    /// `stream += branch`.
    fn add_branch(&mut self, len: usize) {
        let Buffers { stream, branch, .. } = &mut self.buffers;
        let tile = TILE_ROWS * 1024;
        let tiles = stream[..len].chunks_mut(tile).zip(branch[..len].chunks(tile));
        let isa = self.kernels.isa();
        for_each(&*self.parallel, tiles, |_, (stream, branch)| residual::add(isa, stream, branch));
    }

    /// Moves the rows that get logits to the front of the residual stream and returns how many they are.
    fn keep_wanted(&mut self, width: usize) -> usize {
        for (to, &from) in self.batch.wanted.iter().enumerate() {
            self.buffers.stream.copy_within(from * width..(from + 1) * width, to * width);
        }
        self.batch.wanted.len()
    }
}

fn kv_layer(layer: &Layer) -> KvLayer {
    match &layer.mixer {
        Mixer::Attention(attention) => attention.kv_layer(),
    }
}
