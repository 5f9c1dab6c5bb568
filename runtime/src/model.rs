//! A model: its file, its weights ready to run, its vocabulary.

use crate::backend::Backend;
use crate::prefault::Prefault;
use crate::sample::Pieces;
use crate::{Error, SamplerConfig};
use quant_gguf::Gguf;
use quant_kernels::Isa;
use quant_kvcache::KvCache;
use quant_models::{Context, Decoder, ModelInfo, NoProbe, Span};
use quant_tokenizer::{DecoderState, Tokenizer};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// A model, shared by any number of engines. It is immutable, and its weights stay where they are in the file.
#[derive(Debug)]
pub struct Model {
    file: Gguf,
    decoder: Decoder,
    /// A file without a vocabulary that we read still computes logits.
    tokenizer: Result<Tokenizer, Arc<quant_tokenizer::Error>>,
    /// Dropped with the model: nothing is mapped for one that is gone.
    _prefault: Prefault,
}

impl Model {
    /// Opens a GGUF file (of a split one, any part) and gets it ready. A thread of its own asks the system for the
    /// weights' pages meanwhile and shortly after, unless they are more than half of the memory that is free.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a file that is missing or damaged, [`Error::Models`] for a model that can't be run.
    pub fn load(path: impl AsRef<Path>) -> Result<Arc<Self>, Error> {
        Self::from_gguf(Gguf::open(path)?)
    }

    /// The same for a file that is open, or in memory.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_gguf(file: Gguf) -> Result<Arc<Self>, Error> {
        let decoder = quant_models::load(&file)?;
        let _prefault = Prefault::start(&decoder);
        let tokenizer = Tokenizer::from_gguf(&file).map_err(Arc::new);
        Ok(Arc::new(Self { file, decoder, tokenizer, _prefault }))
    }

    /// Shape and size.
    pub fn info(&self) -> &ModelInfo {
        self.decoder.info()
    }

    /// The file.
    pub fn file(&self) -> &Gguf {
        &self.file
    }

    /// The weights.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The vocabulary.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the file has none, or one that is not supported.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        self.tokenizer.as_ref().map_err(|error| Error::Tokenizer(Arc::clone(error)))
    }

    /// The file's own sampling settings where it has them, the defaults elsewhere.
    ///
    /// # Errors
    /// [`Error::Gguf`] for a setting of the wrong type.
    pub fn sampler_defaults(&self) -> Result<SamplerConfig, Error> {
        SamplerConfig::from_metadata(&self.file)
    }
}

/// A model with the buffers of an engine.
#[derive(Debug)]
pub(crate) struct ModelBackend {
    model: Arc<Model>,
    context: Context,
}

impl ModelBackend {
    pub(crate) fn new(model: Arc<Model>, context: Context) -> Self {
        Self { model, context }
    }
}

impl Pieces for ModelBackend {
    fn piece(&self, token: u32) -> Cow<'_, [u8]> {
        self.model.tokenizer.as_ref().ok().and_then(|t| t.token_bytes(token)).unwrap_or_default()
    }
}

impl Backend for ModelBackend {
    fn vocabulary(&self) -> usize {
        self.model.info().vocab
    }

    fn file(&self) -> Option<&Gguf> {
        Some(&self.model.file)
    }

    fn isa(&self) -> Isa {
        self.context.kernels().isa()
    }

    fn stop_tokens(&self) -> &[u32] {
        self.model.tokenizer.as_ref().map_or(&[], Tokenizer::stop_tokens)
    }

    fn decoder(&self, prompt: &[u32]) -> DecoderState {
        self.model.tokenizer.as_ref().map_or_else(|_| DecoderState::new(), |t| DecoderState::after(t, prompt))
    }

    fn decode(&self, state: &mut DecoderState, token: u32) -> String {
        self.model.tokenizer.as_ref().map_or_else(|_| String::new(), |t| state.push(t, token))
    }

    fn forward(
        &mut self,
        cache: &mut KvCache,
        spans: &[Span<'_>],
        logits: &mut Vec<f32>,
    ) -> Result<(), Error> {
        Ok(self.model.decoder.forward(&mut self.context, cache, spans, logits, &mut NoProbe)?)
    }
}
