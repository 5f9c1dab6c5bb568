//! Links in Markdown files lead somewhere, and the commands that README shows exist.

use super::Findings;
use anyhow::Result;
use std::path::Path;

/// Tasks of xtask.
const TASKS: &[&str] = &["tidy", "targets", "bench", "peers", "compare", "sanitize", "model", "help"];

/// Subcommands of `quant`.
const SUBCOMMANDS: &[&str] = &["run", "inspect", "tokenize", "logits", "bench", "perplexity", "kv-table"];

pub fn check(root: &Path, files: &[String], findings: &mut Findings) -> Result<()> {
    let pages = files
        .iter()
        .filter(|file| file.ends_with(".md") && !file.contains("/gen/") && !file.contains("demo/src"));
    for file in pages {
        let text = std::fs::read_to_string(root.join(file))?;
        check_links(root, file, &text, findings);
        check_commands(file, &text, findings);
    }
    Ok(())
}

fn check_links(root: &Path, file: &str, text: &str, findings: &mut Findings) {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    for (number, line) in text.lines().enumerate() {
        for part in line.split("](").skip(1) {
            let Some(target) = part.split(')').next() else { continue };
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !elsewhere && !root.join(folder).join(path).exists() {
                findings.push(format!("{file}:{}: the link {target} leads nowhere", number + 1));
            }
        }
    }
}

fn check_commands(file: &str, text: &str, findings: &mut Findings) {
    let mut shell = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            shell = language.starts_with("sh") || language.starts_with("console");
            continue;
        }
        if !shell {
            continue;
        }
        let words: Vec<&str> = line.trim_start_matches("$ ").split_whitespace().collect();
        let unknown = match words.as_slice() {
            ["cargo", "xtask", task, ..] => !TASKS.contains(task),
            ["quant", sub, ..] => !SUBCOMMANDS.contains(sub) && !sub.starts_with('-'),
            ["cargo", "run", "--release", "--", sub, ..] => {
                !SUBCOMMANDS.contains(sub) && !sub.starts_with('-')
            }
            _ => false,
        };
        if unknown {
            findings.push(format!("{file}:{}: no such command: {line}", number + 1));
        }
    }
}
