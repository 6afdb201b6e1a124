//! Disks kept as images, and everything that reads them.
//!
//! Data flows one way: a *source* is *captured* into a hikae *image*; each generation of the image is a *disk*; a
//! disk has *partitions*; a partition holds a *filesystem*. `docs/architecture.md` has the picture and
//! `docs/glossary.md` the words.
//!
//! The library never prints, never reads the home directory and knows no front.

#![deny(unsafe_code)]
#![cfg_attr(
    test,
    expect(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        reason = "an overflow in a test fails the test, which is what it is for"
    )
)]

pub mod bytes;
pub mod capture;
pub mod compare;
pub mod crc32c;
pub mod disk;
pub mod engine;
pub mod error;
pub mod export;
pub mod extract;
pub mod filesystem;
pub mod format;
pub mod image;
pub mod overlay;
pub mod partition;
mod platform;
pub mod ranges;
pub mod readahead;
pub mod restore;
pub mod source;
pub mod startup;
pub mod target;
pub mod tree;
pub mod verify;
pub mod view;
pub mod volume;

pub use disk::{Disk, Extent, ExtentKind, WritableDisk};
pub use error::{Error, Result};
