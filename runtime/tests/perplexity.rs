//! Perplexity of the demo model on its held-out texts, against the figures that llama.cpp computed.
#![allow(clippy::print_stdout, reason = "the figure is what a reader of the test wants")]

use quant_runtime::quality::{Chunks, LogitsReader, LogitsWriter, Measured, Reference, measure};
use quant_runtime::{Engine, EngineOptions, Error, Model, Policy};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CONTEXT: usize = 512;

fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo").join(name)
}

fn ids(path: &Path) -> Vec<u32> {
    std::fs::read_to_string(path).unwrap().split_whitespace().map(|id| id.parse().unwrap()).collect()
}

fn engine(model: &Arc<Model>, kv: Policy) -> Engine {
    Engine::new(model, &EngineOptions { context: Some(CONTEXT), kv, ..EngineOptions::default() }).unwrap()
}

fn run(model: &Model, chunks: &Chunks, reference: Option<Reference<'_>>, candidate: Engine) -> Measured {
    let vocabulary = model.info().vocab;
    let measured =
        measure(chunks, vocabulary, reference, &mut [candidate], None, &mut |_, _| ControlFlow::Continue(()));
    measured.unwrap().unwrap()
}

/// Value and standard error of one file on one text, as many chunks as the recorded figure is of.
fn check(path: &Path, gguf: &str, source: &str, text: &Path) {
    let rows = quant_fixtures::json(&bundled("ppl.json"));
    let mut rows = rows.as_array().unwrap().iter();
    let row = rows.find(|row| row["gguf"] == gguf && row["source"] == source && row["kv"] == "f16").unwrap();
    let model = Model::load(path).unwrap();
    let positions = row["positions"].as_u64().unwrap() as usize;
    let chunks = Chunks::new(&model, ids(text), CONTEXT, Some(positions / (CONTEXT / 2 - 1))).unwrap();
    let got = run(&model, &chunks, None, engine(&model, Policy::F16)).candidates[0].perplexity;
    assert_eq!(got.positions, positions);
    let (value, error) = (row["ppl"].as_f64().unwrap(), row["se"].as_f64().unwrap());
    println!(
        "{gguf} {source}: {:.4} +- {:.4}, llama.cpp {value:.4} +- {error:.4}",
        got.value, got.standard_error
    );
    assert!((got.value / value - 1.0).abs() < 0.002, "{gguf} {source}: {}, recorded {value}", got.value);
    assert!((got.standard_error / error - 1.0).abs() < 0.01, "{gguf} {source}: {}", got.standard_error);
}

#[test]
fn q8_0_equals_llama_cpp() {
    check(&bundled("demo-q8_0.gguf"), "q8_0", "stories", &bundled("heldout/stories.ids.txt"));
}

#[test]
fn f16_equals_llama_cpp_on_every_text() {
    let Some(path) = quant_fixtures::shared("demo/demo-f16.gguf") else { return };
    for source in ["rust", "novels", "grimm", "shakespeare", "wiki", "wikitext2_test"] {
        let Some(text) = quant_fixtures::shared(&format!("demo/heldout/{source}.ids.txt")) else { return };
        check(&path, "f16", source, &text);
    }
}

#[test]
fn a_saved_run_is_the_same_reference() {
    let model = Model::load(bundled("demo-q8_0.gguf")).unwrap();
    let vocabulary = model.info().vocab;
    let text = ids(&bundled("heldout/stories.ids.txt"));
    let chunks = Chunks::new(&model, text.clone(), CONTEXT, Some(2)).unwrap();
    let folder = std::env::temp_dir().join(format!("quant-logits-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("reference.logits");

    let mut writer = LogitsWriter::create(&path, &chunks, vocabulary).unwrap();
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    let saved = measure(&chunks, vocabulary, None, &mut [engine(&model, Policy::F32)], Some(&mut writer), go)
        .unwrap();
    writer.finish().unwrap();

    let mut exact = engine(&model, Policy::F32);
    let beside = run(&model, &chunks, Some(Reference::Engine(&mut exact)), engine(&model, Policy::F16));
    let mut file = LogitsReader::open(&path).unwrap();
    let after = run(&model, &chunks, Some(Reference::File(&mut file)), engine(&model, Policy::F16));
    assert_eq!(beside.candidates, after.candidates);
    assert_eq!(beside.reference.unwrap().perplexity, saved.unwrap().candidates[0].perplexity);
    let divergence = beside.candidates[0].divergence.unwrap();
    assert!(divergence.mean > 0.0 && divergence.mean < 1e-3 && divergence.max < 1e-2, "{divergence:?}");
    assert!(divergence.top1_agreement > 0.99 && divergence.perplexity_change.abs() < 3e-3, "{divergence:?}");
    // 16 bits an element, 6 layers of 2 heads of 64
    assert_eq!(beside.candidates[0].kv_bytes, CONTEXT * 6 * 2 * 2 * 64 * 2);

    // one chunk of the file serves too; another text does not, nor a file that was changed
    let fewer = Chunks::new(&model, text.clone(), CONTEXT, Some(1)).unwrap();
    run(
        &model,
        &fewer,
        Some(Reference::File(&mut LogitsReader::open(&path).unwrap())),
        engine(&model, Policy::F16),
    );
    let refused = |chunks: &Chunks| {
        let mut file = LogitsReader::open(&path).unwrap();
        let reference = Some(Reference::File(&mut file));
        measure(chunks, vocabulary, reference, &mut [], None, &mut |_, _| ControlFlow::Continue(()))
    };
    let other = Chunks::new(&model, text[1..].to_vec(), CONTEXT, Some(2)).unwrap();
    assert!(matches!(refused(&other), Err(Error::LogitsFile { .. })));
    let more = Chunks::new(&model, text, CONTEXT, Some(3)).unwrap();
    assert!(matches!(refused(&more), Err(Error::LogitsFile { .. })));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Whatever the bytes: an error that names the file, no allocation beyond its length.
#[test]
fn hostile_files_of_logits() {
    let folder = std::env::temp_dir().join(format!("quant-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("x.logits");
    let header = |words: [u32; 3], rest: usize| {
        let mut bytes = b"QLOGITS1".to_vec();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(bytes.len() + rest, 0xFF);
        bytes
    };
    let good = 4 * (4 + 3); // one chunk of 4 tokens, of which 1 is scored, of 3 logits
    for bytes in [
        Vec::new(),
        b"QLOGITS1".to_vec(),
        vec![0; 100],
        header([3, 4, 1], good - 1),
        header([3, 4, 1], good + 1),
        header([3, 4, 0], 0),
        header([0, 4, 1], 16),
        header([3, 0, 1], 0),
        header([3, 3, 1], 24),
        header([u32::MAX; 3], 64),
        header([1, u32::MAX, 1], 64),
        header([u32::MAX, 4, u32::MAX], 64),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let error = LogitsReader::open(&path).unwrap_err();
        assert!(matches!(error, Error::LogitsFile { .. }), "{error}");
        assert!(error.to_string().contains("x.logits"), "{error}");
    }
    std::fs::write(&path, header([3, 4, 1], good)).unwrap();
    assert_eq!(LogitsReader::open(&path).unwrap().ids(), [u32::MAX; 4]);
    assert!(matches!(LogitsReader::open(&folder.join("absent")), Err(Error::Io { .. })));

    // the rows are no numbers
    let model = Model::load(bundled("demo-q8_0.gguf")).unwrap();
    let chunks = Chunks::new(&model, vec![5; 4], 4, None).unwrap();
    let vocabulary = model.info().vocab;
    LogitsWriter::create(&path, &chunks, vocabulary).unwrap().finish().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.resize(bytes.len() + 4 * vocabulary, 0xFF);
    std::fs::write(&path, &bytes).unwrap();
    let mut file = LogitsReader::open(&path).unwrap();
    let reference = Some(Reference::File(&mut file));
    let result =
        measure(&chunks, vocabulary, reference, &mut [], None, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(result, Err(Error::LogitsFile { .. })), "{result:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}
