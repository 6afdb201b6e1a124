//! A client of its own against the server: what well-behaved clients do is tested with the real ones, this one misbehaves.

#![expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "an overflow or a failed step in a test fails the test, which is what it is for"
)]

mod client;
mod hostile;
mod protocol;
