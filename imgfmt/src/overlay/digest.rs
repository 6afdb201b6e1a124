//! The digest of a base that is no generation of a hikae image.
//!
//! Source: docs/overlay.md section 3.2.

use std::ops::Range;

use crate::disk::{Disk, read_vec};
use crate::error::Result;

const CONTEXT: &str = "hikae 2026 overlay base v1";
/// Bytes of the first and the last piece.
const ENDS: u64 = 64 << 10;
/// Bytes of a piece in between, and what their offsets are multiples of.
const PIECE: u64 = 4096;
/// Pieces in between.
const PIECES: u64 = 64;

/// A digest of samples of a disk: it finds another disk, not every change of this one.
pub fn digest_of(disk: &dyn Disk) -> Result<[u8; 32]> {
    let len = disk.len();
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&len.to_le_bytes());
    let mut add = |range: Range<u64>| -> Result<()> {
        hasher.update(&range.start.to_le_bytes());
        let bytes = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        match read_vec(disk, range.start, bytes) {
            Ok(content) => {
                hasher.update(&content);
                Ok(())
            }
            Err(error) if error.is_unreadable_medium() => Ok(()),
            Err(error) => Err(error),
        }
    };
    add(0..len.min(ENDS))?;
    add(len.saturating_sub(ENDS)..len)?;
    for index in 0..PIECES {
        let at = (len / PIECES).saturating_mul(index) & !(PIECE - 1);
        add(at..at.saturating_add(PIECE).min(len))?;
    }
    Ok(*hasher.finalize().as_bytes())
}
