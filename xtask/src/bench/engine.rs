//! A benchmark engine behind a pipe: ours and the peer speak the same line protocol, so that runs interleave.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A loaded engine that waits for jobs.
pub struct Engine {
    /// How messages call it.
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Engine {
    /// Starts `command` and waits for its first line: that it is ready, or has done what it was started for.
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

    /// Our engine on a model.
    pub fn ours(program: &Path, model: &Path, threads: usize) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("engine").arg(model).args(["--threads", &threads.to_string()]);
        Self::start("quant", &mut command)
    }

    /// Sends a job and waits for its answer.
    pub fn ask(&mut self, job: &str) -> Result<Value> {
        writeln!(self.input, "{job}")?;
        self.answer().with_context(|| format!("the job was: {job}"))
    }

    /// Seconds of a job; `None` if the engine has no such thing.
    pub fn seconds(&mut self, job: &str) -> Result<Option<f64>> {
        Ok(self.ask(job)?["seconds"].as_f64())
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
