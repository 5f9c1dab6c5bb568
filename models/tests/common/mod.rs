//! Running golden models in tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use quant_fixtures::{Tensor, json, oracle, safetensors};
use quant_gguf::Gguf;
use quant_kernels::{Activations, Isa, Kernels, Serial};
use quant_kvcache::{KvCache, Policy};
use quant_models::{Context, Decoder, LogitsWanted, NoProbe, Point, Probe, Span, load};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A golden folder.
pub struct Golden {
    pub name: String,
    pub folder: PathBuf,
    pub tensors: BTreeMap<String, Tensor>,
    pub meta: serde_json::Value,
}

impl Golden {
    /// `None` (and a line on standard error) where the folder is absent.
    pub fn open(name: &str) -> Option<Self> {
        let folder = oracle(name)?;
        let tensors = safetensors(&folder.join("golden.safetensors"));
        let meta = json(&folder.join("meta.json"));
        Some(Self { name: name.to_owned(), folder, tensors, meta })
    }

    pub fn model(&self, file: &str) -> Decoder {
        let gguf = Gguf::open(self.folder.join(file)).unwrap();
        load(&gguf).unwrap_or_else(|error| panic!("{}/{file}: {error}", self.name))
    }

    pub fn f32(&self, key: &str) -> Vec<f32> {
        self.tensors[key].f32()
    }

    pub fn indices(&self, key: &str) -> Vec<usize> {
        self.tensors[key].i32().iter().map(|&i| usize::try_from(i).unwrap()).collect()
    }

    pub fn tokens(&self, key: &str) -> Vec<u32> {
        self.tensors[key].i32().iter().map(|&i| u32::try_from(i).unwrap()).collect()
    }

    /// What the two references differ by, at most; 0 where it is not recorded.
    pub fn disagreement(&self, prompt: &str, pointer: &str) -> f64 {
        self.meta["agreement"][prompt].pointer(pointer).and_then(|value| value.as_f64()).unwrap_or(0.0)
    }
}

/// Records every point, all rows.
#[derive(Default)]
pub struct Recorder {
    pub points: BTreeMap<Point, Vec<f32>>,
}

impl Probe for Recorder {
    fn wants(&self, _point: Point) -> bool {
        true
    }

    fn record(&mut self, point: Point, values: &[f32], _width: usize) {
        self.points.entry(point).or_default().extend_from_slice(values);
    }
}

/// One model with its cache and buffers.
pub struct Runner<'m> {
    pub model: &'m Decoder,
    pub cx: Context,
    pub cache: KvCache,
    logits: Vec<f32>,
}

impl<'m> Runner<'m> {
    pub fn new(model: &'m Decoder, activations: Activations, kv: Policy) -> Self {
        let kernels = Arc::new(Kernels::new(Isa::detect()));
        Self::with(model, Context::new(kernels, Arc::new(Serial), activations), kv)
    }

    pub fn with(model: &'m Decoder, cx: Context, kv: Policy) -> Self {
        let cache = KvCache::new(model.kv_layout(), kv, 256 << 20).unwrap();
        Self { model, cx, cache, logits: Vec::new() }
    }

    /// Logits of every token of one new sequence, `[token][vocab]`.
    pub fn logits(&mut self, tokens: &[u32], probe: &mut dyn Probe) -> Vec<f32> {
        let sequence = self.cache.create();
        let spans = [Span { sequence, tokens, logits: LogitsWanted::All }];
        self.model.forward(&mut self.cx, &mut self.cache, &spans, &mut self.logits, probe).unwrap();
        self.cache.release(sequence).unwrap();
        self.logits.clone()
    }

    /// The `count` most likely tokens after a prompt, one after the other.
    pub fn greedy(&mut self, prompt: &[u32], count: usize) -> Vec<u32> {
        let sequence = self.cache.create();
        let mut tokens = prompt.to_vec();
        let mut out = Vec::new();
        while out.len() < count {
            let spans = [Span { sequence, tokens: &tokens, logits: LogitsWanted::Last }];
            self.model
                .forward(&mut self.cx, &mut self.cache, &spans, &mut self.logits, &mut NoProbe)
                .unwrap();
            let best = self.logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            out.push(best as u32);
            tokens = vec![best as u32];
        }
        self.cache.release(sequence).unwrap();
        out
    }
}

/// Some rows of a matrix, one after the other.
pub fn rows(values: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
    rows.iter().flat_map(|&row| &values[row * width..][..width]).copied().collect()
}

/// Mean and largest absolute difference.
pub fn distance(a: &[f32], b: &[f32]) -> (f64, f64) {
    assert_eq!(a.len(), b.len());
    let mut sum = 0.0;
    let mut max = 0f64;
    for (a, b) in a.iter().zip(b) {
        let difference = f64::from(*a) - f64::from(*b);
        assert!(difference.is_finite());
        sum += difference.abs();
        max = max.max(difference.abs());
    }
    (sum / a.len() as f64, max)
}
