//! What a source is: size, sectors, model and serial number, and who uses it. How a system is asked that is one file for each.

use std::path::PathBuf;

#[cfg(any(windows, test))]
pub(crate) mod replies;
#[cfg(unix)]
pub(crate) mod unix;
#[cfg(windows)]
pub(crate) mod windows;

#[cfg(unix)]
pub(crate) use unix::is_system_place;
#[cfg(unix)]
pub use unix::{Still, System};
#[cfg(windows)]
pub(crate) use windows::is_system_place;
#[cfg(windows)]
pub use windows::{Still, System};

/// What kind of thing a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A block device.
    BlockDevice,
}

/// A source, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its absolute path, symbolic links resolved.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Logical sector size in bytes, where the system knows (block devices).
    pub logical_sector_size: Option<u32>,
    /// Physical sector size in bytes, where the system knows.
    pub physical_sector_size: Option<u32>,
    /// Model of the disk.
    pub model: Option<String>,
    /// Serial number of the disk.
    pub serial: Option<String>,
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A use of a device that matters to a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// Mounted, and may be written.
    MountedWritable(PathBuf),
    /// Mounted for reading.
    MountedReadOnly(PathBuf),
    /// An active swap area.
    Swap,
}
