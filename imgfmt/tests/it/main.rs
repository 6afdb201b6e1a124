//! Tests of the library from outside: whole captures against models, damage, faults, and disks made by real tools.

#![expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "an overflow or a failed step in a test fails the test, which is what it is for"
)]

mod alone;
mod bad_sectors;
mod capture;
mod closure;
mod conformance;
mod counting_store;
mod damage;
mod exfat;
mod exfat_files;
mod exports;
mod ext;
mod ext_files;
mod extract;
mod fat;
mod fat_files;
mod faults;
mod file_reads;
mod filesystem_oracle;
mod history;
mod image_files;
mod iso9660;
mod layering;
mod lvm2;
mod maps;
mod memory_store;
mod memory_target;
mod ntfs;
mod ntfs_files;
mod overlay;
mod policy;
mod qcow2;
mod raw;
mod restore_guard;
mod restore_write;
mod startup;
mod swap;
mod sweep;
mod tables;
mod tools;
mod tree;
mod tree_oracle;
mod vdi;
mod vhd;
mod vhdx;
mod vhdx_log;
mod views;
mod vmdk;
mod volatile_disk;
mod volatile_storage;
mod writable_views;
