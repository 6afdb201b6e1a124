//! Shows the tree of an image or disk as a folder, through FUSE.
//!
//! Thin: [`imgfmt::tree`] is what people see, this crate translates the kernel's calls to it. Data never change, so the kernel may keep what it
//! was told for as long as it likes; files that are read in sequence are decoded ahead on idle cores. Files that take writes, into an overlay, are
//! read and written past the kernel's cache, since each of them is another face of the same disk.
//!
//! ```text
//! kernel -> fuser's threads -> translate -> imgfmt::tree
//!                                 \-> imgfmt::readahead -> decodes ahead
//! ```

#![cfg(unix)]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        reason = "an overflow in a test fails the test, which is what it is for"
    )
)]

mod attributes;
mod errno;
mod folders;
mod lock_folders;
mod mount;
mod mounts;
mod streams;
mod translate;
mod writes;

pub use mount::{Log, Mount, MountError, MountOptions, Unmounter};
pub use mounts::{Unmounted, unmount};
