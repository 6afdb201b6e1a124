//! The attributes of a file, gathered from its base record and its extension records, their pieces joined.
//!
//! Source: the Linux-NTFS project's documentation of $ATTRIBUTE_LIST. Where a file has a list, it names every attribute, those in the base
//! record too, and an entry is matched by type, name, instance and first cluster, as ntfs-3g does.

use crate::error::Result;
use crate::filesystem::ntfs::record::{Attribute, Form, ListEntry, NonResident, Record, attribute_type, parse_list};
use crate::filesystem::ntfs::runs::{self, Run};
use crate::filesystem::ntfs::volume::Volume;

/// Longest attribute list, in bytes: that of Windows.
pub(super) const MAX_LIST: u64 = 256 << 10;

/// A stream in clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Ascending by VCN, without gaps from VCN 0; all of them together are no longer than the volume, holes aside.
    pub runs: Vec<Run>,
    /// Bytes of the stream.
    pub data_size: u64,
    /// Bytes that were written, at most `data_size`; what is behind reads as zero.
    pub initialized_size: u64,
    /// Bytes of the clusters that are there.
    pub allocated_size: u64,
    /// Compressed 0x0001, encrypted 0x4000, sparse 0x8000.
    pub flags: u16,
    /// Clusters in a compression unit as a power of two.
    pub compression_unit: u8,
}

impl Stream {
    /// A stream with the sizes of its first piece and no runs yet.
    pub(super) fn of(piece: &NonResident<'_>, flags: u16) -> Self {
        Self {
            runs: Vec::new(),
            data_size: piece.data_size,
            initialized_size: piece.initialized_size.min(piece.data_size),
            allocated_size: piece.compressed_size.unwrap_or(piece.allocated_size),
            flags,
            compression_unit: piece.compression_unit,
        }
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// In its record.
    Resident(Vec<u8>),
    /// In clusters.
    NonResident(Stream),
}

impl Value {
    /// Bytes of the value.
    pub fn len(&self) -> u64 {
        match self {
            Self::Resident(value) => u64::try_from(value.len()).expect("usize is at most 64 bits"),
            Self::NonResident(stream) => stream.data_size,
        }
    }
}

/// An attribute of a file, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAttribute {
    /// See [`attribute_type`].
    pub type_code: u32,
    /// Name as UTF-16, little-endian bytes; empty for the unnamed one.
    pub name: Vec<u8>,
    /// Compressed 0x0001, encrypted 0x4000, sparse 0x8000.
    pub flags: u16,
    /// Its value.
    pub value: Value,
    /// The MFT records that hold it or its run list, ascending by the clusters that they describe.
    pub records: Vec<u64>,
}

/// How much of an attribute is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing of it.
    Nothing,
    /// Its value if it is resident, else its sizes without its runs.
    Sizes,
    /// All of it.
    Whole,
}

/// A file: its base record, and those of its attributes that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Number of its base record.
    pub number: u64,
    /// How often that record was used.
    pub sequence: u16,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// In the order of the record, or by type and name where it has an attribute list.
    pub attributes: Vec<FileAttribute>,
}

impl File {
    /// Its first attribute of a type and name (UTF-16, little-endian bytes).
    pub fn attribute(&self, type_code: u32, name: &[u8]) -> Option<&FileAttribute> {
        self.attributes.iter().find(|attribute| attribute.type_code == type_code && attribute.name == name)
    }

    /// The resident value of its first unnamed attribute of a type.
    pub fn resident(&self, type_code: u32) -> Option<&[u8]> {
        match &self.attribute(type_code, &[])?.value {
            Value::Resident(value) => Some(value),
            Value::NonResident(_) => None,
        }
    }
}

/// A piece of an attribute, taken from a record.
struct Piece {
    type_code: u32,
    name: Vec<u8>,
    flags: u16,
    lowest_vcn: u64,
    record: u64,
    value: Value,
}

impl Volume {
    /// Reads a file's base record and the attributes that `want` asks for.
    pub fn file(&self, number: u64, want: &dyn Fn(u32) -> Want) -> Result<File> {
        let mut bytes = Vec::new();
        let record = self.read_record(number, &mut bytes)?;
        if record.base.is_some() {
            return Err(self.corrupt_record(number, "it is named as a file but extends another record"));
        }
        let mut pieces = Vec::new();
        let mut list = None;
        for attribute in record.attributes() {
            let attribute = attribute?;
            if attribute.type_code == attribute_type::ATTRIBUTE_LIST {
                list = Some(self.value_of_single(&attribute, MAX_LIST)?);
                break;
            }
            pieces.extend(self.piece(number, &attribute, want)?);
        }
        if let Some(list) = list {
            pieces = self.listed_pieces(number, &record, &list, want)?;
        }
        Ok(File {
            number,
            sequence: record.sequence,
            is_folder: record.is_folder,
            attributes: self.join(number, pieces, want)?,
        })
    }

    /// The pieces that an attribute list names, ordered by type, name and first cluster.
    fn listed_pieces(
        &self,
        number: u64,
        base: &Record<'_>,
        list: &[u8],
        want: &dyn Fn(u32) -> Want,
    ) -> Result<Vec<Piece>> {
        let mut entries = parse_list(list)?;
        entries.retain(|entry| match want(entry.type_code) {
            Want::Nothing => false,
            Want::Sizes => entry.lowest_vcn == 0,
            Want::Whole => true,
        });
        // Each record is read once, and each of its attributes taken once, whatever the list says.
        let place = |entry: &ListEntry<'_>| (entry.record, entry.type_code, entry.instance, entry.lowest_vcn);
        entries.sort_by_key(place);
        entries.dedup_by(|a, b| place(a) == place(b) && a.name == b.name);
        let mut pieces = Vec::new();
        let mut bytes = Vec::new();
        for entries in entries.chunk_by(|a, b| a.record == b.record) {
            let of = entries.first().map_or(number, |entry| entry.record);
            let extension;
            let record = if of == number {
                base
            } else {
                extension = self.read_record(of, &mut bytes)?;
                if extension.base != Some(number) {
                    return Err(self.corrupt_record(number, "its attribute list names a record of another file"));
                }
                &extension
            };
            for entry in entries {
                if entry.sequence != 0 && entry.sequence != record.sequence {
                    return Err(self.corrupt_record(number, "its attribute list names a record that was used again"));
                }
                let attribute = find_listed(record, entry)?;
                let attribute =
                    attribute.ok_or_else(|| self.corrupt_record(of, "an attribute of a list is not in it"))?;
                pieces.extend(self.piece(of, &attribute, want)?);
            }
        }
        pieces.sort_by(|a, b| (a.type_code, &a.name, a.lowest_vcn).cmp(&(b.type_code, &b.name, b.lowest_vcn)));
        Ok(pieces)
    }

    fn piece(&self, record: u64, attribute: &Attribute<'_>, want: &dyn Fn(u32) -> Want) -> Result<Option<Piece>> {
        let want = want(attribute.type_code);
        if want == Want::Nothing {
            return Ok(None);
        }
        let (lowest_vcn, value) = match &attribute.form {
            Form::Resident(value) => (0, Value::Resident(value.to_vec())),
            Form::NonResident(piece) => {
                let mut stream = Stream::of(piece, attribute.flags);
                if want == Want::Whole {
                    stream.runs = self.runs_of(piece)?;
                }
                (piece.lowest_vcn, Value::NonResident(stream))
            }
        };
        let (type_code, name, flags) = (attribute.type_code, attribute.name.to_vec(), attribute.flags);
        Ok(Some(Piece { type_code, name, flags, lowest_vcn, record, value }))
    }

    /// Joins pieces that come ordered by their first cluster.
    fn join(&self, number: u64, pieces: Vec<Piece>, want: &dyn Fn(u32) -> Want) -> Result<Vec<FileAttribute>> {
        let mut joined: Vec<FileAttribute> = Vec::new();
        for piece in pieces {
            if piece.lowest_vcn == 0 {
                let Piece { type_code, name, flags, record, value, .. } = piece;
                joined.push(FileAttribute { type_code, name, flags, value, records: vec![record] });
                continue;
            }
            let first = joined.last_mut().filter(|a| a.type_code == piece.type_code && a.name == piece.name);
            let Some((FileAttribute { value: Value::NonResident(stream), records, .. }, Value::NonResident(more))) =
                first.map(|first| (first, piece.value))
            else {
                return Err(self.corrupt_record(number, "the first piece of an attribute is missing"));
            };
            stream.runs.extend(more.runs);
            records.push(piece.record);
        }
        for attribute in &joined {
            if let (Value::NonResident(stream), Want::Whole) = (&attribute.value, want(attribute.type_code)) {
                self.check_stream(stream, number)?;
            }
        }
        Ok(joined)
    }

    /// The runs of one piece.
    pub(super) fn runs_of(&self, piece: &NonResident<'_>) -> Result<Vec<Run>> {
        runs::parse(piece.mapping_pairs, piece.lowest_vcn, piece.highest_vcn, self.boot.cluster_count)
    }

    /// Every byte of a stream must be mapped, its pieces must follow each other, and it cannot take more clusters than there are.
    pub(super) fn check_stream(&self, stream: &Stream, record: u64) -> Result<()> {
        let mut vcn = 0_u64;
        let mut clusters = 0_u64;
        for run in &stream.runs {
            if run.vcn != vcn {
                return Err(self.corrupt_record(record, "the pieces of an attribute do not follow each other"));
            }
            vcn = vcn.saturating_add(run.len);
            if run.lcn.is_some() {
                clusters = clusters.saturating_add(run.len);
            }
        }
        if vcn.saturating_mul(self.boot.cluster_size) < stream.data_size {
            return Err(self.corrupt_record(record, "an attribute is longer than its clusters"));
        }
        // What is no longer than the disk bounds every loop over the clusters of a stream.
        if clusters > self.boot.cluster_count {
            return Err(self.corrupt_record(record, "an attribute has more clusters than the volume"));
        }
        Ok(())
    }

    /// The same for a stream whose structures are read one by one: a hole in it can be longer than any disk.
    pub(super) fn check_no_holes(&self, stream: &Stream, record: u64) -> Result<()> {
        if stream.runs.iter().any(|run| run.lcn.is_none()) {
            return Err(self.corrupt_record(record, "an attribute of the filesystem has a hole"));
        }
        Ok(())
    }
}

/// The attribute of a record that an entry of an attribute list names.
pub(super) fn find_listed<'a>(record: &Record<'a>, entry: &ListEntry<'_>) -> Result<Option<Attribute<'a>>> {
    for attribute in record.attributes() {
        let attribute = attribute?;
        let lowest_vcn = match &attribute.form {
            Form::Resident(_) => 0,
            Form::NonResident(piece) => piece.lowest_vcn,
        };
        if (attribute.type_code, attribute.instance, lowest_vcn) == (entry.type_code, entry.instance, entry.lowest_vcn)
            && attribute.name == entry.name
        {
            return Ok(Some(attribute));
        }
    }
    Ok(None)
}
