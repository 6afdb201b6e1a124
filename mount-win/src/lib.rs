//! Shows the tree of an image or disk as a drive letter or folder, through Dokan 2.
//!
//! Thin: [`imgfmt::tree`] is what people see, this crate translates. All that is translation (names, paths, patterns, attributes, times, status
//! codes, access) is plain code that is the same on every system and tested on all; only the module `dokan`, on Windows, talks to Dokan.
//!
//! ```text
//! Dokan's threads -> dokan -> operations -> walk, folders -> imgfmt::tree
//! ```

#![cfg_attr(
    test,
    expect(clippy::as_conversions, reason = "an overflow in a test fails the test, which is what it is for")
)]

pub mod access;
#[cfg(windows)]
#[expect(unsafe_code, reason = "Dokan is a library of C")]
mod dokan;
mod folders;
pub mod handles;
pub mod information;
pub mod keep_alive;
pub mod layout;
pub mod names;
pub mod operations;
pub mod path;
pub mod place;
pub mod security;
pub mod status;
pub mod times;
pub mod volume;
mod walk;
pub mod wildcard;

#[cfg(windows)]
pub use dokan::{Mount, MountError, MountOptions, Unmounter, let_go_of_output, unmount};
