//! Where disks come from: raw files and block devices, and volumes in use as they were at one moment.

pub mod device;
pub mod disks;
pub mod file;
pub mod shadow;

pub use device::System;
pub use file::FileDisk;
pub use shadow::{ShadowCopies, ShadowCopy};
