//! Another engine's attention over this cache: one layer, a prompt in chunks, then tokens one by one, and a fork.
//!
//! The numbers are made up; what matters is the order of the calls. Per pass: reserve, then for each layer write, seal
//! and attend, then commit. Run it with `cargo run --release -p quant-kvcache --example attention_loop -- auto`.

use quant_kernels::attention::{AttentionScratch, AttentionTask, QueryVariants, attend};
use quant_kernels::{Isa, Serial};
use quant_kvcache::{Error, KvCache, LayerShape, PAGE, Policy, SequenceId};

const SHAPE: LayerShape = LayerShape { kv_heads: 2, key_dim: 64, value_dim: 64 };
/// Query heads of each KV head.
const GROUP: usize = 4;

/// What a model would compute: `[token][heads][64]`.
fn made_up(kind: usize, first: usize, tokens: usize, heads: usize) -> Vec<f32> {
    let value = |i: usize| (((first * heads * 64 + i) * 2654435761 + kind) % 65536) as f32 / 32768.0 - 1.0;
    (0..tokens * heads * 64).map(value).collect()
}

/// One pass over `tokens` new positions; the last token's outputs.
fn pass(cache: &mut KvCache, id: SequenceId, tokens: usize) -> Result<Vec<f32>, Error> {
    let isa = Isa::detect();
    let first = cache.len(id)?;
    cache.reserve(id, tokens)?;
    let layer = 0; // a model has more: the same for each
    let keys = made_up(1, first, tokens, SHAPE.kv_heads);
    let values = made_up(2, first, tokens, SHAPE.kv_heads);
    cache.write(isa, id, layer, first, &keys, &values)?;
    cache.seal(isa, &Serial, layer, [id])?;

    let queries = made_up(3, first, tokens, SHAPE.kv_heads * GROUP);
    let width = SHAPE.kv_heads * GROUP * SHAPE.key_dim;
    let mut outputs = Vec::new();
    for head in 0..SHAPE.kv_heads {
        let mut begin = 0;
        // Queries of one page see every page in one form, so no task straddles a page boundary.
        while begin < tokens {
            let position = first + begin;
            let end = tokens.min(begin + PAGE - position % PAGE);
            let (mut k, mut v) = (Vec::new(), Vec::new());
            cache.pages(id, layer, head, position / PAGE, &mut k, &mut v)?;
            let task = AttentionTask {
                q: &queries[begin * width..end * width],
                q_stride: width,
                q_offset: head * GROUP * SHAPE.key_dim,
                group: GROUP,
                dk: SHAPE.key_dim,
                dv: SHAPE.value_dim,
                tokens: end - begin,
                first_position: position,
                window: None,
                k: &k,
                v: &v,
                domains: cache.domains(layer),
                variants: QueryVariants::default(),
                scale: 0.125,
            };
            let mut out = vec![0.0; task.out_len()];
            attend(isa, &task, &mut AttentionScratch::default(), &mut out);
            if end == tokens {
                outputs.extend_from_slice(&out[out.len() - GROUP * SHAPE.value_dim..]);
            }
            begin = end;
        }
    }
    cache.commit(id, tokens)?;
    Ok(outputs)
}

fn main() -> Result<(), Error> {
    let policy: Policy = std::env::args().nth(1).as_deref().unwrap_or("auto").parse()?;
    let mut cache = KvCache::new(vec![SHAPE], &policy, 64 << 20)?;
    let prompt = cache.create();
    for _ in 0..4 {
        pass(&mut cache, prompt, 500)?;
    }
    let branch = cache.fork(prompt)?;
    let one = pass(&mut cache, prompt, 1)?;
    let other = pass(&mut cache, branch, 1)?;
    assert_eq!(one, other, "a fork goes on as its parent would have");
    let stats = cache.stats();
    println!(
        "{policy}: 2 sequences of {} positions in {} bytes, {:.2} bits a value (f16: {} bytes)",
        cache.len(prompt)?,
        stats.used_bytes,
        stats.bits_per_value(),
        stats.f16_bytes
    );
    Ok(())
}
