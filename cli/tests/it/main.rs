//! The `hikae` command as a user meets it: real disks, real damage, real kills.
//!
//! The disks are made by tools of Linux. `hikae.exe` is tested from there too: `.ci/windows`.

#![cfg(unix)]
#![expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "an overflow or a failed step in a test fails the test, which is what it is for"
)]

mod boot;
mod boot_systems;
mod boot_test;
mod boot_under_wine;
mod compare;
mod completions;
mod cost;
mod crafted;
mod crash;
mod disks;
mod exports;
mod files;
mod formats;
mod kernel_client;
mod machine;
mod mount;
mod names;
mod new_ids;
mod packs;
mod restore;
mod second_reader;
mod serve;
mod seven_zip;
mod shadow_copies;
mod startup;
mod surface;
mod targets;
mod under_wine;
mod unreadable;
mod views;
mod volumes;
mod windows;
mod writable_mount;
