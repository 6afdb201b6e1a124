//! Back onto a disk: the guards before a target is opened, and the order in which it is written.
//!
//! `docs/restore.md` says what is promised, and how the undo file is laid out.

pub mod attached;
pub mod edits;
pub mod facts;
pub mod fit;
pub mod guard;
pub mod identity;
pub mod pieces;
pub mod plan;
pub mod tables;
pub mod undo;
pub mod wanted;
pub mod write;
