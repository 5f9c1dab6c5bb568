//! Text and token ids from the command line, a file or standard input.

use anyhow::Context;
use std::io::Read;
use std::path::{Path, PathBuf};

/// `-p TEXT` or `-f FILE`.
#[derive(Debug, clap::Args)]
pub struct TextInput {
    /// The text.
    #[arg(short = 'p', long = "prompt", value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Read the text from a file; - is standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
}

impl TextInput {
    /// The text, if one was given. Standard input is read only when it is asked for.
    pub fn read(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.file else { return Ok(self.prompt.clone()) };
        read_text(path).map(Some)
    }
}

/// Text from a file, or from standard input if it is called `-`.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    let (bytes, name) = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("can't read standard input")?;
        (bytes, "standard input".to_owned())
    } else {
        let name = path.display().to_string();
        (std::fs::read(path).with_context(|| format!("can't read {name}"))?, name)
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is not UTF-8 text (byte {at}): convert it first")
    })
}

/// Token ids from a file, separated by white space.
pub fn read_tokens(path: &Path) -> anyhow::Result<Vec<u32>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {name}"))?;
    let tokens = text.split_whitespace().enumerate().map(|(i, word)| {
        let what = || format!("{name}: entry {} is {word:?}, not a token id", i + 1);
        word.parse().with_context(what)
    });
    let tokens = tokens.collect::<anyhow::Result<Vec<u32>>>()?;
    anyhow::ensure!(!tokens.is_empty(), "{name} holds no token ids");
    Ok(tokens)
}
