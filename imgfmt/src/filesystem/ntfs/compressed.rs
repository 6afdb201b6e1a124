//! LZNT1-compressed streams: units of (mostly) 16 clusters, each stored, compressed, or a hole.
//!
//! Source: the Linux-NTFS project's documentation of compression: a unit with all its clusters is stored as it is, one with none is zero, and one
//! with some is compressed in them.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::filesystem::ntfs::attribute::Stream;
use crate::filesystem::ntfs::lznt1;
use crate::filesystem::ntfs::units::{Units, wide};
use crate::filesystem::ntfs::volume::Volume;

/// Longest unit, in bytes. Windows has 64 KiB at the most: 16 clusters of 4 KiB.
const MAX_UNIT: u64 = 1 << 20;

/// A compressed stream.
#[derive(Debug)]
pub(super) struct Compressed {
    volume: Arc<Volume>,
    number: u64,
    stream: Stream,
    unit_len: usize,
    /// Clusters of a unit.
    unit_clusters: u64,
    records: Vec<Range<u64>>,
}

impl Compressed {
    pub(super) fn open(volume: Arc<Volume>, number: u64, stream: Stream, records: Vec<Range<u64>>) -> Result<Self> {
        let unit_clusters = 1_u64.checked_shl(u32::from(stream.compression_unit)).unwrap_or(u64::MAX);
        let unit_len = unit_clusters.saturating_mul(volume.boot.cluster_size);
        if unit_len > MAX_UNIT {
            let what = format!("NTFS MFT record {number}");
            return Err(Error::unsupported(what, format_args!("compression units of {unit_len} bytes")));
        }
        let unit_len = usize::try_from(unit_len).expect("at most 1 MiB");
        Ok(Self { volume, number, stream, unit_len, unit_clusters, records })
    }

    /// Clusters of a unit that are there.
    fn clusters_of(&self, unit: u64) -> Result<u64> {
        let first = unit.saturating_mul(self.unit_clusters);
        let end = first.saturating_add(self.unit_clusters);
        let mut vcn = first;
        let at = self.stream.runs.partition_point(|run| run.end() <= first);
        for run in self.stream.runs.get(at..).unwrap_or_default().iter().take_while(|run| run.vcn < end) {
            if run.lcn.is_none() {
                continue;
            }
            if run.vcn > vcn {
                return Err(self
                    .volume
                    .corrupt_record(self.number, "a compression unit has a hole before its clusters"));
            }
            vcn = run.end().min(end);
        }
        Ok(vcn.saturating_sub(first))
    }

    fn unpack_unit(&self, unit: u64, out: &mut [u8]) -> Result<()> {
        let start = unit.saturating_mul(wide(self.unit_len));
        let written = self.stream.initialized_size.saturating_sub(start);
        let clusters = if written == 0 { 0 } else { self.clusters_of(unit)? };
        if clusters == 0 {
            out.fill(0);
        } else if clusters == self.unit_clusters {
            self.volume.read_stream(&self.stream, out, start)?;
        } else {
            let len = clusters.saturating_mul(self.volume.boot.cluster_size);
            let mut packed = vec![0; usize::try_from(len).expect("less than a unit")];
            self.volume.read_stream(&self.stream, &mut packed, start)?;
            lznt1::decompress(&packed, out).map_err(|reason| {
                let place = self.volume.place(&self.stream, start..start.saturating_add(1));
                let offset = place.first().map_or(0, |place| place.start);
                Error::corrupt(format_args!("LZNT1 data of NTFS MFT record {}", self.number), offset, reason)
            })?;
        }
        let written = usize::try_from(written).unwrap_or(usize::MAX).min(out.len());
        out.get_mut(written..).unwrap_or_default().fill(0);
        Ok(())
    }
}

impl Units for Compressed {
    fn len(&self) -> u64 {
        self.stream.data_size
    }

    fn unit_len(&self) -> usize {
        self.unit_len
    }

    fn unpack(&self, first: u64, out: &mut [u8]) -> Result<()> {
        for (unit, out) in (first..).zip(out.chunks_mut(self.unit_len)) {
            if out.len() == self.unit_len {
                self.unpack_unit(unit, out)?;
            } else {
                // The end of the stream; its unit can hold more.
                let mut whole = vec![0; self.unit_len];
                self.unpack_unit(unit, &mut whole)?;
                out.copy_from_slice(whole.get(..out.len()).expect("shorter than a unit"));
            }
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let unit_len = wide(self.unit_len);
        let unit = offset.checked_div(unit_len).unwrap_or(0);
        let next = unit.saturating_add(1).saturating_mul(unit_len);
        let (kind, end) = if offset >= self.stream.initialized_size {
            (ExtentKind::Zero, self.len())
        } else if self.clusters_of(unit)? > 0 {
            (ExtentKind::Data, next)
        } else {
            // A hole reaches over as many whole units as its run does.
            let (_, end) = self.volume.run_at(&self.stream, offset)?;
            (ExtentKind::Zero, end.checked_div(unit_len).unwrap_or(0).saturating_mul(unit_len).max(next))
        };
        Ok(Extent { offset, len: end.min(self.len()).saturating_sub(offset), kind })
    }

    fn places(&self) -> Vec<Range<u64>> {
        let mut places = self.records.clone();
        // Compressed bytes of the last unit can lie behind the length of what they hold.
        let all = self.stream.runs.last().map_or(0, |run| run.end().saturating_mul(self.volume.boot.cluster_size));
        places.extend(self.volume.place(&self.stream, 0..all));
        places
    }
}
