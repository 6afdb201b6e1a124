//! What the programs that measure share.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "for programs that measure, on input that they made themselves"
)]

pub mod chunks;
pub mod measure;
pub mod nbd;
pub mod picks;
pub mod plot;
pub mod shown;
pub mod states;
pub mod work;
