//! `cargo xtask targets`: other instruction sets tested under emulation, other systems checked by clippy.
//!
//! What can be had is installed: standard libraries by rustup, emulators and linkers by apt. What cannot is named
//! as SKIPPED in the table at the end; only what ran and failed is a failure.

use crate::{report, tidy};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The libraries, from the lowest layer to the highest.
const LIBRARIES: &[&str] =
    &["quant-kernels", "quant-gguf", "quant-kvcache", "quant-tokenizer", "quant-models", "quant-runtime"];

const ARM: &str = "aarch64-unknown-linux-gnu";
const WASI: &str = "wasm32-wasip1";

/// CPUs that qemu emulates, the best tier that each has, and the tests that run there: all on the least CPU, elsewhere
/// those of the code that differs between NEON's levels.
const ARM_CPUS: &[(&str, &str, &[&str])] = &[
    ("cortex-a57", "neon-base", &["*"]),
    ("neoverse-n1", "neon-dotprod", LEVEL_TESTS),
    ("max", "neon-i8mm", LEVEL_TESTS),
];
const LEVEL_TESTS: &[&str] = &["isa", "matmul", "experts", "extremes", "coded_attention"];

/// Tests that would take minutes under emulation and try nothing that depends on instructions: the codecs' statistics.
const SLOW: &[&str] = &["figures::", "hostile::special_pages"];

/// Targets that the libraries compile for, and flags of the compiler.
const CHECKED: &[(&str, &str)] = &[
    (ARM, ""),
    ("aarch64-apple-darwin", ""),
    ("x86_64-pc-windows-gnu", ""),
    ("wasm32-unknown-unknown", ""),
    ("wasm32-unknown-unknown", "-C target-feature=+simd128"),
];

/// How a job ended.
enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// Runs every job that the machine allows and prints what became of each.
///
/// # Errors
/// If a job ran and failed.
pub fn run() -> Result<()> {
    let mut jobs =
        Jobs { rows: vec![["target", "what", "result", "seconds"].map(String::from).into()], failed: 0 };
    for (cpu, tier, tests) in ARM_CPUS {
        jobs.run(ARM, &format!("kernel tests, {tier} ({cpu})"), || neon_tests(cpu, tests));
    }
    jobs.run(WASI, "kernel tests, simd128 (node)", wasm_tests);
    for (target, flags) in CHECKED {
        jobs.run(target, &format!("libraries by clippy {flags}"), || check(target, flags));
    }
    println!();
    report::table(&jobs.rows);
    if jobs.failed > 0 {
        bail!("{} of the jobs above failed", jobs.failed);
    }
    Ok(())
}

/// The table so far.
struct Jobs {
    rows: Vec<Vec<String>>,
    failed: usize,
}

impl Jobs {
    fn run(&mut self, target: &str, what: &str, job: impl FnOnce() -> Outcome) {
        println!("\n-- {target}: {what}");
        let start = Instant::now();
        let result = match job() {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed => {
                self.failed += 1;
                "FAILED".to_owned()
            }
            Outcome::Skipped(why) => format!("SKIPPED: {why}"),
        };
        let seconds = format!("{:.0}", start.elapsed().as_secs_f64());
        self.rows.push(vec![target.to_owned(), what.to_owned(), result, seconds]);
    }
}

/// The kernels' tests on one emulated CPU. The CPU faults on instructions that it lacks, so this shows as well that
/// a tier uses none beyond its level.
fn neon_tests(cpu: &str, tests: &[&str]) -> Outcome {
    let tools = [("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"), ("qemu-aarch64", "qemu-user")];
    if let Err(why) = standard_library(ARM).and_then(|()| programs(&tools, &["libc6-dev-arm64-cross"])) {
        return Outcome::Skipped(why);
    }
    let mut tests = kernel_tests(ARM, tests);
    tests.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc").env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
        format!("qemu-aarch64 -cpu {cpu} -L /usr/aarch64-linux-gnu"),
    );
    passes(&mut tests)
}

/// The kernels' tests as a WASI program.
fn wasm_tests() -> Outcome {
    if let Err(why) = standard_library(WASI).and_then(|()| programs(&[("node", "nodejs")], &[])) {
        return Outcome::Skipped(why);
    }
    let runner = tidy::root().join(".ci/wasi-run.mjs");
    let mut tests = kernel_tests(WASI, &["*"]);
    tests
        .env("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", "-C target-feature=+simd128")
        .env("CARGO_TARGET_WASM32_WASIP1_RUNNER", format!("node --no-warnings {}", runner.display()));
    passes(&mut tests)
}

/// `cargo test` of the kernels' integration tests of these names.
fn kernel_tests(target: &str, tests: &[&str]) -> Command {
    let mut command = cargo();
    command.args(["test", "--quiet", "--locked", "--package", "quant-kernels", "--target", target]);
    if target == WASI {
        // rayon needs threads.
        command.arg("--no-default-features");
    }
    for test in tests {
        command.args(["--test", test]);
    }
    command.arg("--");
    for test in SLOW {
        command.args(["--skip", test]);
    }
    command.env("PROPTEST_CASES", "10");
    command
}

/// Whether the libraries compile for a target without a warning.
fn check(target: &str, flags: &str) -> Outcome {
    if let Err(why) = standard_library(target) {
        return Outcome::Skipped(why);
    }
    let mut clippy = cargo();
    clippy.args(["clippy", "--quiet", "--locked", "--target", target]);
    for library in LIBRARIES {
        clippy.args(["--package", library]);
    }
    clippy.args(["--", "-D", "warnings"]).args(flags.split_whitespace());
    if !flags.is_empty() {
        let name = target.replace('-', "_").to_uppercase();
        clippy.env(format!("CARGO_TARGET_{name}_RUSTFLAGS"), flags);
    }
    passes(&mut clippy)
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tidy::root());
    command
}

/// Runs a command whose output the reader sees.
fn passes(command: &mut Command) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Outcome::Passed,
        _ => Outcome::Failed,
    }
}

/// Makes sure that a target's standard library is there, by rustup if need be.
fn standard_library(target: &str) -> Result<(), String> {
    let there = || {
        let rustc =
            Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output().ok();
        let folder = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        folder
            .is_some_and(|folder| Path::new(&folder).read_dir().is_ok_and(|mut files| files.next().is_some()))
    };
    if there() || (silent("rustup", &["target", "add", target]) && there()) {
        return Ok(());
    }
    Err(format!("`rustup target add {target}` failed"))
}

/// Makes sure that programs are there, by installing their Debian packages (with `extra` ones) if need be.
fn programs(programs: &[(&str, &str)], extra: &[&str]) -> Result<(), String> {
    let missing = || programs.iter().find(|(program, _)| !silent(program, &["--version"]));
    if missing().is_none() {
        return Ok(());
    }
    let mut install = vec!["install", "--assume-yes", "--no-install-recommends"];
    install.extend(programs.iter().map(|(_, package)| *package).chain(extra.iter().copied()));
    // Old package lists may still do.
    silent("apt-get", &["update"]);
    silent("apt-get", &install);
    match missing() {
        Some((program, package)) => {
            Err(format!("{program} is not there and Debian's {package} could not be installed"))
        }
        None => Ok(()),
    }
}

/// Whether a program runs and succeeds; its output is dropped.
fn silent(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
