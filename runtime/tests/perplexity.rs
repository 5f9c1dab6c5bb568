//! Perplexity of the demo model on its held-out stories, against the figures that llama.cpp computed.
//!
//! Chunks of 512 ids, the first of each replaced by the begin token; the logits at positions 256 to 510 are scored
//! against the next id; KV cache in f16.
#![allow(clippy::print_stdout, reason = "the figure is what a reader of the test wants")]

use quant_runtime::{Engine, EngineOptions, LogitsWanted, Model};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const CHUNK: usize = 512;
const CHUNKS: usize = 32;
const SCORED: std::ops::Range<usize> = 256..511;

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo").join(name)
}

fn perplexity(path: &Path) -> f64 {
    let model = Model::load(path).unwrap();
    let bos = model.tokenizer().unwrap().bos().unwrap();
    let options = EngineOptions { context: Some(CHUNK), ..EngineOptions::default() };
    let mut engine = Engine::new(&model, &options).unwrap();
    let text = std::fs::read_to_string(demo("heldout/stories.ids.txt")).unwrap();
    let ids: Vec<u32> = text.split_whitespace().map(|id| id.parse().unwrap()).collect();
    let (mut loss, mut scored) = (0.0, 0);
    for chunk in ids.chunks_exact(CHUNK).take(CHUNKS) {
        let mut tokens = chunk.to_vec();
        tokens[0] = bos;
        let session = engine.open();
        engine
            .evaluate(session, &tokens, LogitsWanted::All, &mut |position, row| {
                if SCORED.contains(&position) {
                    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f64 = row.iter().map(|x| f64::from(x - top).exp()).sum();
                    loss += sum.ln() - f64::from(row[tokens[position + 1] as usize] - top);
                    scored += 1;
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        engine.close(session);
    }
    assert_eq!(scored, SCORED.len() * CHUNKS);
    (loss / f64::from(scored as u32)).exp()
}

fn recorded(gguf: &str) -> f64 {
    let rows = quant_fixtures::json(&demo("ppl.json"));
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["gguf"] == gguf && row["source"] == "stories" && row["kv"] == "f16")
        .unwrap();
    assert_eq!(row["positions"].as_u64(), Some((SCORED.len() * CHUNKS) as u64));
    row["ppl"].as_f64().unwrap()
}

fn assert_equal(ours: f64, recorded: f64) {
    let off = (ours / recorded - 1.0).abs();
    assert!(off < 0.002, "perplexity {ours:.6} is {:.3} % off the recorded {recorded:.6}", 100.0 * off);
}

#[test]
fn q8_0_equals_llama_cpp() {
    assert_equal(perplexity(&demo("demo-q8_0.gguf")), recorded("q8_0"));
}

#[test]
fn f16_equals_llama_cpp() {
    let Some(path) = quant_fixtures::shared("demo/demo-f16.gguf") else { return };
    assert_equal(perplexity(&path), recorded("f16"));
}
