//! What this program asks of the system beside files.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{DEFAULT_STREAMS, HOW_TO_READ_IN_USE, allow_many_open_files, is_drive, is_root};
#[cfg(windows)]
pub(crate) use windows::{DEFAULT_STREAMS, HOW_TO_READ_IN_USE, allow_many_open_files, is_drive, is_root};
