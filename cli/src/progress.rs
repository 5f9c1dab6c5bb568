//! Progress bars: on standard error, only on a terminal, only for long work.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_millis(400);

/// A bar that appears once the work has proved to be long.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    bytes: bool,
    started: Instant,
    bar: Option<ProgressBar>,
    /// Standard error is a terminal.
    visible: bool,
}

impl Progress {
    /// Progress counted in tokens.
    pub fn of_tokens(what: &'static str) -> Self {
        Self::new(what, false)
    }

    /// Progress counted in bytes.
    pub fn of_bytes(what: &'static str) -> Self {
        Self::new(what, true)
    }

    fn new(what: &'static str, bytes: bool) -> Self {
        Self { what, bytes, started: Instant::now(), bar: None, visible: std::io::stderr().is_terminal() }
    }

    /// So much is done.
    pub fn at(&mut self, done: u64, total: u64) {
        if self.bar.is_none() && (!self.visible || done >= total || self.started.elapsed() < PATIENCE) {
            return;
        }
        let (what, bytes) = (self.what, self.bytes);
        let bar = self.bar.get_or_insert_with(|| {
            let bar =
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_message(what);
            let counts = if bytes { "{bytes}/{total_bytes}" } else { "{pos}/{len} tokens" };
            let style = ProgressStyle::with_template(&format!("{{msg}} {{bar:30}} {counts} {{eta}}"));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
