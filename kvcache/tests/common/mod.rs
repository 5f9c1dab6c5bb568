//! A small engine of its own: numbers in place of a model, and attention over whatever the cache hands out.
#![allow(dead_code, reason = "each test binary uses its part")]

use quant_kernels::attention::{AttentionScratch, AttentionTask, QueryVariants, attend};
use quant_kernels::{Isa, Parallel, Serial};
use quant_kvcache::{Error, KvCache, Layer, LayerShape, Observed, PAGE, Policy, SequenceId};
use std::sync::Arc;

/// Query heads of a KV head.
const GROUP: usize = 2;
const SCALE: f32 = 0.2;

/// One layer that sees everything and one with a sliding window.
pub fn layers() -> Vec<Layer> {
    let wide = LayerShape { kv_heads: 2, key_dim: 64, value_dim: 64 };
    let narrow = LayerShape { kv_heads: 1, key_dim: 64, value_dim: 96 };
    vec![Layer::from(wide), Layer { window: Some(200), ..narrow.into() }, wide.into()]
}

/// A number of order 1 from what it belongs to.
fn number(parts: [usize; 4]) -> f32 {
    let mix = |h: u64, part: usize| (h ^ part as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let bits = parts.into_iter().fold(0x5851_f42d_4c95_7f2d, mix);
    let unit = (bits >> 40) as f32 / (1u64 << 24) as f32;
    // A few channels are large and biased, as those of keys are.
    if parts[3].is_multiple_of(11) { 4.0 + 2.0 * unit } else { 2.0 * unit - 1.0 }
}

fn row(kind: usize, layer: usize, token: u32, position: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| number([8 * layer + kind, token as usize, position, i])).collect()
}

pub struct Loop {
    pub cache: KvCache,
    pub isa: Isa,
    pub parallel: Arc<dyn Parallel + Send>,
}

impl Loop {
    pub fn new(policy: &Policy, budget: usize) -> Self {
        Self::with(layers(), policy, budget)
    }

    pub fn with(layers: Vec<Layer>, policy: &Policy, budget: usize) -> Self {
        let cache = KvCache::new(layers, policy, budget).unwrap();
        Self { cache, isa: Isa::detect(), parallel: Arc::new(Serial) }
    }

    /// Writes, seals and attends, but does not commit: for each span the outputs' bits of each token.
    pub fn pass(&mut self, spans: &[(SequenceId, &[u32])]) -> Result<Vec<Vec<Vec<u32>>>, Error> {
        self.run(spans, true)
    }

    /// Writes, seals and commits.
    pub fn pass_without_queries(&mut self, id: SequenceId, tokens: &[u32]) -> Result<(), Error> {
        self.run(&[(id, tokens)], false)?;
        self.cache.commit(id, tokens.len())
    }

    fn run(&mut self, spans: &[(SequenceId, &[u32])], attends: bool) -> Result<Vec<Vec<Vec<u32>>>, Error> {
        let mut out: Vec<Vec<Vec<u32>>> = spans.iter().map(|(_, t)| vec![Vec::new(); t.len()]).collect();
        for (id, tokens) in spans {
            self.cache.reserve(*id, tokens.len())?;
        }
        for layer in 0..self.cache.layers() {
            let LayerShape { kv_heads, key_dim, value_dim } = self.cache.layer(layer).unwrap().shape;
            for (id, tokens) in spans {
                let first = self.cache.len(*id)?;
                let rows = |kind, len| -> Vec<f32> {
                    tokens.iter().zip(first..).flat_map(|(&t, p)| row(kind, layer, t, p, len)).collect()
                };
                let latent = self.cache.layer(layer).unwrap().latent.is_some();
                let value_dim = if latent { 0 } else { value_dim };
                let (k, v) = (rows(0, kv_heads * key_dim), rows(1, kv_heads * value_dim));
                if self.cache.layer(layer).unwrap().source.is_none() && !tokens.is_empty() {
                    self.cache.write(self.isa, *id, layer, first, &k, &v)?;
                }
            }
            self.cache.seal(self.isa, &*self.parallel, layer, spans.iter().map(|(id, _)| *id))?;
            for (id, tokens) in spans {
                if self.cache.observes(*id, tokens.len()) {
                    let position = self.cache.len(*id)? + tokens.len() - 1;
                    let token = tokens[tokens.len() - 1];
                    let query = |head| row(2 + head, layer, token, position, GROUP * key_dim);
                    let q: Vec<f32> = (0..kv_heads).flat_map(query).collect();
                    let of = Observed { q: &q, position, scale: SCALE };
                    self.cache.observe(self.isa, &*self.parallel, *id, layer, &of)?;
                }
            }
            for ((id, tokens), out) in spans.iter().zip(&mut out).filter(|_| attends) {
                for head in 0..kv_heads {
                    self.attend(*id, layer, head, tokens, out)?;
                }
            }
        }
        Ok(out)
    }

    fn attend(
        &self,
        id: SequenceId,
        layer: usize,
        head: usize,
        tokens: &[u32],
        out: &mut [Vec<u32>],
    ) -> Result<(), Error> {
        let LayerShape { key_dim, value_dim, .. } = self.cache.layer(layer).unwrap().shape;
        let first = self.cache.len(id)?;
        let mut begin = 0;
        while begin < tokens.len() {
            let position = first + begin;
            let end = tokens.len().min(begin + PAGE - position % PAGE);
            let (mut k, mut v) = (Vec::new(), Vec::new());
            self.cache.pages(id, layer, head, position / PAGE, &mut k, &mut v)?;
            let query = |(&t, p): (&u32, usize)| row(2 + head, layer, t, p, GROUP * key_dim);
            let q: Vec<f32> = tokens[begin..end].iter().zip(position..).flat_map(query).collect();
            let task = AttentionTask {
                q: &q,
                q_stride: GROUP * key_dim,
                q_offset: 0,
                group: GROUP,
                dk: key_dim,
                dv: value_dim,
                tokens: end - begin,
                first_position: position,
                window: self.cache.layer(layer).unwrap().window,
                k: &k,
                v: &v,
                domains: self.cache.domains(layer),
                variants: QueryVariants::default(),
                scale: SCALE,
            };
            let mut values = vec![0.0; task.out_len()];
            attend(self.isa, &task, &mut AttentionScratch::default(), &mut values);
            let dim = self.cache.layer(layer).unwrap().latent.unwrap_or(value_dim);
            for (out, values) in out[begin..end].iter_mut().zip(values.chunks_exact(GROUP * value_dim)) {
                let heads = values.chunks_exact(value_dim);
                out.extend(heads.flat_map(|head| head[..dim].iter().map(|x| x.to_bits())));
            }
            begin = end;
        }
        Ok(())
    }

    /// A pass of one sequence, committed.
    pub fn feed(&mut self, id: SequenceId, tokens: &[u32]) -> Result<Vec<Vec<u32>>, Error> {
        let out = self.pass(&[(id, tokens)])?.remove(0);
        self.cache.commit(id, tokens.len())?;
        Ok(out)
    }
}

/// The outputs of a straight run: a cache of its own, the simplest code, one thread.
pub fn specified(layers: Vec<Layer>, policy: &Policy, tokens: &[u32]) -> Vec<Vec<u32>> {
    in_one_go(Isa::Scalar, layers, policy, tokens)
}

/// The same on the best tier, several times as fast; that its bits are those of [`specified`] is tested for every codec.
pub fn straight(layers: Vec<Layer>, policy: &Policy, tokens: &[u32]) -> Vec<Vec<u32>> {
    in_one_go(Isa::detect(), layers, policy, tokens)
}

fn in_one_go(isa: Isa, layers: Vec<Layer>, policy: &Policy, tokens: &[u32]) -> Vec<Vec<u32>> {
    let mut one = Loop::with(layers, policy, 1 << 30);
    one.isa = isa;
    let id = one.cache.create();
    one.feed(id, tokens).unwrap()
}

/// Some tokens.
pub fn tokens(count: usize, salt: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 7919 + 13 + salt * 101) % 997).collect()
}
