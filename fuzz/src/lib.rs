//! Bodies of the fuzz targets: each takes bytes, drives one parser, and holds it against an oracle.
//!
//! A body panics where the oracle is broken; it never panics on bad input alone. `cargo test -p hikae-fuzz` runs each on
//! its seeds and on a fixed number of mutations of them; `cargo fuzz run NAME --features libfuzzer` runs it for good.

#![forbid(unsafe_code)]

pub mod boot_texts;
pub mod core_image;
mod decompress;
pub mod drive;
pub mod exfat_files;
pub mod exfat_used;
pub mod ext_files;
#[cfg(test)]
mod ext_seed;
pub mod ext_used;
pub mod fat_files;
#[cfg(test)]
mod fat_seed;
pub mod fat_used;
pub mod files;
pub mod formats;
pub mod hive;
pub mod image_objects;
pub mod iso9660;
pub mod layout;
pub mod lvm2;
pub mod lznt1;
pub mod lzx;
pub mod mutate;
pub mod nbd;
pub mod ntfs_files;
#[cfg(test)]
mod ntfs_seed;
pub mod ntfs_used;
pub mod overlay;
pub mod pack;
pub mod qcow2;
pub mod startup;
pub mod swap;
pub mod used_blocks;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
pub mod xpress;
