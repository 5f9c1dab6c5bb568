//! The invariants of ARCHITECTURE.md that a program can check.

mod graph;
mod markdown;
mod source;

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every finding is one line: where, what, and what would be right.
pub type Findings = Vec<String>;

/// Runs every check and fails with all findings.
pub fn run() -> Result<()> {
    let root = root();
    let files = tracked_files(&root)?;
    let mut findings = Findings::new();
    graph::check(&root, &mut findings)?;
    source::check(&root, &files, &mut findings)?;
    markdown::check(&root, &files, &mut findings)?;
    if findings.is_empty() {
        println!("tidy: {} files, no findings", files.len());
        return Ok(());
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    bail!("{} findings", findings.len())
}

/// The workspace's root folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Files that git tracks or would track, relative to the root.
fn tracked_files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("tidy lists the files with git")?;
    let list = String::from_utf8(output.stdout)?;
    Ok(list.lines().filter(|file| root.join(file).is_file()).map(str::to_owned).collect())
}
