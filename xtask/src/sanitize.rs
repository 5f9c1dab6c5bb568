//! `cargo xtask sanitize`: tests once more under tools that see what tests alone can't: memory misused, memory lost,
//! races, undefined behaviour.
//!
//! What a tool needs and can't be had is told as SKIPPED; what a tool finds fails the command. All of it
//! takes long, so a crate can be asked for by name.

use crate::tidy;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// How a part ended, unless it failed.
enum Outcome {
    Clean,
    Skipped(String),
}

/// A part: its name, and how it runs on some of [`CRATES`].
type Part = (&'static str, fn(&[&str]) -> Result<Outcome>);

const PARTS: [Part; 4] = [("address", address), ("thread", thread), ("miri", miri), ("valgrind", valgrind)];

/// Crates with unsafe code, threads or outside bytes; tests of the others go through the same code.
const CRATES: [&str; 5] =
    ["quant-gguf", "quant-kernels", "quant-kvcache", "quant-tokenizer", "quant-runtime"];

/// The target that instrumented code is built for: named, so that build scripts and macros stay as they are.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs the parts asked for on the crates asked for, all of them even if one fails; without words all on all.
pub fn run(args: Vec<String>) -> Result<()> {
    let names = PARTS.map(|(name, _)| name);
    if let Some(word) =
        args.iter().find(|word| !names.contains(&word.as_str()) && !CRATES.contains(&word.as_str()))
    {
        bail!("no part '{word}'; there are {}, for {}", names.join(", "), CRATES.join(", "));
    }
    let asked = |all: &[&'static str]| -> Vec<&'static str> {
        let asked: Vec<_> = all.iter().copied().filter(|name| args.iter().any(|arg| arg == name)).collect();
        if asked.is_empty() { all.to_vec() } else { asked }
    };
    let (parts, crates) = (asked(&names), asked(&CRATES));
    let mut failed = Vec::new();
    let mut summary = Vec::new();
    for (name, part) in PARTS.iter().filter(|(name, _)| parts.contains(name)) {
        println!("== {name}");
        let start = Instant::now();
        let told = match part(&crates) {
            Ok(Outcome::Clean) => "clean".to_owned(),
            Ok(Outcome::Skipped(reason)) => format!("SKIPPED: {reason}"),
            Err(error) => {
                failed.push(*name);
                format!("FAILED: {error:#}")
            }
        };
        summary.push(format!("{name}: {told} ({} s)", start.elapsed().as_secs()));
        println!("== {}", summary.last().map_or("", String::as_str));
    }
    println!("\n{}", summary.join("\n"));
    ensure!(failed.is_empty(), "{} failed", failed.join(", "));
    Ok(())
}

/// Memory misused, and memory lost: on Linux the leak sanitizer is part of this one.
fn address(crates: &[&str]) -> Result<Outcome> {
    instrumented("address", &[], crates, &[])
}

/// The standard library takes part in synchronisation, so it is instrumented too: without that every report is false.
fn thread(crates: &[&str]) -> Result<Outcome> {
    let threaded = ["quant-kernels", "quant-kvcache", "quant-runtime"];
    let crates: Vec<&str> = threaded.into_iter().filter(|name| crates.contains(name)).collect();
    if crates.is_empty() {
        return Ok(Outcome::Skipped(format!("only {} have threads", threaded.join(", "))));
    }
    if let Err(reason) = component("rust-src") {
        return Ok(Outcome::Skipped(reason));
    }
    instrumented("thread", &["-Zbuild-std"], &crates, &["--lib"])
}

/// Tests under a sanitizer of the compiler: nightly only.
fn instrumented(sanitizer: &str, flags: &[&str], crates: &[&str], targets: &[&str]) -> Result<Outcome> {
    if let Err(reason) = nightly() {
        return Ok(Outcome::Skipped(reason));
    }
    let mut command = cargo_nightly();
    command
        .args(["test", "--no-fail-fast"])
        .args(flags)
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(folder(sanitizer));
    command.args(if targets.is_empty() { &["--lib", "--tests"] } else { targets });
    command.args(crates.iter().flat_map(|name| ["-p", name]));
    command.arg("--").args(INSTRUMENTED_SKIPS.iter().flat_map(|name| ["--skip", name]));
    command.env("RUSTFLAGS", format!("-Zsanitizer={sanitizer}")).env("ASAN_OPTIONS", "detect_leaks=1");
    passes(&mut command)
}

/// Tests of a model's quality on long texts: most of the time by far, through code that the shorter ones go through too.
const INSTRUMENTED_SKIPS: [&str; 2] = ["equals_llama_cpp", "compressed_caches_stay_as_good_as_they_are"];

/// Scalar code, the team of threads, pages and the file format, interpreted. A few tests of each: this is some thousand
/// times slower than running them.
fn miri(crates: &[&str]) -> Result<Outcome> {
    let asked: Vec<_> = MIRI.iter().filter(|words| words.iter().any(|word| crates.contains(word))).collect();
    if asked.is_empty() {
        return Ok(Outcome::Skipped("it runs none of these crates".to_owned()));
    }
    if let Err(reason) = component("rust-src").and_then(|()| component("miri")) {
        return Ok(Outcome::Skipped(reason));
    }
    for words in asked {
        let mut command = cargo_nightly();
        command.args(["miri", "test", "--target-dir"]).arg(folder("miri"));
        // Without rayon and mapped files: the one breaks miri's experimental rules by itself, the others it can't have.
        command.arg("--no-default-features").args(*words);
        // Tests read committed data, and the clock decides how long a worker spins.
        command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "2");
        passes(&mut command)?;
    }
    Ok(Outcome::Clean)
}

/// What is run in miri. Comparisons with ggml's data are left out: they take minutes of interpreted safe code.
const MIRI: &[&[&str]] = &[
    &["-p", "quant-kernels", "--lib", "--test", "small", "--", "--skip", "as_ggml", "--skip", "round_trip"],
    &["-p", "quant-kvcache", "--lib"],
    &["-p", "quant-gguf", "--lib"],
];

/// The tests of the kernels on the AVX2 tier: valgrind knows no AVX-512, and hides it from the programs it runs.
fn valgrind(crates: &[&str]) -> Result<Outcome> {
    if !crates.contains(&"quant-kernels") {
        return Ok(Outcome::Skipped("it runs quant-kernels alone".to_owned()));
    }
    if !Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success()) {
        return Ok(Outcome::Skipped("there is no valgrind; Debian has it as a package".to_owned()));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--no-run", "--message-format=json", "-p", "quant-kernels", "--lib", "--tests"])
        .current_dir(tidy::root())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "building the tests failed");
    let messages = String::from_utf8(output.stdout)?;
    let tests: Vec<String> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| message["executable"].as_str().map(str::to_owned))
        .collect();
    ensure!(!tests.is_empty(), "no tests were built");
    for test in tests {
        println!("valgrind {test}");
        let mut command = Command::new("valgrind");
        command.args([
            "--quiet",
            "--error-exitcode=9",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
            "--show-leak-kinds=definite",
        ]);
        command.arg(&test).args(VALGRIND_SKIPS.iter().flat_map(|name| ["--skip", name]));
        command.env("PROPTEST_CASES", "2").current_dir(tidy::root().join("quant-kernels"));
        passes(&mut command)?;
    }
    Ok(Outcome::Clean)
}

/// Tests that take minutes under valgrind, which runs one thread at a time and some fifty times slower.
const VALGRIND_SKIPS: [&str; 1] = ["many_short_regions"];

fn passes(command: &mut Command) -> Result<Outcome> {
    let program = command.get_program().to_string_lossy().into_owned();
    if command.get_current_dir().is_none() {
        command.current_dir(tidy::root());
    }
    let status = command.status().with_context(|| format!("starting {program}"))?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(Outcome::Clean)
}

/// Cargo of the nightly toolchain, free of what the stable one set for us.
fn cargo_nightly() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]);
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_TARGET_DIR"] {
        command.env_remove(name);
    }
    command
}

/// Whether there is a nightly toolchain.
fn nightly() -> Result<(), String> {
    let status = cargo_nightly().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err("there is no nightly toolchain: rustup toolchain install nightly".to_owned())
}

/// Adds a component to the nightly toolchain; does nothing if it is there.
fn component(name: &str) -> Result<(), String> {
    nightly()?;
    let status = Command::new("rustup")
        .args(["component", "add", "--toolchain", "nightly", name])
        .stderr(Stdio::null())
        .status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(format!("the nightly toolchain has no {name}, and it can't be added"))
}

/// Where the build of a part lies: each has flags of its own.
fn folder(part: &str) -> PathBuf {
    tidy::root().join("target/sanitize").join(part)
}
