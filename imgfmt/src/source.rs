//! Where disks come from: raw files and block devices.

pub mod file;

pub use file::FileDisk;
