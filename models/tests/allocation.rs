//! Decoding allocates nothing per token: what grows, grows at page boundaries.

use allocation_counter::measure;
use quant_gguf::Gguf;
use quant_kernels::{Activations, Isa, Kernels, Serial};
use quant_kvcache::{KvCache, PAGE, Policy};
use quant_models::{Context, LogitsWanted, NoProbe, Span, load};
use std::path::Path;
use std::sync::Arc;

#[test]
fn tokens_between_page_boundaries_allocate_nothing() {
    let model =
        load(&Gguf::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo/demo-q8_0.gguf")).unwrap())
            .unwrap();
    for name in ["f16", "auto", "2.4", "k=turbo-prod-3,v=polar-4,window=128", "tiers=8@0/4@128/2@256"] {
        let policy: Policy = name.parse().unwrap();
        let kernels = Arc::new(Kernels::new(Isa::detect()));
        let layers = model.kv_layers(&policy, &kernels).unwrap();
        let mut cache = KvCache::new(layers, &policy, 64 << 20).unwrap();
        let mut cx = Context::new(kernels, Arc::new(Serial), Activations::Auto);
        let sequence = cache.create();
        let mut logits = Vec::new();
        let mut forward = |tokens: &[u32]| {
            let spans = [Span { sequence, tokens, logits: LogitsWanted::Last }];
            model.forward(&mut cx, &mut cache, &spans, &mut logits, &mut NoProbe).unwrap();
        };
        // Buffers grow to what a few pages of each form need.
        let prompt: Vec<u32> = (0..4 * PAGE as u32 + 3).map(|i| (i * 7919 + 13) % 4000).collect();
        assert!(measure(|| forward(&prompt)).count_total > 0, "allocations are not counted");
        forward(&[1]);
        for position in prompt.len() + 1..6 * PAGE + 10 {
            let counted = measure(|| forward(&[position as u32 % 4000])).count_total;
            assert!(counted == 0 || position % PAGE == 0, "{name}: {counted} at position {position}");
        }
    }
}
