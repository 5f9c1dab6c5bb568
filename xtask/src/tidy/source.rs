//! What each source file must hold to: a first line that says what it is, its length, unsafe code, printing.

use super::Findings;
use anyhow::Result;
use std::path::Path;

/// Lines a file may have.
const LINES: usize = 600;

/// Files that may be longer, and why.
const LONG: &[(&str, &str)] = &[
    ("quant-kernels/src/types/iq_grids.rs", "generated codebooks of the i-quants"),
    ("tokenizer/src/unicode.rs", "generated character classes"),
];

/// Where unsafe code may stand (prefixes), as ARCHITECTURE.md says.
const UNSAFE: &[&str] = &[
    "quant-kernels/src/arm/",
    "quant-kernels/src/wasm/",
    "quant-kernels/src/x86/",
    "quant-kernels/src/activations.rs",
    "quant-kernels/src/causal_conv1d.rs",
    "quant-kernels/src/delta_net.rs",
    "quant-kernels/src/lines.rs",
    "quant-kernels/src/matmul/tile.rs",
    "quant-kernels/src/parallel/team.rs",
    "gguf/src/map.rs",
    "kvcache/src/arena.rs",
    "xtask/src/limits.rs",
    "xtask/peers/src/",
];

/// Crate roots that can't forbid unsafe code because a module of theirs needs it.
const UNSAFE_CRATES: &[&str] = &[
    "quant-kernels/src/lib.rs",
    "gguf/src/lib.rs",
    "kvcache/src/lib.rs",
    "xtask/src/main.rs",
    "xtask/peers/src/main.rs",
];

/// Folders whose code may print: apps, tools, tests, benches, examples.
const MAY_PRINT: &[&str] =
    &["cli/", "xtask/", "fixtures/", "/tests/", "/benches/", "/examples/", "gguf/fuzz/"];

pub fn check(root: &Path, files: &[String], findings: &mut Findings) -> Result<()> {
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let text = std::fs::read_to_string(root.join(file))?;
        check_file(file, &text, findings);
    }
    for (file, _) in LONG {
        if !files.iter().any(|f| f == file) {
            findings
                .push(format!("{file}: listed as long in xtask/src/tidy/source.rs, but it does not exist"));
        }
    }
    Ok(())
}

fn check_file(file: &str, text: &str, findings: &mut Findings) {
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("//!") && !first.starts_with("#![doc = include_str!") {
        findings.push(format!("{file}:1: a file begins with `//!` and what it is"));
    }
    let lines = text.lines().count();
    if lines > LINES && !LONG.iter().any(|(long, _)| *long == file) {
        findings.push(format!("{file}: {lines} lines, at most {LINES}; split it where a concept ends"));
    }
    let root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
    if root && !UNSAFE_CRATES.contains(&file) && !text.contains("#![forbid(unsafe_code)]") {
        findings.push(format!("{file}: a crate without SIMD or mapping says #![forbid(unsafe_code)]"));
    }
    check_unsafe(file, text, findings);
    if !MAY_PRINT.iter().any(|place| file.contains(place)) {
        check_printing(file, text, findings);
    }
}

fn check_unsafe(file: &str, text: &str, findings: &mut Findings) {
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let block = ["unsafe {", "unsafe impl"].iter().any(|word| code.contains(word));
        if !block && !code.contains("unsafe fn") || code.contains('"') {
            continue;
        }
        if !UNSAFE.iter().any(|place| file.starts_with(place)) {
            findings.push(format!("{file}:{}: unsafe code outside the places for it", number + 1));
        }
        if block && !documented(&lines, number) {
            findings.push(format!("{file}:{}: an unsafe block without a `// SAFETY:` line", number + 1));
        }
    }
}

/// Whether a `SAFETY:` comment stands right above the statement that line `number` belongs to.
fn documented(lines: &[&str], number: usize) -> bool {
    let start = number.saturating_sub(8);
    lines[start..=number].iter().any(|line| line.contains("SAFETY:"))
}

fn check_printing(file: &str, text: &str, findings: &mut Findings) {
    for (number, line) in text.lines().enumerate() {
        let code = line.trim_start();
        let comment = code.starts_with("//");
        let prints =
            ["println!(", "eprintln!(", "print!(", "eprint!(", "dbg!("].iter().any(|p| code.contains(p));
        if prints && !comment {
            findings.push(format!("{file}:{}: libraries never print", number + 1));
        }
    }
}
