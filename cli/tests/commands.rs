//! What the commands do when all is well.

mod common;

use common::{Folder, demo, json, ok, quant, run, stderr, stdout};
use quant_tokenizer::Tokenizer;
use std::io::Write;
use std::process::Stdio;

fn model() -> String {
    demo().to_str().unwrap().to_owned()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_gguf(&quant_gguf::Gguf::open(demo()).unwrap()).unwrap()
}

#[test]
fn run_tells_a_story_without_being_asked() {
    let output = run(&["run", "-n", "40", "--temp", "0"]);
    assert!(output.status.success());
    assert!(stdout(&output).starts_with("Once upon a time, there was a little girl named Lily."));
    assert!(stdout(&output).ends_with('\n'));
    let last = stderr(&output);
    assert_eq!(last.lines().count(), 1, "{last}");
    for part in ["seed ", "prompt 5 tokens", "text 40 tokens", "tokens/s", "first token ", "KV cache"] {
        assert!(last.contains(part), "{part}: {last}");
    }
}

#[test]
fn a_seed_repeats_a_text_whatever_computes_it() {
    let text = |args: &[&str]| ok(&[&["run", "-n", "60", "-p", "The dog"], args].concat());
    let first = text(&["--seed", "5"]);
    assert_eq!(text(&["--seed", "5", "--threads", "1"]), first);
    assert_eq!(text(&["--seed", "5", "--threads", "3", "--ctx", "200"]), first);
    assert_ne!(text(&["--seed", "6"]), first);
    let scalar =
        quant().env("QUANT_ISA", "scalar").args(["run", "-n", "60", "-p", "The dog", "--seed", "5"]).output();
    assert_eq!(stdout(&scalar.unwrap()), first);
    // A seed nobody chose is told, and repeats the text.
    let random = json(&["run", "-n", "20", "--json"]);
    let seed = random["seed"].to_string();
    assert_eq!(json(&["run", "-n", "20", "--json", "--seed", &seed])["text"], random["text"]);
}

#[test]
fn json_holds_the_text_and_how_it_came_about() {
    let all = json(&[
        "run",
        &model(),
        "-p",
        "Once upon a time",
        "-n",
        "12",
        "--temp",
        "0",
        "--seed",
        "3",
        "--json",
    ]);
    assert_eq!(all["finish_reason"], "length");
    assert_eq!(all["seed"], 3);
    assert_eq!(all["prompt_tokens"], serde_json::json!([0, 499, 500, 262, 427]));
    assert_eq!(all["stats"]["generated_tokens"], 12);
    let tokens: Vec<u32> = serde_json::from_value(all["tokens"].clone()).unwrap();
    assert_eq!(tokenizer().decode(&tokens), all["text"].as_str().unwrap());
    let stopped = json(&["run", "--temp", "0", "--json", "--stop", "little", "--stop", "never"]);
    assert_eq!(
        (&stopped["finish_reason"], &stopped["text"]),
        (&"stop_string".into(), &", there was a ".into())
    );
    let ended = json(&["run", "--seed", "1", "--json"]);
    assert_eq!(ended["finish_reason"], "end_token");
}

#[test]
fn a_cache_that_may_lose_planes_tells_that_it_did_not() {
    let spill = std::env::temp_dir().join(format!("quant-spill-{}", std::process::id()));
    let flags = ["--kv", "8,drop=2", "--kv-memory", "64M", "--kv-spill", spill.to_str().unwrap()];
    let all = json(&[&["run", "-n", "20", "--temp", "0", "--ctx", "640", "--json"], &flags[..]].concat());
    assert_eq!(all["stats"]["reproducible"], true);
    assert_eq!(all["stats"]["kv_reduced_pages"], 0);
    let _ = std::fs::remove_file(spill);
}

#[test]
fn every_sampler_has_a_flag() {
    let greedy = ok(&["run", "-n", "30", "--temp", "0"]);
    let varied = [
        vec!["--top-k", "5", "--top-p", "0.9", "--min-p", "0.02", "--typical-p", "0.95"],
        vec![
            "--repeat-penalty",
            "1.3",
            "--frequency-penalty",
            "0.2",
            "--presence-penalty",
            "0.1",
            "--penalty-last-n",
            "-1",
        ],
        vec![
            "--dry-multiplier",
            "0.8",
            "--dry-base",
            "2",
            "--dry-allowed-length",
            "1",
            "--dry-penalty-last-n",
            "64",
            "--dry-sequence-breaker",
            "\\n",
        ],
        vec!["--xtc-probability", "0.5", "--xtc-threshold", "0.1"],
        vec!["--mirostat", "2", "--mirostat-tau", "4", "--mirostat-eta", "0.2"],
    ];
    for flags in varied {
        let args = [vec!["run", "-n", "30", "--seed", "2"], flags].concat();
        assert_eq!(ok(&args), ok(&args));
        assert_ne!(ok(&args), greedy, "{args:?}");
    }
    // Truncating samplers are off at temperature 0, biases and penalties are not.
    assert_eq!(ok(&["run", "-n", "30", "--temp", "0", "--top-p", "0.1", "--xtc-probability", "1"]), greedy);
    assert_ne!(ok(&["run", "-n", "30", "--temp", "0", "--logit-bias", "15=-inf"]), greedy);
    assert_ne!(ok(&["run", "-n", "30", "--temp", "0", "--repeat-penalty", "1.5"]), greedy);
}

#[test]
fn prompts_come_from_files_and_standard_input_when_asked() {
    let folder = Folder::new();
    let file = folder.write("prompt.txt", "The cat and the dog");
    let expected = ok(&["run", "-p", "The cat and the dog", "-n", "20", "--temp", "0"]);
    assert_eq!(ok(&["run", "-f", &file, "-n", "20", "--temp", "0"]), expected);
    let mut child = quant()
        .args(["run", "-f", "-", "-n", "20", "--temp", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"The cat and the dog").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()), expected);
}

#[test]
fn special_tokens_in_a_prompt_are_text_unless_asked_for() {
    let tokens = |args: &[&str]| {
        let all = [&["run", "-p", "<|end_of_text|>", "-n", "1", "--json"], args].concat();
        json(&all)["prompt_tokens"].as_array().unwrap().len()
    };
    assert_eq!(tokens(&["--parse-special"]), 2);
    assert!(tokens(&[]) > 2);
}

#[test]
fn tokenize_round_trips() {
    let text = "Tom said: \"héllo wörld\" 123\n\n  tabs\tand 日本語 🙂<|end_of_text|>";
    let line = ok(&["tokenize", &model(), "-p", text, "--ids", "--no-parse-special"]);
    let ids: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!(line.lines().count(), 1);
    assert_eq!(tokenizer().decode(&ids), text);
    let special = json(&["tokenize", &model(), "-p", text, "--json", "--no-bos"]);
    assert_eq!(special["ids"].as_array().unwrap().last().unwrap(), 1);
    assert_eq!(special["count"].as_u64().unwrap() as usize, special["pieces"].as_array().unwrap().len());
    let table = ok(&["tokenize", &model(), "-p", "Once upon"]);
    assert_eq!(table.lines().count(), 3);
    assert!(table.contains("499  \"Once\""), "{table}");
}

#[test]
fn logits_are_rows_of_the_vocabulary_whatever_the_chunk() {
    let folder = Folder::new();
    let tokens = folder.write("ids.txt", "0 499 500\n262 427 15 421\t304");
    let rows = |name: &str, args: &[&str]| {
        let out = folder.path(name);
        let model = model();
        let all = [&["logits", &model, "--tokens", &tokens, "--out", &out], args].concat();
        assert_eq!(ok(&all), "");
        std::fs::read(out).unwrap()
    };
    let all = rows("all", &[]);
    assert_eq!(all.len(), 8 * 4096 * 4);
    assert_eq!(rows("chunks", &["--chunk", "3", "--threads", "2"]), all);
    assert_eq!(rows("last", &["--positions", "last", "--chunk", "1"]), all[7 * 4096 * 4..]);
    assert_eq!(rows("context", &["--ctx", "8"]), all);
    let reference = rows("reference", &["--kv", "f32", "--activations", "f32"]);
    let values = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let far = values(&all).iter().zip(values(&reference)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far > 0.0 && far < 0.5, "{far}");
}

#[test]
fn inspect_tells_what_is_in_a_file() {
    let text = ok(&["inspect", &model(), "--tensors"]);
    for part in [
        "llama: supported",
        "6 layers, width 256",
        "token_embd.weight",
        "q8_0",
        "8.50 bits",
        "general.architecture",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let all = json(&["inspect", &model(), "--tensors", "--json"]);
    assert_eq!(all["supported"], true);
    assert_eq!(all["model"]["context"], 1024);
    assert_eq!(all["metadata"]["llama.block_count"], 6);
    assert_eq!(all["metadata"]["tokenizer.ggml.tokens"]["length"], 4096);
    let bytes: u64 = all["tensors"].as_array().unwrap().iter().map(|t| t["bytes"].as_u64().unwrap()).sum();
    assert!(bytes > 6_000_000);
    assert_eq!(json(&["inspect", "--json"])["weights"], all["weights"]);
}

#[test]
fn inspect_says_what_is_not_supported() {
    let folder = Folder::new();
    let mut writer = quant_gguf::Writer::new();
    writer.set("general.architecture", "new\u{1b}[31mthing").unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    let path = folder.write("other.gguf", bytes);
    let text = ok(&["inspect", &path]);
    assert!(text.contains("NOT supported") && !text.contains('\u{1b}'), "{text:?}");
    assert_eq!(json(&["inspect", &path, "--json"])["supported"], false);
}

#[test]
fn bench_measures() {
    let all = json(&[
        "bench",
        &model(),
        "-p",
        "16",
        "-n",
        "4",
        "-d",
        "0,32",
        "--threads",
        "1,2",
        "-r",
        "1",
        "--json",
    ]);
    let results = all["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    for row in results {
        assert!(row["prefill_tokens_per_second"].as_f64().unwrap() > 0.0);
        assert!(row["share_of_bandwidth"].as_f64().unwrap() > 0.0);
    }
    assert_eq!((&results[3]["threads"], &results[3]["depth"]), (&2.into(), &32.into()));
    let table = ok(&["bench", "-p", "16", "-n", "4", "--threads", "1", "-r", "2"]);
    assert!(table.contains("bundled demo") && table.contains("GB/s"), "{table}");
}

#[test]
fn a_full_context_ends_the_text_or_moves_up() {
    let args = ["run", "-n", "700", "--temp", "0", "--ignore-end", "--ctx", "384", "--kv", "8", "--json"];
    let full = json(&args);
    assert_eq!(full["finish_reason"], "context_full");
    let shifted = json(&[&args[..], &["--context-shift", "100"]].concat());
    assert_eq!(shifted["finish_reason"], "length");
    assert_eq!(shifted["tokens"].as_array().unwrap().len(), 700);
    assert!(shifted["stats"]["shifted_tokens"].as_u64().unwrap() >= 320);
    let same = full["tokens"].as_array().unwrap().len();
    assert_eq!(shifted["tokens"].as_array().unwrap()[..same], full["tokens"].as_array().unwrap()[..]);
}

#[test]
fn a_saved_session_goes_on_as_if_it_had_not_ended() {
    let folder = Folder::new();
    let file = &folder.path("story.kv")[..];
    for kv in ["f16", "4"] {
        let straight = json(&["run", "-n", "300", "--temp", "0", "--ignore-end", "--kv", kv, "--json"]);
        let first = ["run", "-n", "200", "--temp", "0", "--ignore-end", "--kv", kv, "--json", "--save", file];
        let mut tokens = json(&first)["tokens"].as_array().unwrap().clone();
        let next = ["run", "-n", "100", "--temp", "0", "--ignore-end", "--kv", kv, "--json", "--load", file];
        tokens.extend(json(&next)["tokens"].as_array().unwrap().clone());
        assert_eq!(straight["tokens"].as_array().unwrap(), &tokens, "{kv}");
    }
    // The model is compared: by samples always, by every byte if both ask for it.
    for (args, part) in [
        (&["run", "--load", file, "--kv", "8"][..], "its KV cache is 4, this one is 8"),
        (&["run", "--load", file, "--kv", "4", "--verify"], "saved without"),
        (&["run", "--load", &model(), "--kv", "4"], "not a snapshot"),
    ] {
        let output = run(args);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}
