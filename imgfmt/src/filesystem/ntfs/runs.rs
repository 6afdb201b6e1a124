//! Run lists: where the clusters of a non-resident attribute lie.

use crate::error::{Error, Result};

/// A run of clusters of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First cluster in the stream.
    pub vcn: u64,
    /// First cluster on the volume; `None` for a hole.
    pub lcn: Option<u64>,
    /// Clusters; never 0.
    pub len: u64,
}

impl Run {
    /// First cluster of the stream behind the run.
    pub fn end(&self) -> u64 {
        self.vcn.saturating_add(self.len)
    }
}

/// Parses mapping pairs that describe the clusters `lowest_vcn` to `highest_vcn` (inclusive) of a stream.
///
/// Every run is checked to lie inside the volume, and all of them together to cover exactly that range.
pub fn parse(pairs: &[u8], lowest_vcn: u64, highest_vcn: u64, cluster_count: u64) -> Result<Vec<Run>> {
    let corrupt = |reason| Error::corrupt("NTFS run list", 0, reason);
    // A stream without clusters has a highest VCN of -1.
    let end = highest_vcn.wrapping_add(1);
    if end < lowest_vcn {
        return Err(corrupt("it ends before it starts"));
    }
    let mut runs = Vec::new();
    let mut rest = pairs;
    let mut vcn = lowest_vcn;
    let mut lcn = 0_i64;
    while let Some((&header, after)) = rest.split_first() {
        if header == 0 {
            break;
        }
        let (len_bytes, offset_bytes) = (usize::from(header & 0x0f), usize::from(header >> 4));
        if len_bytes == 0 || len_bytes > 8 || offset_bytes > 8 {
            return Err(corrupt("a field is longer than 8 bytes, or has none"));
        }
        let len = after.get(..len_bytes).map(signed).ok_or_else(|| corrupt("it is cut short"))?;
        let after = after.get(len_bytes..).unwrap_or_default();
        let delta = after.get(..offset_bytes).map(signed).ok_or_else(|| corrupt("it is cut short"))?;
        rest = after.get(offset_bytes..).unwrap_or_default();
        let len = u64::try_from(len).ok().filter(|len| *len > 0).ok_or_else(|| corrupt("a run has no clusters"))?;
        let next_vcn = vcn.checked_add(len).filter(|next| *next <= end);
        let next_vcn = next_vcn.ok_or_else(|| corrupt("it has more clusters than its attribute says"))?;
        let place = if offset_bytes == 0 {
            None
        } else {
            lcn = lcn.checked_add(delta).ok_or_else(|| corrupt("a run lies outside of the volume"))?;
            let place = u64::try_from(lcn).ok();
            let inside = place.and_then(|place| place.checked_add(len)).is_some_and(|end| end <= cluster_count);
            if !inside {
                return Err(corrupt("a run lies outside of the volume"));
            }
            place
        };
        runs.push(Run { vcn, lcn: place, len });
        vcn = next_vcn;
    }
    if vcn != end {
        return Err(corrupt("it has fewer clusters than its attribute says"));
    }
    Ok(runs)
}

/// A little-endian signed number of 0 to 8 bytes.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut raw = if negative { [0xff; 8] } else { [0; 8] };
    for (to, from) in raw.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_forwards_backwards_and_holes() {
        // 16 clusters at 0x100, a hole of 4, 2 clusters 0x10 before the first.
        let pairs = [0x21, 0x10, 0x00, 0x01, 0x01, 0x04, 0x11, 0x02, 0xf0, 0x00];
        let runs = parse(&pairs, 0, 21, 10_000).unwrap();
        let run = |vcn, lcn, len| Run { vcn, lcn, len };
        assert_eq!(runs, [run(0, Some(0x100), 16), run(16, None, 4), run(20, Some(0xf0), 2)]);
    }

    #[test]
    fn lists_that_lie_are_refused() {
        let pairs = [0x21, 0x10, 0x00, 0x01, 0x00];
        assert!(parse(&pairs, 0, 15, 10_000).is_ok());
        assert!(parse(&pairs, 0, 14, 10_000).is_err(), "more than said");
        assert!(parse(&pairs, 0, 16, 10_000).is_err(), "fewer than said");
        assert!(parse(&pairs, 0, 15, 0x10f).is_err(), "past the end of the volume");
        assert!(parse(&[0x11, 0x02, 0x80, 0], 0, 1, 10_000).is_err(), "before its start");
        assert!(parse(&[0x21, 0x10], 0, 15, 10_000).is_err(), "cut");
        assert!(parse(&[0x10, 0x10, 0], 0, 15, 10_000).is_err(), "no length");
        assert!(parse(&[0x11, 0x00, 0x10, 0], 0, u64::MAX, 10_000).is_err(), "zero length");
        assert_eq!(parse(&[0], 0, u64::MAX, 10).unwrap(), []);
        assert!(parse(&[0x18, 255, 255, 255, 255, 255, 255, 255, 0x7f, 1, 0], 0, u64::MAX - 1, 10_000).is_err());
    }
}
