//! Errors as the user sees them: one line, and an exit code.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// The work failed.
pub const FAILED: u8 = 1;
/// The command was wrong.
pub const USAGE: u8 = 2;
/// Ended with Ctrl-C: 128 and the signal's number.
pub const INTERRUPTED: u8 = 130;

/// A command that can't be carried out as it was given.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A wrong command.
pub fn usage(message: impl fmt::Display) -> anyhow::Error {
    Usage(message.to_string()).into()
}

/// Prints an error, unless it only is that nobody reads the output any more.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let closed = error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    });
    if closed {
        return ExitCode::SUCCESS;
    }
    let code = if error.downcast_ref::<Usage>().is_some() { USAGE } else { FAILED };
    let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    // There is nobody left to tell if standard error can't be written.
    let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {}", one_line(&format!("{error:#}")));
    ExitCode::from(code)
}

/// The text in one line, with nothing in it that could act on a terminal.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn nothing_acts_on_the_terminal() {
        assert_eq!(one_line("a\nb\u{1b}[2Jé"), "a b\\u{1b}[2Jé");
    }
}
