//! The `hikae` command.

#![forbid(unsafe_code)]

fn main() {}
