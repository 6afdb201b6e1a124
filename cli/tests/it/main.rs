//! Tests of the command line from outside, as a user would type it.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "an overflow or a failed step in a test fails the test, which is what it is for"
)]

mod second_reader;
