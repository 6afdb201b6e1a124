//! Folders to extract into: one interface, one file for each kind of system.

#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub(crate) use unix::{Folder, Held, MAX_NAME, NewFile, apply_to_file, representable, to_os};
