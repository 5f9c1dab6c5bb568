//! Who may depend on whom: the layers of ARCHITECTURE.md.

use super::Findings;
use anyhow::{Context as _, Result};
use std::path::Path;
use std::process::Command;

/// Each crate and the workspace crates it may use (normal and build dependencies; tests may use more).
const LAYERS: &[(&str, &[&str])] = &[
    ("quant-kernels", &[]),
    ("quant-gguf", &["quant-kernels"]),
    ("quant-kvcache", &["quant-kernels"]),
    ("quant-tokenizer", &["quant-gguf"]),
    ("quant-models-core", &["quant-gguf", "quant-kernels", "quant-kvcache"]),
    ("quant-model-llama", &["quant-gguf", "quant-kernels", "quant-kvcache", "quant-models-core"]),
    (
        "quant-models",
        &["quant-gguf", "quant-kernels", "quant-kvcache", "quant-models-core", "quant-model-llama"],
    ),
    (
        "quant-runtime",
        &[
            "quant-gguf",
            "quant-kernels",
            "quant-kvcache",
            "quant-models",
            "quant-models-core",
            "quant-tokenizer",
        ],
    ),
    (
        "quant-cli",
        &[
            "quant-gguf",
            "quant-kernels",
            "quant-kvcache",
            "quant-models",
            "quant-models-core",
            "quant-runtime",
            "quant-tokenizer",
        ],
    ),
];

/// Development crates: they may use anything, and no published crate may need them.
const DEVELOPMENT: &[&str] = &["xtask", "quant-fixtures"];

/// Third-party crates in the tree from gguf to runtime, without features of the apps.
const LIBRARY_TREE_LIMIT: usize = 20;

pub fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let metadata = cargo(root, &["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    for package in metadata["packages"].as_array().context("cargo metadata lists packages")? {
        check_package(package, findings);
    }
    check_tree(root, findings)
}

fn check_package(package: &serde_json::Value, findings: &mut Findings) {
    let name = package["name"].as_str().unwrap_or_default();
    if DEVELOPMENT.contains(&name) {
        return;
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
        findings.push(format!(
            "{name}: not in the crate graph; add it to xtask/src/tidy/graph.rs and ARCHITECTURE.md"
        ));
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let used = dependency["name"].as_str().unwrap_or_default();
        let development = dependency["kind"].as_str() == Some("dev");
        let ours = LAYERS.iter().any(|(layer, _)| *layer == used) || DEVELOPMENT.contains(&used);
        if ours && !development && !allowed.contains(&used) {
            findings
                .push(format!("{name}: must not depend on {used} (it is not below it in the crate graph)"));
        }
    }
    for field in ["description", "license", "readme", "repository"] {
        if package[field].as_str().is_none_or(str::is_empty) {
            findings.push(format!("{name}: Cargo.toml lacks `{field}`"));
        }
    }
}

fn check_tree(root: &Path, findings: &mut Findings) -> Result<()> {
    let tree =
        cargo(root, &["tree", "-p", "quant-runtime", "-e", "normal", "--prefix", "none", "--no-dedupe"])?;
    let mut crates: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    crates.retain(|name| !name.starts_with("quant-"));
    crates.sort_unstable();
    crates.dedup();
    if crates.len() > LIBRARY_TREE_LIMIT {
        findings.push(format!(
            "quant-runtime: {} third-party crates in its tree, at most {LIBRARY_TREE_LIMIT}: {}",
            crates.len(),
            crates.join(" ")
        ));
    }
    Ok(())
}

fn cargo(root: &Path, args: &[&str]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(args).current_dir(root).output()?;
    anyhow::ensure!(output.status.success(), "cargo {} failed", args.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}
