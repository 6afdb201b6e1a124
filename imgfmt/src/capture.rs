//! Capture.
pub mod bad;
pub mod chunks;
pub mod planned;
