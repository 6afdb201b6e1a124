//! How a command has the library work: with progress and Ctrl-C, or without a word.

use imgfmt::engine::{Cancel, Run, quiet};

use crate::exit::Failure;
use crate::progress::Shown;

/// Runs `work` on all cores without a word on stderr; Ctrl-C ends the program at once.
pub(crate) fn quietly<T>(work: impl FnOnce(Run<'_>) -> imgfmt::Result<T>) -> Result<T, Failure> {
    Ok(work(quiet(&Cancel::default()))?)
}

/// Runs `work` with progress on stderr, ended by Ctrl-C or a polite kill.
pub(crate) fn with_progress<T>(threads: usize, work: impl FnOnce(Run<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    with_progress_for(Shown::new(), threads, work)
}

/// The same with the given kind of progress.
pub(crate) fn with_progress_for<T>(
    shown: Shown,
    threads: usize,
    work: impl FnOnce(Run<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let cancel = Cancel::default();
    let asked = cancel.clone();
    // A second handler cannot be set; a command sets one at most.
    let _ = ctrlc::set_handler(move || asked.cancel());
    let result = work(Run { threads, cancel: &cancel, progress: &shown });
    shown.end();
    result
}
