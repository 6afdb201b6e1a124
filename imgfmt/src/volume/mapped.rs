//! A disk made of pieces of other disks, one after the other (linear) or in turn (striped).

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};

/// Where one stripe of a segment lies.
#[derive(Clone)]
pub struct Leg {
    /// The disk that holds it.
    pub disk: Arc<dyn Disk>,
    /// Its first byte there.
    pub offset: u64,
}

/// A run of the disk.
#[derive(Clone)]
pub struct Segment {
    /// Bytes.
    pub len: u64,
    /// Bytes that go to one leg before the next one's turn; without meaning for a single leg.
    pub stripe_len: NonZeroU64,
    /// The legs in turn; none for a run of zeros.
    pub legs: Vec<Leg>,
}

/// A disk of segments.
pub struct MappedDisk {
    /// By first byte.
    segments: Vec<(u64, Segment)>,
    len: u64,
    sector_size: u32,
}

impl std::fmt::Debug for MappedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappedDisk").field("segments", &self.segments.len()).field("len", &self.len).finish()
    }
}

/// A piece of one leg that a byte of the disk falls into.
struct Piece<'a> {
    leg: Option<&'a Leg>,
    /// Where the byte lies in the leg's disk.
    at: u64,
    /// Bytes from there to the end of the piece.
    len: u64,
}

impl MappedDisk {
    /// Joins `segments`. Fails where one reaches past the end of a leg's disk or is not whole stripes.
    pub fn open(segments: Vec<Segment>, sector_size: u32) -> Result<Self> {
        let corrupt = |reason| Error::corrupt("map of a volume", 0, reason);
        let mut len = 0_u64;
        let mut placed = Vec::with_capacity(segments.len());
        for segment in segments {
            let legs = u64::try_from(segment.legs.len()).unwrap_or(u64::MAX);
            let leg_len = match NonZeroU64::new(legs) {
                Some(legs) if segment.len % legs == 0 => segment.len / legs,
                Some(_) => return Err(corrupt("a segment is not shared evenly by its stripes")),
                None => 0,
            };
            if segment.len == 0 || (legs > 1 && leg_len % segment.stripe_len != 0) {
                return Err(corrupt("a segment is empty or does not end with a whole stripe"));
            }
            for leg in &segment.legs {
                if leg.offset.checked_add(leg_len).is_none_or(|end| end > leg.disk.len()) {
                    return Err(corrupt("a segment reaches past the end of what holds it"));
                }
            }
            let start = len;
            len = len.checked_add(segment.len).ok_or_else(|| corrupt("its length overflows"))?;
            placed.push((start, segment));
        }
        Ok(Self { segments: placed, len, sector_size })
    }

    /// Finds where `offset`, which lies inside the disk, is kept.
    fn piece(&self, offset: u64) -> Piece<'_> {
        let after = self.segments.partition_point(|(start, _)| *start <= offset);
        let (start, segment) = self.segments.get(after.saturating_sub(1)).expect("the offset lies inside the disk");
        let within = offset.saturating_sub(*start);
        let rest = segment.len.saturating_sub(within);
        let legs = u64::try_from(segment.legs.len()).unwrap_or(u64::MAX);
        match (segment.legs.as_slice(), NonZeroU64::new(legs)) {
            ([], _) | (_, None) => Piece { leg: None, at: 0, len: rest },
            ([leg], _) => Piece { leg: Some(leg), at: leg.offset.saturating_add(within), len: rest },
            (many, Some(legs)) => {
                let (stripe, in_stripe) = (within / segment.stripe_len, within % segment.stripe_len);
                let leg = usize::try_from(stripe % legs).ok().and_then(|leg| many.get(leg));
                let row = (stripe / legs).saturating_mul(segment.stripe_len.get());
                let at = row.saturating_add(in_stripe);
                Piece {
                    leg,
                    at: leg.map_or(0, |leg| leg.offset.saturating_add(at)),
                    len: segment.stripe_len.get().saturating_sub(in_stripe).min(rest),
                }
            }
        }
    }
}

impl Disk for MappedDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len)?;
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let piece = self.piece(at);
            let part = usize::try_from(piece.len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(part);
            match piece.leg {
                Some(leg) => leg.disk.read_at(now, piece.at)?,
                None => now.fill(0),
            }
            at = at.saturating_add(buf_len(now));
            rest = later;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        let piece = self.piece(offset);
        match piece.leg {
            Some(leg) => {
                let below = leg.disk.extent_at(piece.at)?;
                Ok(Extent { offset, len: below.len.min(piece.len), kind: below.kind })
            }
            None => Ok(Extent { offset, len: piece.len, kind: ExtentKind::Zero }),
        }
    }
}
