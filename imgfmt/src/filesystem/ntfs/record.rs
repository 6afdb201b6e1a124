//! MFT records and their attributes.

use crate::bytes::{le16, le32, le64, u8_at};
use crate::error::{Error, Result};

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
    /// Ends the list.
    pub const END: u32 = 0xffff_ffff;
}

/// The record number in a file reference: its low 48 bits.
pub fn record_number(reference: u64) -> u64 {
    reference & 0xffff_ffff_ffff
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
        Ok(Some(Self { bytes, in_use: flags & 1 != 0, sequence, base: has_base.then_some(base), first_attribute }))
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
    /// Run list.
    pub mapping_pairs: &'a [u8],
    /// Bytes of all clusters of the stream; of meaning only where `lowest_vcn` is 0.
    pub allocated_size: u64,
    /// Bytes of the stream; likewise.
    pub data_size: u64,
    /// Bytes that were written; likewise.
    pub initialized_size: u64,
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
            mapping_pairs: raw.get(pairs..)?,
            allocated_size: le64(raw, 40)?,
            data_size: le64(raw, 48)?,
            initialized_size: le64(raw, 56)?,
        })
    };
    Some(Attribute { type_code, name, flags: le16(raw, 12)?, form })
}

/// An entry of an attribute list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Type of the attribute.
    pub type_code: u32,
    /// Whether it is the unnamed one.
    pub unnamed: bool,
    /// First cluster of the piece.
    pub lowest_vcn: u64,
    /// Record that holds the piece.
    pub record: u64,
}

/// Parses an attribute list.
pub fn parse_list(mut bytes: &[u8]) -> Result<Vec<ListEntry>> {
    let corrupt = |reason| Error::corrupt("NTFS attribute list", 0, reason);
    let mut entries = Vec::new();
    while bytes.len() >= 0x1a {
        let entry = (|| {
            Some((
                ListEntry {
                    type_code: le32(bytes, 0)?,
                    unnamed: u8_at(bytes, 6)? == 0,
                    lowest_vcn: le64(bytes, 8)?,
                    record: record_number(le64(bytes, 16)?),
                },
                usize::from(le16(bytes, 4)?),
            ))
        })();
        let (entry, len) = entry.ok_or_else(|| corrupt("it is cut short"))?;
        if entry.type_code == 0 || entry.type_code == attribute_type::END {
            break;
        }
        if len < 0x1a || len > bytes.len().next_multiple_of(8) {
            return Err(corrupt("the length of an entry is out of range"));
        }
        entries.push(entry);
        bytes = bytes.get(len..).unwrap_or_default();
    }
    Ok(entries)
}
