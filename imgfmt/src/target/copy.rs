//! Copying a disk to a target: the verb behind export and restore.

use crate::disk::{Disk, Extent, ExtentKind, buf_len};
use crate::engine::{Run, run_ordered};
use crate::error::{Error, Result};
use crate::target::Target;

/// Bytes that a worker copies at once.
const PIECE: u64 = 1 << 20;
/// What is written over and over into ranges that were unreadable at the source, so that nobody takes them for data.
const BAD_MARKER: &[u8; 32] = b"HIKAE: UNREADABLE AT THE SOURCE\n";

/// How a disk is copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct CopyOptions {
    /// Make Absent ranges zero too, rather than leaving alone what the target has there.
    pub wipe: bool,
}

/// What a copy did, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Written as data.
    pub data: u64,
    /// Made zero.
    pub zero: u64,
    /// Absent at the source: left alone, or made zero on request.
    pub absent: u64,
    /// Unreadable when the disk was captured: `(offset, len)`, filled with a marker.
    pub bad: Vec<(u64, u64)>,
}

/// The extents of a disk in pieces for the workers.
struct Pieces<'a> {
    disk: &'a dyn Disk,
    extent: Option<Extent>,
    at: u64,
}

impl Pieces<'_> {
    /// The next piece: at most [`PIECE`] bytes of Data, aligned to pieces of the disk; other kinds whole.
    fn next(&mut self) -> Result<Option<Extent>> {
        if self.at >= self.disk.len() {
            return Ok(None);
        }
        let extent = match self.extent {
            Some(extent) if extent.end() > self.at => extent,
            _ => self.disk.extent_at(self.at)?,
        };
        if extent.len == 0 || extent.end() <= self.at {
            return Err(Error::corrupt("extent map", self.at, "an extent is empty"));
        }
        self.extent = Some(extent);
        let piece_end = (self.at / PIECE).saturating_add(1).saturating_mul(PIECE);
        let end = if extent.kind == ExtentKind::Data { extent.end().min(piece_end) } else { extent.end() };
        let piece = Extent { offset: self.at, len: end.saturating_sub(self.at), kind: extent.kind };
        self.at = end;
        Ok(Some(piece))
    }
}

/// Copies all of `from` to `to`, which must be at least as long. `to` is not finished: that is the caller's.
pub fn copy(from: &dyn Disk, to: &dyn Target, options: CopyOptions, run: Run<'_>) -> Result<Copied> {
    if to.len() < from.len() {
        let (have, need) = (to.len(), from.len());
        return Err(Error::Refused(format!("the target has {have} bytes, and the disk needs {need}")));
    }
    let mut pieces = Pieces { disk: from, extent: None, at: 0 };
    let mut copied = Copied::default();
    run_ordered(
        run,
        || pieces.next(),
        Vec::new,
        |buf: &mut Vec<u8>, piece| {
            match piece.kind {
                ExtentKind::Data => {
                    buf.resize(usize::try_from(piece.len).expect("a piece is small"), 0);
                    from.read_at(buf, piece.offset)?;
                    to.write_at(buf, piece.offset)?;
                }
                ExtentKind::Zero => to.zero_at(piece.offset, piece.len)?,
                ExtentKind::Absent if options.wipe => to.zero_at(piece.offset, piece.len)?,
                ExtentKind::Absent => {}
                ExtentKind::Bad => mark_bad(to, piece)?,
            }
            Ok(piece)
        },
        |piece| {
            run.progress.advance(piece.len);
            match piece.kind {
                ExtentKind::Data => copied.data = copied.data.saturating_add(piece.len),
                ExtentKind::Zero => copied.zero = copied.zero.saturating_add(piece.len),
                ExtentKind::Absent => copied.absent = copied.absent.saturating_add(piece.len),
                ExtentKind::Bad => match copied.bad.last_mut() {
                    Some((start, len)) if start.saturating_add(*len) == piece.offset => {
                        *len = len.saturating_add(piece.len)
                    }
                    _ => copied.bad.push((piece.offset, piece.len)),
                },
            }
            Ok(())
        },
    )?;
    Ok(copied)
}

fn mark_bad(to: &dyn Target, piece: Extent) -> Result<()> {
    let marker = BAD_MARKER.repeat(128);
    let mut at = piece.offset;
    while at < piece.end() {
        let part = piece.end().saturating_sub(at).min(buf_len(&marker));
        let part = usize::try_from(part).expect("at most a marker");
        to.write_at(marker.get(..part).expect("at most its length"), at)?;
        at = at.saturating_add(u64::try_from(part).unwrap_or(u64::MAX));
    }
    Ok(())
}
