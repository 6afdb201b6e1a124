//! A `dokan2.dll` for tests, without a driver: it calls the filesystem that it is given as Explorer, cmd, robocopy and VirtualBox make Dokan call
//! it, in random sequences too, and from several threads; it walks the whole tree and reads every byte.
//!
//! Under Wine there is no kernel for Dokan's driver. What runs of hikae is what runs on Windows: `hikae.exe` loads this library as it would
//! load Dokan's, by the same path through the same functions. What is not shown that way is Dokan's driver itself.
//!
//! The same calls can be made to [`Operations`](mount_win::operations::Operations) directly, on every system.

#![cfg_attr(not(windows), forbid(unsafe_code))]
#![expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "an overflow or a failed step in a test fails the test, which is what it is for"
)]

pub mod calls;
pub mod direct;
#[cfg(windows)]
#[expect(unsafe_code, reason = "it stands for a library of C")]
mod exports;
pub mod library;
pub mod mixed;
pub mod programs;
pub mod random;
#[cfg(windows)]
#[expect(unsafe_code, reason = "it stands for a library of C")]
mod raw;
pub mod walk;
pub mod writes;
