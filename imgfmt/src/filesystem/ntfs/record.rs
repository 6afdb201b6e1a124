//! MFT records and their attributes.

use crate::bytes::{le16, le32, le64, u8_at};
use crate::error::{Error, Result};

/// Attribute flags: a header with one has a field more.
const COMPRESSED_OR_SPARSE: u16 = 0x80ff;
/// The multi-sector fixup works on pieces of this size, whatever the sector size.
const FIXUP_STRIDE: usize = 512;

/// Attribute types that are used here.
pub mod attribute_type {
    /// $STANDARD_INFORMATION.
    pub const STANDARD_INFORMATION: u32 = 0x10;
    /// $ATTRIBUTE_LIST.
    pub const ATTRIBUTE_LIST: u32 = 0x20;
    /// $FILE_NAME.
    pub const FILE_NAME: u32 = 0x30;
    /// $OBJECT_ID.
    pub const OBJECT_ID: u32 = 0x40;
    /// $SECURITY_DESCRIPTOR.
    pub const SECURITY_DESCRIPTOR: u32 = 0x50;
    /// $VOLUME_NAME.
    pub const VOLUME_NAME: u32 = 0x60;
    /// $VOLUME_INFORMATION.
    pub const VOLUME_INFORMATION: u32 = 0x70;
    /// $DATA.
    pub const DATA: u32 = 0x80;
    /// $INDEX_ROOT.
    pub const INDEX_ROOT: u32 = 0x90;
    /// $INDEX_ALLOCATION.
    pub const INDEX_ALLOCATION: u32 = 0xa0;
    /// $BITMAP.
    pub const BITMAP: u32 = 0xb0;
    /// $REPARSE_POINT.
    pub const REPARSE_POINT: u32 = 0xc0;
    /// $EA.
    pub const EA: u32 = 0xe0;
    /// $LOGGED_UTILITY_STREAM.
    pub const LOGGED_UTILITY_STREAM: u32 = 0x100;
    /// Ends the list.
    pub const END: u32 = 0xffff_ffff;
}

/// The record number in a file reference: its low 48 bits.
pub fn record_number(reference: u64) -> u64 {
    reference & 0xffff_ffff_ffff
}

/// The sequence number in a file reference: its high 16 bits. 0 is "any".
pub fn sequence_number(reference: u64) -> u16 {
    u16::try_from(reference >> 48).expect("sixteen bits are left")
}

/// An MFT record, its fixup undone and its header checked.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
    /// Whether it is in use.
    pub in_use: bool,
    /// How often it was used for another file.
    pub sequence: u16,
    /// The base record, where this is an extension of one.
    pub base: Option<u64>,
    /// Whether it is a folder's.
    pub is_folder: bool,
    first_attribute: usize,
}

/// Undoes the fixup of a multi-sector structure with this magic, in place. `None` where the magic is another.
pub fn undo_fixup(bytes: &mut [u8], magic: &[u8; 4]) -> Result<Option<()>> {
    let corrupt = |reason| Error::corrupt("NTFS record", 0, reason);
    if bytes.get(..4) != Some(&magic[..]) {
        return Ok(None);
    }
    let offset = usize::from(le16(bytes, 4).ok_or_else(|| corrupt("it is cut short"))?);
    let count = usize::from(le16(bytes, 6).ok_or_else(|| corrupt("it is cut short"))?);
    if count.checked_sub(1) != Some(bytes.len() / FIXUP_STRIDE) || offset < 8 {
        return Err(corrupt("its fixup is not of its size"));
    }
    let array_len = count.saturating_mul(2);
    let array = bytes.get(offset..offset.saturating_add(array_len)).map(<[u8]>::to_vec);
    let array = array.ok_or_else(|| corrupt("its fixup lies outside of it"))?;
    let (number, values) = array.split_at(2);
    for (piece, value) in bytes.chunks_exact_mut(FIXUP_STRIDE).zip(values.chunks_exact(2)) {
        let end = piece.get_mut(FIXUP_STRIDE.saturating_sub(2)..).expect("a piece has 512 bytes");
        if end != number {
            return Err(corrupt("it was only partly written (fixup does not match)"));
        }
        end.copy_from_slice(value);
    }
    Ok(Some(()))
}

impl<'a> Record<'a> {
    /// Parses a record after undoing its fixup in place; `None` where it does not start with FILE.
    pub fn parse(bytes: &'a mut [u8]) -> Result<Option<Self>> {
        let corrupt = |reason| Error::corrupt("NTFS MFT record", 0, reason);
        let short = || corrupt("it is cut short");
        if undo_fixup(bytes, b"FILE")?.is_none() {
            return Ok(None);
        }
        let used = usize::try_from(le32(bytes, 0x18).ok_or_else(short)?).map_err(|_| short())?;
        let first_attribute = usize::from(le16(bytes, 0x14).ok_or_else(short)?);
        let flags = le16(bytes, 0x16).ok_or_else(short)?;
        let base = record_number(le64(bytes, 0x20).ok_or_else(short)?);
        let has_base = le64(bytes, 0x20).ok_or_else(short)? != 0;
        let sequence = le16(bytes, 0x10).ok_or_else(short)?;
        if used > bytes.len() || first_attribute > used || first_attribute < 0x28 {
            return Err(corrupt("its attributes lie outside of it"));
        }
        let bytes = bytes.get(..used).ok_or_else(short)?;
        let (in_use, is_folder) = (flags & 1 != 0, flags & 2 != 0);
        Ok(Some(Self { bytes, in_use, sequence, base: has_base.then_some(base), is_folder, first_attribute }))
    }

    /// Its attributes, each checked to lie inside it. After an error nothing more comes.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { bytes: self.bytes, at: Some(self.first_attribute) }
    }
}

/// An attribute, checked to lie inside its record.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// See [`attribute_type`].
    pub type_code: u32,
    /// Name as UTF-16, little-endian bytes; empty for the unnamed one.
    pub name: &'a [u8],
    /// Compressed 0x0001, encrypted 0x4000, sparse 0x8000.
    pub flags: u16,
    /// Tells it from the other attributes of its record.
    pub instance: u16,
    /// Its value or where that lies.
    pub form: Form<'a>,
}

/// Where an attribute's value is.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// In the record.
    Resident(&'a [u8]),
    /// In clusters.
    NonResident(NonResident<'a>),
}

/// A piece of a non-resident attribute.
#[derive(Clone, Copy, Debug)]
pub struct NonResident<'a> {
    /// First cluster of the stream that this piece describes.
    pub lowest_vcn: u64,
    /// Last one; `u64::MAX` where there is none.
    pub highest_vcn: u64,
    /// Clusters in a compression unit as a power of two; 0 where the stream never was compressed or sparse.
    pub compression_unit: u8,
    /// Run list.
    pub mapping_pairs: &'a [u8],
    /// Bytes of all clusters of the stream; of meaning only where `lowest_vcn` is 0.
    pub allocated_size: u64,
    /// Bytes of the stream; likewise.
    pub data_size: u64,
    /// Bytes that were written; likewise.
    pub initialized_size: u64,
    /// Bytes of the clusters that are there, where the stream is compressed or sparse; likewise.
    pub compressed_size: Option<u64>,
}

/// Iterates over the attributes of a record.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: Option<usize>,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        let corrupt = |reason| Error::corrupt("NTFS attribute", u64::try_from(at).unwrap_or(0), reason);
        let Some(type_code) = le32(self.bytes, at) else {
            return Some(Err(corrupt("the list of attributes has no end")));
        };
        if type_code == attribute_type::END {
            return None;
        }
        let len = le32(self.bytes, at.saturating_add(4)).and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
        let end = at.saturating_add(len);
        if len < 0x18 || !len.is_multiple_of(8) || end > self.bytes.len() {
            return Some(Err(corrupt("its length is out of range")));
        }
        let raw = self.bytes.get(at..end).unwrap_or_default();
        let parsed = parse_attribute(type_code, raw);
        if parsed.is_some() {
            self.at = Some(end);
        }
        Some(parsed.ok_or_else(|| corrupt("a field lies outside of it")))
    }
}

fn parse_attribute(type_code: u32, raw: &[u8]) -> Option<Attribute<'_>> {
    let name_len = usize::from(u8_at(raw, 9)?).checked_mul(2)?;
    let name = if name_len == 0 {
        &[][..]
    } else {
        let name_offset = usize::from(le16(raw, 10)?);
        raw.get(name_offset..name_offset.checked_add(name_len)?)?
    };
    let flags = le16(raw, 12)?;
    let form = if u8_at(raw, 8)? == 0 {
        let offset = usize::from(le16(raw, 20)?);
        let len = usize::try_from(le32(raw, 16)?).ok()?;
        Form::Resident(raw.get(offset..offset.checked_add(len)?)?)
    } else {
        let pairs = usize::from(le16(raw, 32)?);
        if pairs < 0x40 {
            return None;
        }
        Form::NonResident(NonResident {
            lowest_vcn: le64(raw, 16)?,
            highest_vcn: le64(raw, 24)?,
            compression_unit: u8_at(raw, 34)?,
            mapping_pairs: raw.get(pairs..)?,
            allocated_size: le64(raw, 40)?,
            data_size: le64(raw, 48)?,
            initialized_size: le64(raw, 56)?,
            compressed_size: if flags & COMPRESSED_OR_SPARSE != 0 { le64(raw, 64) } else { None },
        })
    };
    Some(Attribute { type_code, name, flags, instance: le16(raw, 14)?, form })
}

/// An entry of an attribute list: one piece of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry<'a> {
    /// Type of the attribute.
    pub type_code: u32,
    /// Its name as UTF-16, little-endian bytes; empty for the unnamed one.
    pub name: &'a [u8],
    /// First cluster of the piece; 0 for a resident attribute.
    pub lowest_vcn: u64,
    /// Record that holds the piece.
    pub record: u64,
    /// How often that record had been used; 0 is "any".
    pub sequence: u16,
    /// Which of that record's attributes the piece is.
    pub instance: u16,
}

/// Parses an attribute list.
pub fn parse_list(mut bytes: &[u8]) -> Result<Vec<ListEntry<'_>>> {
    let corrupt = |reason| Error::corrupt("NTFS attribute list", 0, reason);
    let mut entries = Vec::new();
    // What is left over of fewer than 8 bytes is the padding of the last entry.
    while bytes.len() >= 8 {
        if matches!(le32(bytes, 0), Some(0 | attribute_type::END)) {
            break;
        }
        let len = usize::from(le16(bytes, 4).ok_or_else(|| corrupt("it is cut short"))?);
        // The padding of the last entry may be cut off.
        if len < 0x1a || len > bytes.len().next_multiple_of(8) {
            return Err(corrupt("the length of an entry is out of range"));
        }
        let (raw, rest) = bytes.split_at(len.min(bytes.len()));
        entries.push(parse_list_entry(raw).ok_or_else(|| corrupt("a field lies outside of its entry"))?);
        bytes = rest;
    }
    Ok(entries)
}

fn parse_list_entry(raw: &[u8]) -> Option<ListEntry<'_>> {
    let name_len = usize::from(u8_at(raw, 6)?).checked_mul(2)?;
    let name = if name_len == 0 {
        &[][..]
    } else {
        let name_offset = usize::from(u8_at(raw, 7)?);
        raw.get(name_offset..name_offset.checked_add(name_len)?)?
    };
    let reference = le64(raw, 16)?;
    Some(ListEntry {
        type_code: le32(raw, 0)?,
        name,
        lowest_vcn: le64(raw, 8)?,
        record: record_number(reference),
        sequence: sequence_number(reference),
        instance: le16(raw, 24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_entry(type_code: u32, name: &[u8], vcn: u64, reference: u64, instance: u16) -> Vec<u8> {
        let len = (0x1a + name.len()).next_multiple_of(8);
        let mut raw = type_code.to_le_bytes().to_vec();
        raw.extend(u16::try_from(len).unwrap().to_le_bytes());
        raw.extend([u8::try_from(name.len() / 2).unwrap(), 0x1a]);
        raw.extend(vcn.to_le_bytes());
        raw.extend(reference.to_le_bytes());
        raw.extend(instance.to_le_bytes());
        raw.extend(name);
        raw.resize(len, 0);
        raw
    }

    #[test]
    fn lists_keep_names_and_references() {
        let mut list = list_entry(0x30, b"", 0, 7 << 48 | 42, 3);
        list.extend(list_entry(0x80, b"a\0b\0", 9, 5, 1));
        let entries = parse_list(&list).unwrap();
        let expected = [
            ListEntry { type_code: 0x30, name: b"", lowest_vcn: 0, record: 42, sequence: 7, instance: 3 },
            ListEntry { type_code: 0x80, name: b"a\0b\0", lowest_vcn: 9, record: 5, sequence: 0, instance: 1 },
        ];
        assert_eq!(entries, expected);
        // Windows counts no padding behind the last entry.
        list.truncate(list.len() - 2);
        assert_eq!(parse_list(&list).unwrap(), expected);
    }

    #[test]
    fn lists_that_lie_are_refused() {
        let good = list_entry(0x80, b"a\0b\0", 9, 5, 1);
        for (at, value) in [(4, 8), (4, 0x19), (4, 0x30), (5, 1), (6, 200), (7, 0x1d)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(parse_list(&bad).is_err(), "{value:#x} at {at}");
        }
        assert!(parse_list(&good[..0x19]).is_err());
    }
}
