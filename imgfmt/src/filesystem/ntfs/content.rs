//! The bytes of a stream: in the record, in clusters, or compressed.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Extent, ExtentKind, buf_len, check_range};
use crate::error::{Error, Result};
use crate::filesystem::files::Content;
use crate::filesystem::ntfs::attribute::{FileAttribute, Stream, Value};
use crate::filesystem::ntfs::compressed::Compressed;
use crate::filesystem::ntfs::units::Packed;
use crate::filesystem::ntfs::volume::Volume;

/// Attribute flag: encrypted.
const ENCRYPTED: u16 = 0x4000;
/// Attribute flags that name a way of compression; 1 is LZNT1.
const COMPRESSION: u16 = 0x00ff;

/// Opens a stream of file `number`.
pub(super) fn open(volume: &Arc<Volume>, number: u64, attribute: FileAttribute) -> Result<Box<dyn Content>> {
    let of = || format!("NTFS MFT record {number}");
    if attribute.flags & ENCRYPTED != 0 {
        return Err(Error::unsupported(of(), "it is encrypted by EFS"));
    }
    let records = volume.record_places(&attribute.records);
    match attribute.value {
        Value::Resident(bytes) => Ok(Box::new(Resident { bytes, places: records })),
        Value::NonResident(stream) => match (attribute.flags & COMPRESSION, stream.compression_unit) {
            (0, _) | (1, 0) => Ok(Box::new(Plain { volume: Arc::clone(volume), stream, records })),
            (1, _) => Ok(Box::new(Packed::new(Compressed::open(Arc::clone(volume), number, stream, records)?))),
            (way, _) => Err(Error::unsupported(of(), format_args!("it is compressed in an unknown way ({way})"))),
        },
    }
}

/// A stream in its MFT record.
#[derive(Debug)]
struct Resident {
    bytes: Vec<u8>,
    places: Vec<Range<u64>>,
}

impl Content for Resident {
    fn len(&self) -> u64 {
        buf_len(&self.bytes)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let start = usize::try_from(offset).expect("checked by check_range");
        let end = start.saturating_add(buf.len());
        buf.copy_from_slice(self.bytes.get(start..end).expect("checked by check_range"));
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        Ok(Extent { offset, len: self.len().saturating_sub(offset), kind: ExtentKind::Data })
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        Some(self.places.clone())
    }
}

/// A stream in clusters, perhaps with holes.
#[derive(Debug)]
struct Plain {
    volume: Arc<Volume>,
    stream: Stream,
    records: Vec<Range<u64>>,
}

impl Content for Plain {
    fn len(&self) -> u64 {
        self.stream.data_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let written = self.stream.initialized_size.saturating_sub(offset);
        let (data, zeros) = buf.split_at_mut(usize::try_from(written).unwrap_or(usize::MAX).min(buf.len()));
        zeros.fill(0);
        self.volume.read_stream(&self.stream, data, offset)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        let (kind, end) = if offset >= self.stream.initialized_size {
            (ExtentKind::Zero, self.len())
        } else {
            let (kind, end) = self.volume.run_at(&self.stream, offset)?;
            // A hole goes on into what was never written.
            (kind, if kind == ExtentKind::Zero { end.min(self.len()) } else { end.min(self.stream.initialized_size) })
        };
        Ok(Extent { offset, len: end.saturating_sub(offset), kind })
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        let stream = &self.stream;
        let mut places = Vec::new();
        // Which parts are zero is told by the record alone.
        if stream.initialized_size < stream.data_size || stream.runs.iter().any(|run| run.lcn.is_none()) {
            places.extend(self.records.iter().cloned());
        }
        places.extend(self.volume.place(stream, 0..stream.initialized_size));
        Some(places)
    }
}

impl Volume {
    /// Whether the byte of a stream lies in clusters (Data) or in a hole (Zero), and where that ends.
    pub(super) fn run_at(&self, stream: &Stream, offset: u64) -> Result<(ExtentKind, u64)> {
        let cluster = self.boot.cluster_size;
        let index = stream.runs.partition_point(|run| run.end().saturating_mul(cluster) <= offset);
        let run = stream.runs.get(index);
        let run = run.ok_or_else(|| Error::corrupt("NTFS stream", offset, "it is longer than its clusters"))?;
        let kind = if run.lcn.is_some() { ExtentKind::Data } else { ExtentKind::Zero };
        Ok((kind, run.end().saturating_mul(cluster)))
    }

    /// Where MFT records lie in the partition.
    pub(super) fn record_places(&self, records: &[u64]) -> Vec<Range<u64>> {
        let size = u64::try_from(self.boot.record_size).expect("at most 64 KiB");
        let of = |record: &u64| {
            let start = record.saturating_mul(size);
            self.place(&self.mft, start..start.saturating_add(size))
        };
        records.iter().flat_map(of).collect()
    }
}
