//! Disks as network block devices: a server of the NBD protocol.
//!
//! A client connects ([`server`]), chooses an export and agrees on what both sides can do (`handshake`), and then sends requests
//! (`requests`), which are answered by several threads in whatever order they are done (`transmission`). The bytes of the protocol are in `wire`.
//!
//! Source: the NBD protocol, `doc/proto.md` of the NetworkBlockDevice project.

#![forbid(unsafe_code)]
pub mod export;
mod handshake;
mod requests;
pub mod server;
pub mod stream;
mod transmission;
mod wire;

pub use export::{Export, ExportName, Exports, ServedDisk};
pub use server::{Limits, Server, Stop};
pub use stream::Address;
