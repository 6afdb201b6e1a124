//! Tests of real mounts, served by a thread of the test and used through the kernel.

#![cfg(target_os = "linux")]
#![expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "an overflow or a failed step in a test fails the test, which is what it is for"
)]

mod raw_files;
mod served;
mod trees;
mod writable;
