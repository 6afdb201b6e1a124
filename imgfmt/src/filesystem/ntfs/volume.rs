//! A volume: finds MFT records, and reads attributes wherever their pieces lie.

use std::sync::Arc;

use crate::disk::{Disk, buf_len, read_vec};
use crate::error::{Error, Result};
use crate::filesystem::ntfs::boot::Boot;
use crate::filesystem::ntfs::record::{Attribute, Form, Record, attribute_type, parse_list};
use crate::filesystem::ntfs::runs::{self, Run};

/// Longest attribute value that is read into memory as a whole.
const MAX_VALUE: u64 = 64 << 20;
/// Longest attribute list: Windows allows 256 KiB.
const MAX_LIST: u64 = 1 << 20;

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
    /// Records below this one are the system's.
    pub const FIRST_USER: u64 = 24;
}

/// A stream in clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Ascending by VCN, without gaps.
    pub runs: Vec<Run>,
    /// Bytes of the stream.
    pub data_size: u64,
    /// Bytes that were written; what is behind reads as zero.
    pub initialized_size: u64,
    /// Compressed 0x0001, encrypted 0x4000, sparse 0x8000.
    pub flags: u16,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// In its record.
    Resident(Vec<u8>),
    /// In clusters.
    NonResident(Stream),
}

/// An NTFS volume.
pub struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) boot: Boot,
    pub(crate) mft: Stream,
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
        let mut volume = Self { disk, boot, mft: Stream::default() };
        volume.find_mft()?;
        Ok(Some(volume))
    }

    fn corrupt(&self, what: &str, record: u64, reason: &'static str) -> Error {
        Error::corrupt(format_args!("NTFS {what} {record}"), 0, reason)
    }

    /// Number of MFT records.
    pub fn record_count(&self) -> u64 {
        let record_size = u64::try_from(self.boot.record_size).unwrap_or(u64::MAX);
        self.mft.initialized_size.min(self.mft.data_size).checked_div(record_size).unwrap_or(0)
    }

    /// Finds the pieces of the MFT, each of which may lie in a record that an earlier piece makes readable.
    fn find_mft(&mut self) -> Result<()> {
        let mut bytes = vec![0; self.boot.record_size];
        let start = self.boot.mft_lcn.saturating_mul(self.boot.cluster_size);
        self.disk.read_at(&mut bytes, start)?;
        let missing = |reason| Error::corrupt("NTFS MFT record 0", start, reason);
        let record = Record::parse(&mut bytes)?.ok_or_else(|| missing("it is not there"))?;
        let mut list = None;
        for attribute in record.attributes() {
            let attribute = attribute?;
            match attribute.type_code {
                attribute_type::DATA if attribute.name.is_empty() && self.mft.runs.is_empty() => {
                    self.mft = self.first_piece(&attribute)?.ok_or_else(|| missing("its data are resident"))?;
                }
                attribute_type::ATTRIBUTE_LIST => list = Some(self.value_of_single(&attribute, MAX_LIST)?),
                _ => {}
            }
        }
        if self.mft.runs.is_empty() {
            return Err(missing("it has no data"));
        }
        if self.mft.initialized_size > self.mft.data_size {
            return Err(missing("more of it is initialised than there is"));
        }
        let mut pieces = parse_list(&list.unwrap_or_default())?;
        pieces.retain(|entry| {
            entry.type_code == attribute_type::DATA && entry.unnamed && entry.record != system_file::MFT
        });
        pieces.sort_unstable_by_key(|entry| entry.lowest_vcn);
        for entry in pieces {
            let runs = self.piece(entry.record, attribute_type::DATA, &[], entry.lowest_vcn)?;
            self.mft.runs.extend(runs);
        }
        self.check_stream(&self.mft, system_file::MFT)
    }

    /// The first piece of a stream; `None` where it is resident.
    fn first_piece(&self, attribute: &Attribute<'_>) -> Result<Option<Stream>> {
        let Form::NonResident(piece) = attribute.form else { return Ok(None) };
        Ok(Some(Stream {
            runs: runs::parse(piece.mapping_pairs, piece.lowest_vcn, piece.highest_vcn, self.boot.cluster_count)?,
            data_size: piece.data_size,
            initialized_size: piece.initialized_size,
            flags: attribute.flags,
        }))
    }

    /// The runs of one piece of an attribute in an extension record.
    fn piece(&self, record: u64, type_code: u32, name: &[u8], lowest_vcn: u64) -> Result<Vec<Run>> {
        let mut bytes = Vec::new();
        let record_bytes = self.read_record(record, &mut bytes)?;
        for attribute in record_bytes.attributes() {
            let attribute = attribute?;
            if let Form::NonResident(piece) = attribute.form
                && attribute.type_code == type_code
                && attribute.name == name
                && piece.lowest_vcn == lowest_vcn
            {
                return runs::parse(piece.mapping_pairs, lowest_vcn, piece.highest_vcn, self.boot.cluster_count);
            }
        }
        Err(self.corrupt("MFT record", record, "it lacks a piece that an attribute list says is there"))
    }

    /// Every byte of a stream must be mapped, and its pieces must follow each other.
    fn check_stream(&self, stream: &Stream, record: u64) -> Result<()> {
        let mut vcn = 0_u64;
        for run in &stream.runs {
            if run.vcn != vcn {
                return Err(self.corrupt("MFT record", record, "the pieces of an attribute do not follow each other"));
            }
            vcn = vcn.saturating_add(run.len);
        }
        if vcn.saturating_mul(self.boot.cluster_size) < stream.data_size {
            return Err(self.corrupt("MFT record", record, "an attribute is longer than its clusters"));
        }
        Ok(())
    }

    /// Reads and parses record `number` into `bytes`. Fails where it is not in use.
    pub fn read_record<'a>(&self, number: u64, bytes: &'a mut Vec<u8>) -> Result<Record<'a>> {
        if number >= self.record_count() {
            return Err(self.corrupt("MFT record", number, "the MFT is not that long"));
        }
        bytes.clear();
        bytes.resize(self.boot.record_size, 0);
        let offset = number.saturating_mul(u64::try_from(self.boot.record_size).unwrap_or(u64::MAX));
        self.read_stream(&self.mft, bytes, offset)?;
        match Record::parse(bytes)? {
            Some(record) if record.in_use => Ok(record),
            _ => Err(self.corrupt("MFT record", number, "it is referred to but not in use")),
        }
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
            let run = run.filter(|run| vcn < run.vcn.saturating_add(run.len));
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
    fn value_of_single(&self, attribute: &Attribute<'_>, most: u64) -> Result<Vec<u8>> {
        match attribute.form {
            Form::Resident(value) => Ok(value.to_vec()),
            Form::NonResident(_) => {
                let stream = self.first_piece(attribute)?.expect("it is not resident");
                self.whole_stream(&stream, most)
            }
        }
    }

    fn whole_stream(&self, stream: &Stream, most: u64) -> Result<Vec<u8>> {
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
        let mut bytes = Vec::new();
        let record = self.read_record(number, &mut bytes)?;
        let mut value = None;
        let mut list = None;
        for attribute in record.attributes() {
            let attribute = attribute?;
            if attribute.type_code == attribute_type::ATTRIBUTE_LIST {
                list = Some(self.value_of_single(&attribute, MAX_LIST)?);
            } else if attribute.type_code == type_code && attribute.name == name && value.is_none() {
                value = Some(match attribute.form {
                    Form::Resident(resident) => Value::Resident(resident.to_vec()),
                    Form::NonResident(_) => {
                        Value::NonResident(self.first_piece(&attribute)?.expect("it is not resident"))
                    }
                });
            }
        }
        if let Some(list) = list {
            value = self.join_pieces(number, type_code, name, &list, value)?;
        }
        if let Some(Value::NonResident(stream)) = &value {
            self.check_stream(stream, number)?;
        }
        Ok(value)
    }

    /// Adds the pieces in extension records to what the base record holds of an attribute.
    fn join_pieces(
        &self,
        number: u64,
        type_code: u32,
        name: &[u8],
        list: &[u8],
        base: Option<Value>,
    ) -> Result<Option<Value>> {
        let mut pieces = parse_list(list)?;
        pieces
            .retain(|entry| entry.type_code == type_code && entry.unnamed == name.is_empty() && entry.record != number);
        pieces.sort_unstable_by_key(|entry| entry.lowest_vcn);
        let mut value = base;
        let mut bytes = Vec::new();
        for entry in pieces {
            let record = self.read_record(entry.record, &mut bytes)?;
            for attribute in record.attributes() {
                let attribute = attribute?;
                if attribute.type_code != type_code || attribute.name != name {
                    continue;
                }
                match (attribute.form, &mut value) {
                    (Form::Resident(resident), None) => value = Some(Value::Resident(resident.to_vec())),
                    (Form::NonResident(piece), Some(Value::NonResident(stream)))
                        if piece.lowest_vcn == entry.lowest_vcn =>
                    {
                        let runs = runs::parse(
                            piece.mapping_pairs,
                            piece.lowest_vcn,
                            piece.highest_vcn,
                            self.boot.cluster_count,
                        )?;
                        stream.runs.extend(runs);
                    }
                    (Form::NonResident(piece), None) if piece.lowest_vcn == 0 => {
                        value = Some(Value::NonResident(self.first_piece(&attribute)?.expect("it is not resident")));
                    }
                    _ => {}
                }
            }
        }
        Ok(value)
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
