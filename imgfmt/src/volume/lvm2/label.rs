//! The label of a physical volume, and its metadata areas.
//!
//! Source: "Logical Volume Manager (LVM) format specification" (libvslvm) sections 2 to 4.

use std::sync::Arc;

use crate::bytes::{array, le32, le64};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};

/// Sectors at the start of a volume of which one holds the label.
const LABEL_SECTORS: u64 = 4;
/// Bytes of a label, and of the header of a metadata area, whatever the sector size.
const SECTOR: u64 = 512;
/// Most bytes of a description that are read: a thousand volumes take about one MiB.
const MAX_TEXT: u64 = 16 << 20;
/// Start value of LVM's CRC-32.
const INITIAL_CRC: u32 = 0xf597_a6cf;
/// Flag of a location: it is not to be used.
const IGNORED: u32 = 1;

/// Offset and length of an area in bytes of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// A label, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// UUID of the volume, with its hyphens, as the metadata name it.
    pub id: String,
    /// Where descriptions of the group lie.
    pub metadata_areas: Vec<Area>,
}

/// LVM's CRC-32: that of zlib with another start and without the final inversion.
pub fn checksum(initial: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!initial);
    hasher.update(bytes);
    !hasher.finalize()
}

impl Label {
    /// Finds the label of a volume; `None` where there is none.
    pub fn read(disk: &Arc<dyn Disk>) -> Result<Option<Self>> {
        for sector in 0..LABEL_SECTORS {
            let offset = sector.saturating_mul(SECTOR);
            if offset.saturating_add(SECTOR) > disk.len() {
                break;
            }
            let bytes = read_vec(disk, offset, 512)?;
            if bytes.get(..8) == Some(b"LABELONE") && bytes.get(24..32) == Some(b"LVM2 001") {
                return Self::parse(&bytes, sector).map(Some);
            }
        }
        Ok(None)
    }

    /// Parses the sector that holds the label.
    fn parse(bytes: &[u8], sector: u64) -> Result<Self> {
        let corrupt = |reason| Error::corrupt("LVM2 label", sector.saturating_mul(SECTOR), reason);
        let short = || corrupt("it is cut short");
        if le64(bytes, 8) != Some(sector) {
            return Err(corrupt("it names another sector than its own"));
        }
        let crc = le32(bytes, 16).ok_or_else(short)?;
        if checksum(INITIAL_CRC, bytes.get(20..).ok_or_else(short)?) != crc {
            return Err(corrupt("its checksum does not match"));
        }
        let header = usize::try_from(le32(bytes, 20).ok_or_else(short)?).map_err(|_| short())?;
        let header = bytes.get(header..).ok_or_else(short)?;
        let id: [u8; 32] = array(header, 0).ok_or_else(short)?;
        // Two lists of (offset, length), each ended by zeros: data areas, then metadata areas.
        let mut at = 40_usize;
        let mut next = || {
            let area = Area { offset: le64(header, at)?, len: le64(header, at.checked_add(8)?)? };
            at = at.checked_add(16)?;
            Some(area)
        };
        while next().ok_or_else(short)?.offset != 0 {}
        let mut metadata_areas = Vec::new();
        loop {
            match next().ok_or_else(short)? {
                Area { offset: 0, .. } => break,
                area => metadata_areas.push(area),
            }
        }
        let id = id_text(&id).ok_or_else(|| corrupt("its volume has no proper id"))?;
        Ok(Self { id, metadata_areas })
    }
}

/// An id of 32 characters as text: groups of 6, 4, 4, 4, 4, 4 and 6 characters.
fn id_text(id: &[u8; 32]) -> Option<String> {
    if !id.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let mut text = String::with_capacity(38);
    for (n, byte) in id.iter().enumerate() {
        if matches!(n, 6 | 10 | 14 | 18 | 22 | 26) {
            text.push('-');
        }
        text.push(char::from(*byte));
    }
    Some(text)
}

/// Reads the description that a metadata area holds; `None` where it holds none.
pub fn read_area(disk: &Arc<dyn Disk>, area: Area) -> Result<Option<Vec<u8>>> {
    let corrupt = |reason| Error::corrupt("LVM2 metadata area", area.offset, reason);
    if area.len < SECTOR || area.offset.checked_add(area.len).is_none_or(|end| end > disk.len()) {
        return Err(corrupt("it reaches past the end of the volume"));
    }
    let header = read_vec(disk, area.offset, 512)?;
    let short = || corrupt("it is cut short");
    if header.get(4..20) != Some(b" LVM2 x[5A%r0N*>") {
        return Err(corrupt("its magic is missing"));
    }
    if checksum(INITIAL_CRC, header.get(4..).ok_or_else(short)?) != le32(&header, 0).ok_or_else(short)? {
        return Err(corrupt("its checksum does not match"));
    }
    if le32(&header, 20) != Some(1) {
        return Err(Error::unsupported("LVM2 metadata area", "another version than 1"));
    }
    if le64(&header, 24) != Some(area.offset) || le64(&header, 32).is_none_or(|len| len > area.len || len < SECTOR) {
        return Err(corrupt("it does not lie where it says"));
    }
    let area_len = le64(&header, 32).ok_or_else(short)?;
    let offset = le64(&header, 40).ok_or_else(short)?;
    let len = le64(&header, 48).ok_or_else(short)?;
    let crc = le32(&header, 56).ok_or_else(short)?;
    let flags = le32(&header, 60).ok_or_else(short)?;
    if offset == 0 || len == 0 || flags & IGNORED != 0 {
        return Ok(None);
    }
    let room = area_len.saturating_sub(SECTOR);
    if offset < SECTOR || offset >= area_len || len > room || len > MAX_TEXT {
        return Err(corrupt("its description lies outside of it"));
    }
    // The area is a ring behind its header.
    let first = len.min(area_len.saturating_sub(offset));
    let size = |len: u64| usize::try_from(len).map_err(|_| short());
    let mut text = read_vec(disk, area.offset.saturating_add(offset), size(first)?)?;
    if first < len {
        let rest = size(len.saturating_sub(first))?;
        text.extend(read_vec(disk, area.offset.saturating_add(SECTOR), rest)?);
    }
    if checksum(INITIAL_CRC, &text) != crc {
        return Err(corrupt("the checksum of its description does not match"));
    }
    Ok(Some(text))
}
