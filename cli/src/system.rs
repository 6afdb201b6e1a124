//! What this program asks of the system beside files.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{allow_many_open_files, is_root};
#[cfg(windows)]
pub(crate) use windows::{allow_many_open_files, is_root};
