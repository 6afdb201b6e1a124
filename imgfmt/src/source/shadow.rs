//! Shadow copies: the volumes of a disk in use, each as it was at one moment.
//!
//! How a system makes them is one file for each; only Windows does. What is asked of it (`choice`) and what its codes mean (`codes`) needs no call of
//! the system, and is tested everywhere.

use std::ops::Range;
use std::sync::Arc;

use crate::source::file::FileDisk;

#[cfg(any(windows, test))]
mod choice;
#[cfg(any(windows, test))]
mod codes;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::Held;
#[cfg(windows)]
pub use windows::Held;

/// A shadow copy of one volume.
#[derive(Debug)]
pub struct ShadowCopy {
    /// What people call the volume: `C:\`, or its path where it has no place.
    pub volume: String,
    /// The bytes of the source that it stands for.
    pub range: Range<u64>,
    /// Its content.
    pub disk: Arc<FileDisk>,
}

/// The shadow copies of a source, all of one moment. The system removes them when this value goes, also where the process is killed.
#[derive(Debug)]
pub struct ShadowCopies {
    /// One for each volume, in the order of the source.
    pub copies: Vec<ShadowCopy>,
    /// Mounted volumes of the source of which the system makes none: what is read there may change meanwhile.
    pub without: Vec<String>,
    /// What the user should know of them: programs that did not bring their files into order before.
    pub warnings: Vec<String>,
    /// Keeps them.
    held: Held,
}

impl ShadowCopies {
    /// Tells the programs whose files are in them that these were kept, and has the system remove the copies; nobody can read them any more.
    pub fn finish(self) {
        self.held.finish();
    }
}
