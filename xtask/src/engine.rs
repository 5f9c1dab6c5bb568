//! A benchmark engine behind a pipe: ours and the peer speak the same line protocol, so that runs interleave.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A loaded engine that waits for jobs.
pub struct Engine {
    /// How the tables call it.
    pub name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Engine {
    /// Starts `command` and waits until it has loaded its model.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let input = child.stdin.take().context("a piped input")?;
        let output = BufReader::new(child.stdout.take().context("a piped output")?);
        let mut engine = Self { name: name.to_owned(), child, input, output };
        engine.answer()?;
        Ok(engine)
    }

    /// Runs `prefill N` or `decode N`; seconds of the prefill or of one decoded token.
    pub fn job(&mut self, job: &str, count: usize) -> Result<f64> {
        writeln!(self.input, "{job} {count}")?;
        self.answer()?["seconds"].as_f64().context("an answer with seconds")
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("{} ended early", self.name);
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The child may have ended by itself; either way it is ours and must not linger.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
