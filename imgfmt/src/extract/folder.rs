//! Folders to extract into: one interface, one file for each kind of system.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{Folder, Held, NewFile, apply_to_file, as_kept, key, plain_part, representable, to_os};
#[cfg(windows)]
pub(crate) use windows::{Folder, Held, NewFile, apply_to_file, as_kept, key, plain_part, representable, to_os};
