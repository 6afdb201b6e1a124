//! Where disks come from: raw files and block devices.

pub mod device;
pub mod disks;
pub mod file;

pub use device::System;
pub use file::FileDisk;
