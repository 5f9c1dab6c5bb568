//! `quant perplexity` and `quant kv-table`: figures, files and refusals.

mod common;

use common::{Folder, demo, error_line, json, ok};
use std::path::Path;

fn model() -> String {
    demo().to_str().unwrap().to_owned()
}

fn heldout() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/heldout/stories.ids.txt").to_str().unwrap().to_owned()
}

fn number(value: &serde_json::Value, path: &str) -> f64 {
    value.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or_else(|| panic!("{path} in {value:#}"))
}

#[test]
fn perplexity_of_a_text_and_of_its_ids() {
    let folder = Folder::new();
    let text =
        "Once upon a time there was a little dog. The dog liked to play in the park with his friends. ";
    let text = folder.write("text.txt", text.repeat(4));
    let ids = folder.write("ids.txt", ok(&["tokenize", &model(), "-f", &text, "--ids"]));
    let run = |from: &str, path: &str| {
        json(&["perplexity", &model(), from, path, "--ctx", "32", "--chunks", "2", "--json"])
    };
    let (by_text, by_ids) = (run("-f", &text), run("--tokens", &ids));
    assert_eq!(by_text, by_ids);
    assert_eq!(number(&by_text, "/text/positions"), 30.0);
    let value = number(&by_text, "/result/perplexity/value");
    assert!((1.0..50.0).contains(&value), "{value}");
    assert!(by_text["reference"].is_null() && by_text["result"]["divergence"].is_null());
    let shown = ok(&["perplexity", &model(), "-f", &text, "--ctx", "32", "--chunks", "2"]);
    assert!(shown.contains("2 chunks of 32 tokens, 30 positions scored"), "{shown}");
    assert!(shown.contains(&format!("perplexity  {value:.4} +- ")), "{shown}");
}

#[test]
fn divergence_from_the_exact_cache_and_from_a_file() {
    let folder = Folder::new();
    let (saved, ids, model) = (folder.path("f16.logits"), heldout(), model());
    let run = |rest: &[&str]| {
        let all =
            [&["perplexity", &model, "--tokens", &ids, "--ctx", "128", "--chunks", "2"][..], rest].concat();
        ok(&all)
    };
    let plain = run(&["--kl-against", "exact", "--save-logits", &saved]);
    assert!(plain.contains("mean 0.000e0") && plain.contains("100.00 % of positions"), "{plain}");
    let against = |what: &str| -> serde_json::Value {
        serde_json::from_str(&run(&["--kv", "f32", "--kl-against", what, "--json"])).unwrap()
    };
    let (beside, after) = (against("exact"), against(&saved));
    assert_eq!(beside["result"], after["result"]);
    let mean = number(&beside, "/result/divergence/mean");
    assert!(mean > 0.0 && mean < 1e-3, "{mean}");
    assert_eq!(beside["reference"]["perplexity"], after["reference"]["perplexity"]);
}

#[test]
fn a_table_of_caches_as_text_json_and_plot() {
    let folder = Folder::new();
    let (svg, ids, model) = (folder.path("kv.svg"), heldout(), model());
    let args = ["kv-table", &model, "--tokens", &ids, "--ctx", "128", "--chunks", "1", "--kv", "f32"];
    let all = json(&[&args[..], &["--json", "--svg", &svg]].concat());
    let rows = all["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["kv"].as_str().unwrap()).collect::<Vec<_>>(), ["f16", "f32"]);
    assert_eq!(
        [number(&rows[0], "/kv_bits_per_element"), number(&rows[1], "/kv_bits_per_element")],
        [16.0, 32.0]
    );
    let text = ok(&args);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(
        lines[2].starts_with("kv ") && lines[4].starts_with("f32 ") && lines[4].contains("200.0 %"),
        "{text}"
    );
    let plot = std::fs::read_to_string(svg).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("f32 (32.00)"), "{plot}");
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let folder = Folder::new();
    let (ids, model) = (heldout(), model());
    let perplexity =
        |code: i32, rest: &[&str]| error_line(code, &[&["perplexity", &model][..], rest].concat());
    let few = folder.write("few", "5 6 7");
    let line = perplexity(1, &["--tokens", &few]);
    assert!(line.contains("3 tokens") && line.contains("512"), "{line}");
    let beyond = folder.write("beyond", "5 ".repeat(7) + "4096");
    assert!(perplexity(1, &["--tokens", &beyond, "--ctx", "8"]).contains("4096"));
    let hostile = folder.write("hostile", b"QLOGITS1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    let line = perplexity(1, &["--tokens", &ids, "--kl-against", &hostile]);
    assert!(line.contains("hostile") && line.contains("cut off"), "{line}");
    let absent = folder.path("absent");
    assert!(perplexity(1, &["--tokens", &ids, "--kl-against", &absent]).contains("absent"));
    let nowhere = folder.path("no/such/folder");
    assert!(
        perplexity(1, &["--tokens", &ids, "--chunks", "1", "--save-logits", &nowhere]).contains("folder")
    );
    perplexity(2, &[]);
    perplexity(2, &["--tokens", &ids, "-f", &ids]);
    perplexity(2, &["--tokens", &ids, "--ctx", "3"]);
    perplexity(2, &["--tokens", &ids, "--chunks", "0"]);
    perplexity(2, &["--tokens", &ids, "--kv", "no-such-codec"]);
    error_line(2, &["kv-table", &model, "--tokens", &ids, "--kv", "f16,no-such-codec"]);
    let line = error_line(
        1,
        &["kv-table", &model, "--tokens", &ids, "--chunks", "1", "--ctx", "64", "--svg", &nowhere],
    );
    assert!(line.contains("folder"), "{line}");
}
