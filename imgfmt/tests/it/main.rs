//! Tests of the library against disks made by real tools, one module an idea.

#![expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "an overflow in a test fails the test, which is what it is for"
)]

mod tools;
