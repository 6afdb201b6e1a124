//! Copying a disk to a target: the verb behind export and restore.

use crate::disk::{Disk, Extent, ExtentKind, Extents, buf_len};
use crate::engine::{Run, run_ordered};
use crate::error::{Error, Result};
use crate::target::Target;

/// Bytes that a worker copies at once.
const PIECE: u64 = 1 << 20;
/// What is written over and over into ranges that were unreadable at the source, so that nobody takes them for data.
pub const BAD_MARKER: &[u8; 32] = b"HIKAE: UNREADABLE AT THE SOURCE\n";

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

impl Copied {
    /// Counts a piece.
    pub(crate) fn add(&mut self, piece: Extent) {
        let sum = match piece.kind {
            ExtentKind::Data => &mut self.data,
            ExtentKind::Zero => &mut self.zero,
            ExtentKind::Absent => &mut self.absent,
            ExtentKind::Bad => match self.bad.last_mut() {
                Some((start, len)) if start.saturating_add(*len) == piece.offset => len,
                _ => return self.bad.push((piece.offset, piece.len)),
            },
        };
        *sum = sum.saturating_add(piece.len);
    }
}

/// The extents of a disk in jobs for the workers.
struct Pieces<'a> {
    disk: &'a dyn Disk,
    extents: Extents<'a>,
    at: u64,
}

impl Pieces<'_> {
    /// The extents of the next job: those up to the next multiple of [`PIECE`], where it begins with Data; otherwise one, as long as it is.
    fn next(&mut self) -> Result<Option<Vec<Extent>>> {
        let piece_end = (self.at / PIECE).saturating_add(1).saturating_mul(PIECE);
        let mut job: Vec<Extent> = Vec::new();
        while self.at < self.disk.len() {
            let extent = self.extents.rest_at(self.at)?;
            let is_data = extent.kind == ExtentKind::Data;
            let end = if is_data { extent.end().min(piece_end) } else { extent.end() };
            if !job.is_empty() && (self.at >= piece_end || end > piece_end) {
                break;
            }
            job.push(Extent { offset: self.at, len: end.saturating_sub(self.at), kind: extent.kind });
            self.at = end;
            if job.len() == 1 && !is_data {
                break;
            }
        }
        Ok(if job.is_empty() { None } else { Some(job) })
    }
}

/// Copies all of `from` to `to`, which must be at least as long. `to` is not finished: that is the caller's.
pub fn copy(from: &dyn Disk, to: &dyn Target, options: CopyOptions, run: Run<'_>) -> Result<Copied> {
    if to.len() < from.len() {
        let (have, need) = (to.len(), from.len());
        return Err(Error::Refused(format!("the target has {have} bytes, and the disk needs {need}")));
    }
    let mut pieces = Pieces { disk: from, extents: Extents::new(from), at: 0 };
    let mut copied = Copied::default();
    run_ordered(
        run,
        || pieces.next(),
        Vec::new,
        |buf: &mut Vec<u8>, job| {
            for piece in &job {
                match piece.kind {
                    ExtentKind::Data => {
                        buf.resize(usize::try_from(piece.len).expect("a piece is small"), 0);
                        from.read_at(buf, piece.offset)?;
                        to.write_at(buf, piece.offset)?;
                    }
                    ExtentKind::Zero => to.zero_at(piece.offset, piece.len)?,
                    ExtentKind::Absent if options.wipe => to.zero_at(piece.offset, piece.len)?,
                    ExtentKind::Absent => {}
                    ExtentKind::Bad => mark_bad(to, *piece)?,
                }
            }
            Ok(job)
        },
        |job| {
            for piece in job {
                run.progress.advance(piece.len);
                copied.add(piece);
            }
            Ok(())
        },
    )?;
    Ok(copied)
}

/// Fills `buf` with what stands for bytes that were unreadable at the source.
pub(crate) fn fill_bad(buf: &mut [u8]) {
    buf.iter_mut().zip(BAD_MARKER.iter().cycle()).for_each(|(to, from)| *to = *from);
}

fn mark_bad(to: &dyn Target, piece: Extent) -> Result<()> {
    let mut marker = [0; 4096];
    fill_bad(&mut marker);
    let mut at = piece.offset;
    while at < piece.end() {
        let part = piece.end().saturating_sub(at).min(buf_len(&marker));
        let part = usize::try_from(part).expect("at most a marker");
        to.write_at(marker.get(..part).expect("at most its length"), at)?;
        at = at.saturating_add(u64::try_from(part).unwrap_or(u64::MAX));
    }
    Ok(())
}
