//! Where copies put bytes: files that appear only when they are whole, and devices that are written in place.

pub mod copy;
pub mod device;
pub mod file;

pub use copy::{Copied, CopyOptions, copy};
pub use device::DeviceTarget;
pub use file::{FileTarget, NewFile};

use crate::disk::{Disk, WritableDisk};
use crate::error::Result;

/// Takes the bytes of a disk, in any order and from any number of threads, no range twice.
pub trait Target: Send + Sync {
    /// Length in bytes that can be written.
    fn len(&self) -> u64;
    /// Writes data.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;
    /// Makes a range read as zero, whatever was there.
    fn zero_at(&self, offset: u64, len: u64) -> Result<()>;
    /// Makes everything durable, and a file visible. Nothing may be written afterwards.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A disk that is written where it is, and whose medium can be read back.
pub trait InPlace: WritableDisk {
    /// Opens what is on the medium for reading, past whatever is cached. Everything written before is flushed first.
    fn read_back(&self) -> Result<Box<dyn Disk + '_>>;

    /// Says that a flushed range will not be read soon.
    fn forget(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}
