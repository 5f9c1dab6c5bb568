//! One cold start of our engine (the hidden task `first-token`): load, tokenize, read 16 tokens, tell the next.

use anyhow::{Context as _, Result, bail};
use quant_runtime::{Engine, EngineOptions, Event, GenerateOptions, Model, SamplerConfig};

/// `xtask first-token MODEL --threads T`, the prompt in `QUANT_PROMPT`.
pub fn run(args: Vec<String>) -> Result<()> {
    use lexopt::prelude::{Long, Value, ValueExt as _};
    let (mut model, mut options) = (None, EngineOptions { isa: super::isa()?, ..EngineOptions::default() });
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Value(path) if model.is_none() => model = Some(path),
            Long("threads") => options.threads = Some(parser.value()?.parse()?),
            _ => bail!(arg.unexpected()),
        }
    }
    let prompt = std::env::var("QUANT_PROMPT").context("QUANT_PROMPT holds the prompt")?;
    let model = Model::load(model.context("a model")?)?;
    let tokens = model.tokenizer()?.encode(&prompt, true, false);
    let tokens = tokens.get(..16).context("the prompt has at least 16 tokens")?;
    let mut engine = Engine::new(&model, &options)?;
    let request = GenerateOptions {
        sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
        max_tokens: Some(1),
        ignore_end: true,
        ..GenerateOptions::default()
    };
    for event in engine.generate(tokens, &request)? {
        if let Event::Token { token, .. } = event? {
            println!("{}", serde_json::json!({ "token": token }));
            return Ok(());
        }
    }
    bail!("no token came")
}
