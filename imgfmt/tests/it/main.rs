//! Tests of the library from outside: whole captures against models, damage, faults, and disks made by real tools.

#![expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "an overflow or a failed step in a test fails the test, which is what it is for"
)]

mod bad_sectors;
mod capture;
mod conformance;
mod counting_store;
mod damage;
mod exports;
mod extract;
mod faults;
mod files;
mod history;
mod image_files;
mod judges;
mod layering;
mod maps;
mod memory_store;
mod memory_target;
mod overlay;
mod raw;
mod startup;
mod views;
mod volatile_storage;
mod writable_views;

// Of disks, files and links that tools and drivers of Linux make or judge. The rest runs wherever hikae does.
#[cfg(unix)]
mod alone;
#[cfg(unix)]
mod closure;
#[cfg(unix)]
mod exfat;
#[cfg(unix)]
mod exfat_files;
#[cfg(unix)]
mod ext;
#[cfg(unix)]
mod ext_files;
#[cfg(unix)]
mod extract_unix;
#[cfg(unix)]
mod fat;
#[cfg(unix)]
mod fat_files;
#[cfg(unix)]
mod file_reads;
#[cfg(unix)]
mod filesystem_oracle;
#[cfg(unix)]
mod iso9660;
#[cfg(unix)]
mod lvm2;
#[cfg(unix)]
mod ntfs;
#[cfg(unix)]
mod ntfs_files;
#[cfg(unix)]
mod policy;
#[cfg(unix)]
mod qcow2;
#[cfg(unix)]
mod qemu;
#[cfg(unix)]
mod restore_guard;
#[cfg(unix)]
mod restore_write;
#[cfg(unix)]
mod swap;
#[cfg(unix)]
mod sweep;
#[cfg(unix)]
mod tables;
#[cfg(unix)]
mod tools;
#[cfg(unix)]
mod tree;
#[cfg(unix)]
mod tree_oracle;
#[cfg(unix)]
mod vdi;
#[cfg(unix)]
mod vhd;
#[cfg(unix)]
mod vhdx;
#[cfg(unix)]
mod vhdx_log;
#[cfg(unix)]
mod vmdk;
#[cfg(unix)]
mod volatile_disk;
