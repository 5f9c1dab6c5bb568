//! What the commands do when something is wrong: one clear line, the right exit code, never a panic.

mod common;

use common::{Folder, demo, error_line, quant, run, stderr, stdout};
use quant_gguf::{Gguf, Writer};
use std::fs::File;
use std::io::Read;
use std::process::Stdio;

/// Files that are no good, each refused by every command that runs a model.
#[test]
fn bad_files_are_refused_by_name() {
    let folder = Folder::new();
    let good = std::fs::read(demo()).unwrap();
    let mut flipped = good.clone();
    for byte in &mut flipped[8..40] {
        *byte ^= 0xff;
    }
    let changed = |key: &str, value: u32| {
        let mut writer = Writer::copy_of(&Gguf::open(demo()).unwrap()).unwrap();
        writer.set(key, value).unwrap();
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).unwrap();
        bytes
    };
    let mut other = Writer::copy_of(&Gguf::open(demo()).unwrap()).unwrap();
    other.set("general.architecture", "mamba").unwrap();
    let mut other_bytes = Vec::new();
    other.write_to(&mut other_bytes).unwrap();
    let tokens = folder.write("ids.txt", "0 1 2");
    let out = folder.path("out.f32");
    for (name, bytes, says) in [
        ("empty", Vec::new(), ""),
        ("text", b"this is not a model".to_vec(), "GGUF"),
        ("header", good[..20].to_vec(), "too early"),
        ("metadata", good[..50_000].to_vec(), "too early"),
        ("tensors", good[..good.len() / 2].to_vec(), "download it again"),
        ("last-byte", good[..good.len() - 1].to_vec(), ""),
        ("flipped", flipped, ""),
        ("architecture", other_bytes, "mamba"),
        ("experts", changed("llama.expert_count", 8), "Mixtral"),
        ("unknown-key", changed("llama.something_new", 1), "something_new"),
        ("heads", changed("llama.attention.head_count", 0), "head_count"),
        ("layers", changed("llama.block_count", 4_000_000_000), "block_count"),
        ("narrow", changed("llama.embedding_length", 128), ""),
    ] {
        let path = folder.write(&format!("{name}.gguf"), bytes);
        let line = error_line(1, &["run", &path, "-p", "x", "-n", "1"]);
        assert!(line.contains(says), "{name}: {line}");
        error_line(1, &["logits", &path, "--tokens", &tokens, "--out", &out]);
        error_line(1, &["bench", &path, "-p", "1", "-n", "1"]);
    }
    let line = error_line(1, &["run", &folder.path("absent.gguf")]);
    assert!(line.contains("absent.gguf"), "{line}");
    error_line(1, &["inspect", "/"]);
}

/// A byte changed anywhere in the header is an error or another model, not a crash.
#[test]
fn damage_never_panics() {
    let folder = Folder::new();
    let good = std::fs::read(demo()).unwrap();
    for i in 0..40usize {
        let mut bytes = good.clone();
        // The first positions cover the header, the others lie all over metadata and tensor table.
        let at = if i < 24 { i } else { i * 2_971 % 130_000 };
        bytes[at] ^= 0x80 | i as u8;
        let path = folder.write("damaged.gguf", bytes);
        let output = run(&["run", &path, "-n", "2", "--ctx", "64"]);
        let text = stderr(&output);
        assert!(matches!(output.status.code(), Some(0 | 1)), "byte {at}: {:?} {text}", output.status);
        assert!(!text.contains("panicked"), "byte {at}: {text}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let line = error_line(1, &["run", "-p", &"word ".repeat(60), "--ctx", "32"]);
    assert!(line.contains("62 tokens") && line.contains("32"), "{line}");
    let folder = Folder::new();
    let tokens = folder.write("ids.txt", "5 ".repeat(9));
    let (model, out) = (demo(), folder.path("out.f32"));
    let model = model.to_str().unwrap();
    let line = error_line(1, &["logits", model, "--tokens", &tokens, "--out", &out, "--ctx", "8"]);
    assert!(line.contains('9') && line.contains('8'), "{line}");
}

#[test]
fn wrong_inputs_are_named() {
    let folder = Folder::new();
    let (model, out) = (demo(), folder.path("out.f32"));
    let model = model.to_str().unwrap();
    let logits =
        |ids: &str| error_line(1, &["logits", model, "--tokens", &folder.write("ids", ids), "--out", &out]);
    assert!(logits("1 2 x").contains("entry 3"));
    assert!(logits("1 99999").contains("99999"));
    assert!(logits(" \n").contains("no token ids"));
    let binary = folder.write("binary", [0xff, 0xfe, 0x00]);
    assert!(error_line(1, &["run", "-f", &binary]).contains("UTF-8"));
    assert!(error_line(1, &["run", "-f", &folder.path("absent.txt")]).contains("absent.txt"));
}

#[test]
fn wrong_usage_exits_with_2() {
    let model = demo();
    let model = model.to_str().unwrap();
    for args in [
        &["run", "--temp", "-1"][..],
        &["run", "--temp", "nan"],
        &["run", "--top-p", "1.5"],
        &["run", "--mirostat", "1"],
        &["run", "--dry-base", "0.5"],
        &["run", "--logit-bias", "15"],
        &["run", "--threads", "0"],
        &["run", "--ctx", "0"],
        &["run", "-n", "0"],
        &["run", "-p", "a", "-f", "b"],
        &["run", "--no-such-flag"],
        &["tokenize", model],
        &["logits", model],
        &["logits", model, "--tokens", "a", "--out", "b", "--positions", "some"],
        &["bench", "--ctx", "10"],
        &["sing"],
        &[],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{args:?}");
    }
    let output = quant().env("QUANT_ISA", "mmx").args(["run", "-n", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("mmx") && stderr(&output).contains("scalar"));
}

#[test]
fn help_documents_exit_codes_and_every_flag() {
    let help = stdout(&run(&["--help"]));
    assert!(help.contains("Exit codes") && help.contains("Examples"));
    let help = stdout(&run(&["run", "--help"]));
    for flag in [
        "--seed",
        "--xtc-probability",
        "--dry-multiplier",
        "--mirostat-tau",
        "--logit-bias",
        "--ctx",
        "--stop",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    for args in [&["run", "--seed", "1"][..], &["inspect", "--tensors"], &["--help"]] {
        let mut child = quant().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}: {text}");
        assert_eq!(text, "", "{args:?}");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;

    #[test]
    fn a_full_disk_is_an_error() {
        let folder = Folder::new();
        let tokens = folder.write("ids.txt", "0 1 2");
        let model = demo();
        let model = model.to_str().unwrap();
        let line = error_line(1, &["logits", model, "--tokens", &tokens, "--out", "/dev/full"]);
        assert!(line.contains("/dev/full"), "{line}");
        let line = error_line(1, &["logits", model, "--tokens", &tokens, "--out", "/no/such/folder/x"]);
        assert!(line.contains("/no/such/folder/x"), "{line}");
    }

    #[test]
    fn an_output_that_can_not_be_written_is_an_error() {
        for args in [&["run", "-n", "5"][..], &["run", "-n", "5", "--json"], &["inspect"], &["--help"]] {
            let full = File::options().write(true).open("/dev/full").unwrap();
            let output = quant().args(args).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
            let output = output.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
            assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
        }
        // A standard error that can't be written does not spoil the text.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let child = quant().args(["run", "-n", "5"]).stdout(Stdio::piped()).stderr(full).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).starts_with("Once upon a time"));
    }

    #[test]
    fn an_interrupt_ends_the_text_and_tells_what_it_took() {
        let mut child = quant()
            .args(["run", "-n", "1000000", "--ignore-end", "--ctx", "1000000", "--threads", "1"])
            .env("QUANT_LOG", "error")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It has begun to write.
        let mut first = [0; 40];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        let id = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        let last = stderr(&output);
        assert!(last.starts_with("seed ") && last.contains("ended by Ctrl-C"), "{last}");
    }
}
