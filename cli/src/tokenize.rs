//! `quant tokenize`: text to token ids.

use crate::text_input::TextInput;
use crate::{failure, output, source};
use quant_tokenizer::Tokenizer;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show the tokens of a text: one line each with id and text.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The model's GGUF file.
    model: PathBuf,
    #[command(flatten)]
    input: TextInput,
    /// The ids alone, space-separated, on one line.
    #[arg(long, conflicts_with = "json")]
    ids: bool,
    /// Leave out the tokens that the model puts around a text.
    #[arg(long)]
    no_bos: bool,
    /// Read special tokens, such as <|begin_of_text|>, as plain text.
    #[arg(long)]
    no_parse_special: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(text) = args.input.read()? else {
        return Err(failure::usage("there is no text: give -p TEXT or -f FILE (-f - is standard input)"));
    };
    let file = source::open(Some(&args.model))?;
    let tokenizer = Tokenizer::from_gguf(&file)?;
    let ids = tokenizer.encode(&text, !args.no_bos, !args.no_parse_special);
    let piece = |id: &u32| {
        let bytes = tokenizer.token_bytes(*id).unwrap_or_default();
        if bytes.is_empty() {
            tokenizer.token_text(*id).unwrap_or_default().to_owned()
        } else {
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    if args.json {
        let pieces: Vec<String> = ids.iter().map(piece).collect();
        output::print_json(&json!({ "count": ids.len(), "ids": ids, "pieces": pieces }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = String::new();
    if args.ids {
        lines = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        lines.push('\n');
    } else {
        for id in &ids {
            // Writing to a string can't fail.
            let _ = writeln!(lines, "{id:>7}  {:?}", piece(id));
        }
    }
    output::print(&lines)?;
    Ok(ExitCode::SUCCESS)
}
