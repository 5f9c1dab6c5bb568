//! Logits, hidden states and greedy continuations equal those of transformers and llama.cpp on the golden models.

mod common;

use common::{Golden, Recorder, Runner, distance, rows};
use quant_kernels::Activations;
use quant_kvcache::Policy;
use quant_models::{NoProbe, Point};

/// Absolute; logits have a standard deviation of about 2.
const TOLERANCE: f64 = 1e-4;

/// [`TOLERANCE`], or 1.5 times what the two references differ by where they differ by more.
fn limit(disagreement: f64) -> f64 {
    if disagreement > TOLERANCE { 1.5 * disagreement } else { TOLERANCE }
}

/// The F32 file in reference mode: logits, hidden states and continuations of all prompts.
fn reference_mode(name: &str) {
    let Some(golden) = Golden::open(name) else { return };
    let model = golden.model("model-f32.gguf");
    let info = model.info().clone();
    let mut runner = Runner::new(&model, Activations::F32, Policy::F32);
    for prompt in ["short", "long", "one"] {
        let tokens = golden.tokens(&format!("{prompt}.tokens"));
        let mut recorder = Recorder::default();
        let logits = runner.logits(&tokens, &mut recorder);

        let stored = golden.indices(&format!("{prompt}.rows"));
        let ours = rows(&logits, info.vocab, &stored);
        let (_, max) = distance(&ours, &golden.f32(&format!("{prompt}.logits")));
        let allowed = limit(golden.disagreement(prompt, "/max_abs"));
        assert!(max <= allowed, "{name} {prompt}: logits differ by {max:e}, allowed {allowed:e}");

        if prompt != "one" {
            let stored = golden.indices(&format!("{prompt}.hidden_rows"));
            for (point, values) in &recorder.points {
                let (key, pointer) = match point {
                    Point::LayerOutput(i) => (format!("l_out.{i}"), format!("/l_out/{i}/max_abs")),
                    _ => ("embd".to_owned(), String::from("/none")),
                };
                let ours = rows(values, info.n_embd, &stored);
                let (_, max) = distance(&ours, &golden.f32(&format!("{prompt}.{key}")));
                let allowed = limit(golden.disagreement(prompt, &pointer));
                assert!(max <= allowed, "{name} {prompt}: {point} differs by {max:e}, allowed {allowed:e}");
            }
            assert_eq!(recorder.points.len(), info.n_layers + 1);
        }

        let expected = golden.tokens(&format!("{prompt}.greedy"));
        assert_eq!(runner.greedy(&tokens, expected.len()), expected, "{name} {prompt}: greedy continuation");
    }
}

/// One quantized file: reference mode against f32 arithmetic on its weights, normal mode against llama.cpp's distance.
fn quantized(name: &str, quant: &str) {
    let Some(golden) = Golden::open(name) else { return };
    let file = golden.meta["quants"][quant]["file"].as_str().unwrap().to_owned();
    let model = golden.model(&file);
    let vocab = model.info().vocab;
    let tokens = golden.tokens("short.tokens");
    let dequant = golden.f32(&format!("short.logits.{quant}.dequant"));
    let peer = golden.f32(&format!("short.logits.{quant}.llamacpp"));
    let last = |logits: Vec<f32>| logits[logits.len() - dequant.len()..].to_vec();
    assert!(dequant.len() == 16 * vocab && peer.len() == dequant.len());

    let ours = last(Runner::new(&model, Activations::F32, Policy::F32).logits(&tokens, &mut NoProbe));
    let (_, max) = distance(&ours, &dequant);
    assert!(max <= TOLERANCE, "{name} {quant}: reference mode differs by {max:e}");

    let ours = last(Runner::new(&model, Activations::Auto, Policy::F16).logits(&tokens, &mut NoProbe));
    let (mean, max) = distance(&ours, &dequant);
    let (peer_mean, peer_max) = distance(&peer, &dequant);
    let (means, maxima) = (mean / peer_mean, max / peer_max);
    assert!(
        means <= 1.15 && maxima <= 1.5,
        "{name} {quant}: mean distance {mean:e} is {means:.2} times llama.cpp's (1.15 allowed), \
         the largest {max:e} is {maxima:.2} times (1.5 allowed)"
    );
}

macro_rules! goldens {
    ($($test:ident $name:literal: $($quant_test:ident $quant:literal)*;)*) => {$(
        mod $test {
            #[test]
            fn f32_reference() {
                super::reference_mode($name);
            }
            $(#[test] fn $quant_test() {
                super::quantized($name, $quant);
            })*
        }
    )*};
}

goldens! {
    llama "llama": q8_0 "q8_0" q4_0 "q4_0" q2_k "q2_k" q3_k_m "q3_k_m" q4_k_m "q4_k_m" q5_k_m "q5_k_m" q6_k "q6_k"
        iq4_xs "iq4_xs" mix "mix" mix2 "mix2";
    llama_tied "llama-tied": q8_0 "q8_0" f16 "f16" bf16 "bf16";
    llama_rope_llama3 "llama-rope-llama3": q8_0 "q8_0";
    llama_rope_yarn "llama-rope-yarn": q8_0 "q8_0";
    mistral "mistral": q8_0 "q8_0";
}
