//! Numbers, sizes and foreign text, written for people.

use anyhow::Context;
use serde_json::Value;
use std::io::{self, Write};
use std::time::Duration;

/// Writes text to standard output, to the end.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("can't write to standard output")
}

/// Something worth knowing, on standard error.
pub fn note(text: &str) {
    let bold = anstyle::Style::new().bold();
    // Who closed standard error does not want to know.
    let _ = writeln!(anstream::stderr(), "{bold}note:{bold:#} {text}");
}

/// Writes one JSON value and a line end to standard output.
pub fn print_json(value: &Value) -> anyhow::Result<()> {
    print(&format!("{value:#}\n"))
}

/// `5.98 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", digits(value), UNITS[unit])
}

/// `5.77 M`.
pub fn count(n: u64) -> String {
    for (size, unit) in [(1_000_000_000_000, "T"), (1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")] {
        if n >= size {
            return format!("{} {unit}", digits(n as f64 / size as f64));
        }
    }
    n.to_string()
}

/// Three digits that mean something.
pub fn digits(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// `34 ms`, `2.10 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 { format!("{} ms", digits(seconds * 1e3)) } else { format!("{} s", digits(seconds)) }
}

/// A text from a file in one line of at most `width` characters, harmless on a terminal.
pub fn excerpt(text: &str, width: usize) -> String {
    let mut line = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(width) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    if chars.next().is_some() {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, duration, excerpt};
    use std::time::Duration;

    #[test]
    fn units() {
        assert_eq!([bytes(1023), bytes(1536), bytes(6_272_832)], ["1023 bytes", "1.50 KiB", "5.98 MiB"]);
        assert_eq!([count(999), count(5_770_000), count(70_600_000_000)], ["999", "5.77 M", "70.6 B"]);
        assert_eq!(duration(Duration::from_millis(34)), "34.0 ms");
        assert_eq!(duration(Duration::from_millis(2100)), "2.10 s");
        assert_eq!(excerpt("a\u{1b}[1mb\nc", 7), "a\\u{1b}[1mb\\n...");
    }
}
