//! Printing that neither panics nor forgets: `print!`, `println!` and `eprintln!` of this program.
//!
//! A reader that has seen enough (`hikae list | head`) closes its end of the pipe: what is printed after that goes nowhere, and the command
//! ends with its own exit code. Any other failure to write the answer makes the command fail.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static LOST: AtomicBool = AtomicBool::new(false);

fn note(result: std::io::Result<()>) {
    if result.is_err_and(|error| error.kind() != ErrorKind::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Writes data for the user or the next program.
pub(crate) fn stdout(text: Arguments<'_>) {
    note(std::io::stdout().lock().write_fmt(text));
}

/// Writes words for the user. Nobody can be told where that fails.
pub(crate) fn stderr(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
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
