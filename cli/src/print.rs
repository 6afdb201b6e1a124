//! Printing that neither panics nor forgets: `print!`, `println!` and `eprintln!` of this program.
//!
//! A reader that has seen enough (`hikae list | head`) closes its end of the pipe: what is printed after that goes nowhere, and the command
//! ends with its own exit code. Any other failure to write the answer makes the command fail. Control characters are made visible here too, so that
//! text of an image cannot drive the terminal even where a command forgot that it is untrusted.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static LOST: AtomicBool = AtomicBool::new(false);

fn note(result: std::io::Result<()>) {
    if result.is_err_and(|error| error.kind() != ErrorKind::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// The text with its lines, and any other control character escaped as in JSON, which a JSON answer stays valid by.
fn lines(text: Arguments<'_>) -> String {
    let text = text.to_string();
    let bad = |c: char| c.is_control() && c != '\n';
    if !text.contains(bad) {
        return text;
    }
    let escape = |c: char| if bad(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Writes data for the user or the next program.
pub(crate) fn stdout(text: Arguments<'_>) {
    note(std::io::stdout().lock().write_all(lines(text).as_bytes()));
}

/// Writes words for the user. Nobody can be told where that fails.
pub(crate) fn stderr(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_all(lines(text).as_bytes());
}

/// Says whether a part of the answer could not be written, though somebody wanted it.
pub(crate) fn was_lost() -> bool {
    note(std::io::stdout().lock().flush());
    LOST.load(Ordering::Relaxed)
}

macro_rules! print {
    ($($text:tt)*) => { $crate::print::stdout(format_args!($($text)*)) };
}

macro_rules! println {
    ($($text:tt)*) => { $crate::print::stdout(format_args!("{}\n", format_args!($($text)*))) };
}

macro_rules! eprint {
    ($($text:tt)*) => { $crate::print::stderr(format_args!($($text)*)) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::print::stderr(format_args!("{}\n", format_args!($($text)*))) };
}
