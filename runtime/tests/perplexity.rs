//! Perplexity of the demo model on its held-out texts, against the figures that llama.cpp computed.
#![allow(clippy::print_stdout, reason = "the figure is what a reader of the test wants")]

use quant_kvcache::KvCache;
use quant_runtime::quality::{
    Chunks, LogitsReader, LogitsWriter, Measured, Reference, compare_saved, measure,
};
use quant_runtime::{Activations, Engine, EngineOptions, Error, Model, Policy};
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
    let [beside_quality, after_quality] = [&beside, &after].map(|run| run.candidates[0]);
    assert_eq!(beside_quality.perplexity, after_quality.perplexity);
    assert_eq!(beside_quality.divergence, after_quality.divergence);
    assert_eq!(beside.reference.unwrap().perplexity, saved.unwrap().candidates[0].perplexity);
    let divergence = beside.candidates[0].divergence.unwrap();
    assert!(divergence.mean > 0.0 && divergence.mean < 1e-3 && divergence.max < 1e-2, "{divergence:?}");
    assert!(divergence.top1_agreement > 0.99 && divergence.perplexity_change.abs() < 3e-3, "{divergence:?}");
    // 16 bits an element, 6 layers of 2 heads of 64
    assert_eq!(beside.candidates[0].kv.used_bytes, CONTEXT * 6 * 2 * 2 * 64 * 2);

    // two saved runs are compared alike
    let other = folder.join("candidate.logits");
    let mut writer = LogitsWriter::create(&other, &chunks, vocabulary).unwrap();
    measure(&chunks, vocabulary, None, &mut [engine(&model, Policy::F16)], Some(&mut writer), go).unwrap();
    writer.finish().unwrap();
    let open = |path: &Path| LogitsReader::open(path).unwrap();
    let files = compare_saved(&mut open(&path), &mut open(&other)).unwrap();
    assert_eq!(files.reference.unwrap().perplexity, beside.reference.unwrap().perplexity);
    assert_eq!(files.candidates[0].perplexity, beside_quality.perplexity);
    assert_eq!(files.candidates[0].divergence, beside_quality.divergence);
    let half = Chunks::new(&model, text[..CONTEXT].to_vec(), CONTEXT, None).unwrap();
    let mut writer = LogitsWriter::create(&other, &half, vocabulary).unwrap();
    measure(&half, vocabulary, None, &mut [engine(&model, Policy::F16)], Some(&mut writer), go).unwrap();
    writer.finish().unwrap();
    let error = compare_saved(&mut open(&path), &mut open(&other)).unwrap_err();
    assert!(matches!(error, Error::LogitsFile { .. }), "{error}");

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

/// What the compressed caches may cost on the bundled model, at about twice what they do cost. The codecs are judged
/// alone, the presets as they are; 1024 tokens, activations as they are, so that only the cache differs.
#[test]
fn compressed_caches_stay_as_good_as_they_are() {
    const CONTEXT: usize = 1024;
    let model = Model::load(bundled("demo-q8_0.gguf")).unwrap();
    let chunks = Chunks::new(&model, ids(&bundled("heldout/stories.ids.txt")), CONTEXT, Some(4)).unwrap();
    // policy, mean divergence, change of the perplexity, bits of a sealed page at the most
    let gates = [
        ("k=planes-4,v=planes-4", 1.4e-3, 0.01, 4.75),
        ("k=planes-6,v=planes-5", 2.0e-4, 0.003, 6.375),
        ("k=planes-3,v=planes-3", 5e-3, 0.02, 3.75),
        ("8", 2e-5, 0.001, 8.75),
        ("near", 2.0e-4, 0.003, 6.375),
        ("auto", 2.0e-4, 0.003, 7.0),
        ("4", 4e-4, 0.01, 6.0),
        ("3.4", 3e-3, 0.02, 4.25),
        ("2.4", 1.2e-2, 0.03, 3.25),
    ];
    let engine = |kv: Policy| {
        let activations = Activations::F32;
        let options = EngineOptions { context: Some(CONTEXT), kv, activations, ..EngineOptions::default() };
        Engine::new(&model, &options).unwrap()
    };
    let mut engines: Vec<Engine> = gates.iter().map(|(kv, ..)| engine(kv.parse().unwrap())).collect();
    let mut exact = engine(Policy::F16);
    let reference = Some(Reference::Engine(&mut exact));
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    let measured = measure(&chunks, model.info().vocab, reference, &mut engines, None, go).unwrap().unwrap();
    let page = |kv: &Policy| KvCache::new(model.decoder().kv_layout(), kv, 0).unwrap().page_bytes() as f64;
    for ((kv, mean, change, bits), quality) in gates.into_iter().zip(measured.candidates) {
        let divergence = quality.divergence.unwrap();
        let sealed = 16.0 * page(&kv.parse().unwrap()) / page(&Policy::F16);
        println!(
            "{kv}: {sealed:.3} bits, KL {:.2e}, 99.9 % {:.2e}, perplexity {:+.3} % +- {:.3}",
            divergence.mean,
            divergence.percentile_99_9,
            100.0 * divergence.perplexity_change,
            100.0 * divergence.change_error
        );
        assert!(divergence.mean > 0.0 && divergence.mean < mean, "{kv}: {divergence:?}");
        // what chance may do comes on top
        assert!(
            divergence.perplexity_change.abs() < change + 2.0 * divergence.change_error,
            "{kv}: {divergence:?}"
        );
        assert!(sealed <= bits, "{kv}: {sealed} bits");
    }
}
