//! A volume: finds MFT records, and reads attributes wherever their pieces lie.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, buf_len, read_vec};
use crate::error::{Error, Result};
use crate::filesystem::ntfs::attribute::{MAX_LIST, Stream, Value, Want, find_listed};
use crate::filesystem::ntfs::boot::Boot;
use crate::filesystem::ntfs::record::{Attribute, Form, Record, attribute_type, parse_list};
use crate::filesystem::ntfs::runs::Run;

/// Longest attribute value that is read into memory as a whole.
const MAX_VALUE: u64 = 64 << 20;

/// Numbers of the system files.
pub mod system_file {
    /// $MFT.
    pub const MFT: u64 = 0;
    /// $LogFile.
    pub const LOG_FILE: u64 = 2;
    /// $Volume.
    pub const VOLUME: u64 = 3;
    /// The root directory.
    pub const ROOT: u64 = 5;
    /// $Bitmap.
    pub const BITMAP: u64 = 6;
    /// $BadClus.
    pub const BAD_CLUSTERS: u64 = 8;
    /// $Secure.
    pub const SECURE: u64 = 9;
    /// $UpCase.
    pub const UPCASE: u64 = 10;
    /// $Extend.
    pub const EXTEND: u64 = 11;
    /// Names of records below this one are hidden in listings.
    pub const FIRST_VISIBLE: u64 = 16;
    /// Records below this one are the system's.
    pub const FIRST_USER: u64 = 24;
}

/// An NTFS volume.
pub struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) boot: Boot,
    pub(crate) mft: Stream,
    /// Whether the first record of the MFT is damaged and its mirror serves.
    pub(crate) mirror_used: bool,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl Volume {
    /// Opens the volume in a partition; `None` where there is no NTFS boot sector.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Option<Self>> {
        if disk.len() < 512 {
            return Ok(None);
        }
        let Some(boot) = Boot::parse(&read_vec(&disk, 0, 512)?, disk.len())? else { return Ok(None) };
        let mut volume = Self { disk, boot, mft: Stream::default(), mirror_used: false };
        volume.find_mft()?;
        Ok(Some(volume))
    }

    pub(super) fn corrupt_record(&self, number: u64, reason: &'static str) -> Error {
        let offset = number.saturating_mul(u64::try_from(self.boot.record_size).unwrap_or(u64::MAX));
        let places = self.place(&self.mft, offset..offset.saturating_add(1));
        let offset = places.first().map_or(0, |place| place.start);
        Error::corrupt(format_args!("NTFS MFT record {number}"), offset, reason)
    }

    /// Number of MFT records.
    pub fn record_count(&self) -> u64 {
        u64::try_from(self.boot.record_size)
            .ok()
            .and_then(|size| self.mft.initialized_size.checked_div(size))
            .unwrap_or(0)
    }

    /// Reads the first record of the MFT: from its place, or from the mirror where that one is damaged.
    fn first_record(&mut self) -> Result<Vec<u8>> {
        let mut damage = None;
        for lcn in [self.boot.mft_lcn, self.boot.mirror_lcn] {
            let start = lcn.saturating_mul(self.boot.cluster_size);
            let mut bytes = vec![0; self.boot.record_size];
            let is_record = match self.disk.read_at(&mut bytes, start) {
                Ok(()) => Record::parse(&mut bytes.clone()).map(|record| record.is_some_and(|record| record.in_use)),
                Err(error) => Err(error),
            };
            match is_record {
                Ok(true) => {
                    self.mirror_used = damage.is_some();
                    return Ok(bytes);
                }
                Ok(false) => {
                    damage.get_or_insert(Error::corrupt("NTFS MFT record 0", start, "it is not there"));
                }
                Err(error) => {
                    damage.get_or_insert(error);
                }
            }
        }
        Err(damage.expect("both copies are damaged"))
    }

    /// Finds the pieces of the MFT, each of which may lie in a record that an earlier piece makes readable.
    fn find_mft(&mut self) -> Result<()> {
        let mut bytes = self.first_record()?;
        let missing = |reason| Error::corrupt("NTFS MFT record 0", 0, reason);
        let record = Record::parse(&mut bytes)?.ok_or_else(|| missing("it is not there"))?;
        let mut list = None;
        for attribute in record.attributes() {
            let attribute = attribute?;
            match (attribute.type_code, &attribute.form) {
                (attribute_type::DATA, Form::NonResident(piece))
                    if attribute.name.is_empty() && self.mft.runs.is_empty() =>
                {
                    self.mft = Stream::of(piece, attribute.flags);
                    self.mft.runs = self.runs_of(piece)?;
                }
                (attribute_type::ATTRIBUTE_LIST, _) => list = Some(self.value_of_single(&attribute, MAX_LIST)?),
                _ => {}
            }
        }
        if self.mft.runs.is_empty() {
            return Err(missing("it has no data in clusters"));
        }
        let list = list.unwrap_or_default();
        let mut pieces = parse_list(&list)?;
        pieces.retain(|entry| {
            entry.type_code == attribute_type::DATA && entry.name.is_empty() && entry.record != system_file::MFT
        });
        pieces.sort_unstable_by_key(|entry| entry.lowest_vcn);
        for entry in pieces {
            let mut bytes = Vec::new();
            let record = self.read_record(entry.record, &mut bytes)?;
            let runs = match find_listed(&record, &entry)?.map(|attribute| attribute.form) {
                Some(Form::NonResident(piece)) if record.base == Some(system_file::MFT) => self.runs_of(&piece)?,
                _ => return Err(self.corrupt_record(entry.record, "it lacks the piece of the MFT that a list names")),
            };
            // A list that names one piece over and over must not make a list of runs without end.
            if runs.first().map(|run| run.vcn) != self.mft.runs.last().map(Run::end) {
                return Err(missing("its pieces do not follow each other"));
            }
            self.mft.runs.extend(runs);
        }
        self.check_stream(&self.mft, system_file::MFT)?;
        self.check_no_holes(&self.mft, system_file::MFT)
    }

    /// Reads and parses record `number` into `bytes`. Fails where it is not in use.
    pub fn read_record<'a>(&self, number: u64, bytes: &'a mut Vec<u8>) -> Result<Record<'a>> {
        if number >= self.record_count() {
            return Err(Error::corrupt(format_args!("NTFS MFT record {number}"), 0, "the MFT is not that long"));
        }
        bytes.clear();
        bytes.resize(self.boot.record_size, 0);
        let offset = number.saturating_mul(u64::try_from(self.boot.record_size).unwrap_or(u64::MAX));
        self.read_stream(&self.mft, bytes, offset)?;
        match Record::parse(bytes) {
            Ok(Some(record)) if record.in_use => Ok(record),
            Ok(_) => Err(self.corrupt_record(number, "it is referred to but not in use")),
            Err(Error::Corrupt { reason, .. }) => Err(self.corrupt_record(number, reason)),
            Err(other) => Err(other),
        }
    }

    /// Where bytes of a stream lie in the partition, in their order; what lies in holes or past the clusters is left out.
    pub fn place(&self, stream: &Stream, range: Range<u64>) -> Vec<Range<u64>> {
        let cluster = self.boot.cluster_size;
        let mut places: Vec<Range<u64>> = Vec::new();
        let first = stream.runs.partition_point(|run| run.end().saturating_mul(cluster) <= range.start);
        for run in stream.runs.get(first..).unwrap_or_default() {
            let run_start = run.vcn.saturating_mul(cluster);
            if run_start >= range.end {
                break;
            }
            let Some(lcn) = run.lcn else { continue };
            let from = range.start.max(run_start);
            let to = range.end.min(run.end().saturating_mul(cluster));
            let start = lcn.saturating_mul(cluster).saturating_add(from.saturating_sub(run_start));
            let place = start..start.saturating_add(to.saturating_sub(from));
            match places.last_mut() {
                Some(last) if last.end == place.start => last.end = place.end,
                _ => places.push(place),
            }
        }
        places
    }

    /// Fills `buf` from `offset` of a stream; holes are zero. Fails past its clusters. Compression is not undone.
    pub fn read_stream(&self, stream: &Stream, buf: &mut [u8], offset: u64) -> Result<()> {
        let cluster = self.boot.cluster_size;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let vcn = at.checked_div(cluster).unwrap_or(0);
            let next = stream.runs.partition_point(|run| run.vcn <= vcn);
            let run = next.checked_sub(1).and_then(|index| stream.runs.get(index));
            let run = run.filter(|run| vcn < run.end());
            let run = run.ok_or_else(|| Error::corrupt("NTFS stream", at, "it is read past its clusters"))?;
            let run_start = run.vcn.saturating_mul(cluster);
            let within = at.saturating_sub(run_start);
            let left = run.len.saturating_mul(cluster).saturating_sub(within);
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(part);
            match run.lcn {
                Some(lcn) => self.disk.read_at(now, lcn.saturating_mul(cluster).saturating_add(within))?,
                None => now.fill(0),
            }
            at = at.saturating_add(buf_len(now));
            rest = later;
        }
        Ok(())
    }

    /// The value of an attribute that is in one piece, at most `most` bytes.
    pub(super) fn value_of_single(&self, attribute: &Attribute<'_>, most: u64) -> Result<Vec<u8>> {
        match &attribute.form {
            Form::Resident(value) => Ok(value.to_vec()),
            Form::NonResident(piece) => {
                let mut stream = Stream::of(piece, attribute.flags);
                stream.runs = self.runs_of(piece)?;
                self.whole_stream(&stream, most)
            }
        }
    }

    pub(super) fn whole_stream(&self, stream: &Stream, most: u64) -> Result<Vec<u8>> {
        if stream.data_size > most {
            return Err(Error::corrupt("NTFS attribute", 0, "it is longer than it can be"));
        }
        let mut value = vec![0; usize::try_from(stream.data_size).expect("bounded above")];
        let written = usize::try_from(stream.initialized_size).unwrap_or(usize::MAX).min(value.len());
        self.read_stream(stream, value.get_mut(..written).expect("at most its length"), 0)?;
        Ok(value)
    }

    /// The value of an attribute of a record, its pieces joined; `None` where it has none. `name` is UTF-16, little-endian bytes.
    pub fn attribute(&self, number: u64, type_code: u32, name: &[u8]) -> Result<Option<Value>> {
        let file = self.file(number, &|of| if of == type_code { Want::Whole } else { Want::Nothing })?;
        let found = file.attributes.into_iter().find(|attribute| attribute.name == name);
        Ok(found.map(|attribute| attribute.value))
    }

    /// The whole value of an attribute as bytes, at most 64 MiB; `None` where there is none.
    pub fn value(&self, number: u64, type_code: u32, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.attribute(number, type_code, name)? {
            None => Ok(None),
            Some(Value::Resident(value)) => Ok(Some(value)),
            Some(Value::NonResident(stream)) => self.whole_stream(&stream, MAX_VALUE).map(Some),
        }
    }
}
