//! Volume descriptors: which tree of the image is shown, and where it starts.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::bytes::{array, le16, le32, u8_at};
use crate::disk::{Disk, check_range, read_vec};
use crate::error::{Error, Result};
use crate::filesystem::iso9660::record::{FIXED, Record};
use crate::filesystem::iso9660::rock_ridge::{self, Continuation, RockRidge};
use crate::filesystem::utf16;

/// Bytes in a logical sector, which no record crosses.
pub const SECTOR: u64 = 2048;
/// First byte of the first descriptor.
const FIRST: u64 = 16 * SECTOR;
/// Descriptors that are looked at.
const MAX_DESCRIPTORS: u64 = 64;
/// Place of the root's record in a descriptor.
const ROOT: usize = 156;
/// Bytes of the longest directory.
const MAX_DIRECTORY: u64 = 256 << 20;

/// The names that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Those of Rock Ridge; with the bytes to skip in each system use area.
    RockRidge(usize),
    /// Those of Joliet: UCS-2, big-endian.
    Joliet,
    /// Those of ISO 9660 itself.
    Plain,
}

/// A volume.
pub struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    /// Bytes in a block: 512, 1024 or 2048.
    pub(crate) block_size: u64,
    /// Bytes of the volume.
    pub(crate) len: u64,
    /// Which names are shown.
    pub(crate) names: Names,
    /// Where the root's record lies.
    pub(crate) root: u64,
    /// Volume identifier.
    pub(crate) label: String,
    /// Date of the last modification (else creation) of the volume, as sixteen digits; may be empty.
    pub(crate) date: String,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("names", &self.names).field("root", &self.root).finish_non_exhaustive()
    }
}

/// A descriptor of a directory tree.
struct Descriptor {
    place: u64,
    bytes: Vec<u8>,
}

impl Descriptor {
    fn corrupt(&self, reason: &'static str) -> Error {
        Error::corrupt("ISO 9660 volume descriptor", self.place, reason)
    }

    /// The sixteen digits of a date, where there are some that are not 0.
    fn date(&self, at: usize) -> Option<String> {
        let digits: [u8; 16] = array(&self.bytes, at)?;
        let is_date = digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0');
        is_date.then(|| digits.iter().map(|digit| char::from(*digit)).collect())
    }
}

/// Escape sequences of UCS-2 levels 1 to 3, by which Joliet is known.
const JOLIET: [[u8; 3]; 3] = [*b"%/@", *b"%/C", *b"%/E"];

impl Volume {
    /// Opens the volume in a partition; `None` where there is no primary volume descriptor.
    ///
    /// Source: ECMA-119 9.4 (primary) and 9.5 (supplementary volume descriptor).
    pub fn open(disk: Arc<dyn Disk>) -> Result<Option<Self>> {
        let (mut primary, mut joliet) = (None, None);
        for number in 0..MAX_DESCRIPTORS {
            let place = FIRST.saturating_add(number.saturating_mul(SECTOR));
            if place.saturating_add(SECTOR) > disk.len() {
                break;
            }
            let bytes = read_vec(&disk, place, 2048)?;
            if array(&bytes, 1) != Some(*b"CD001") {
                break;
            }
            let is_joliet = array(&bytes, 88).is_some_and(|escape| JOLIET.contains(&escape));
            match u8_at(&bytes, 0) {
                Some(1) if primary.is_none() => primary = Some(Descriptor { place, bytes }),
                Some(2) if is_joliet && joliet.is_none() => joliet = Some(Descriptor { place, bytes }),
                Some(255) => break,
                _ => {}
            }
        }
        let Some(primary) = primary else { return Ok(None) };
        let volume = Self::of(&disk, &primary, Names::Plain)?;
        // The record of the root itself says whether Rock Ridge is used, unless what it says cannot be read.
        if let Some(skip) = volume.rock_ridge()? {
            return Ok(Some(Self { names: Names::RockRidge(skip), ..volume }));
        }
        match joliet {
            Some(joliet) => Self::of(&disk, &joliet, Names::Joliet).map(Some),
            None => Ok(Some(volume)),
        }
    }

    fn of(disk: &Arc<dyn Disk>, descriptor: &Descriptor, names: Names) -> Result<Self> {
        let short = || descriptor.corrupt("it is cut short");
        let block_size = u64::from(le16(&descriptor.bytes, 128).ok_or_else(short)?);
        if !matches!(block_size, 512 | 1024 | 2048) {
            return Err(descriptor.corrupt("its block size is out of range"));
        }
        let blocks = u64::from(le32(&descriptor.bytes, 80).ok_or_else(short)?);
        let label: [u8; 32] = array(&descriptor.bytes, 40).ok_or_else(short)?;
        let label = match names {
            Names::Joliet => String::from_utf16_lossy(&units(&label)),
            _ => String::from_utf8_lossy(&label).into_owned(),
        };
        let root = descriptor.place.saturating_add(u64::try_from(ROOT).expect("small"));
        let volume = Self {
            disk: Arc::clone(disk),
            block_size,
            len: blocks.saturating_mul(block_size).min(disk.len()),
            names,
            root,
            label: label.trim_end_matches([' ', '\0']).to_owned(),
            // Places of the dates of modification and creation.
            date: descriptor.date(830).or_else(|| descriptor.date(813)).unwrap_or_default(),
        };
        if !volume.record(root)?.is_directory() {
            return Err(descriptor.corrupt("its root is no directory"));
        }
        Ok(volume)
    }

    /// Looks for Rock Ridge in the root's own record. Returns the bytes to skip in the areas of other records.
    fn rock_ridge(&self) -> Result<Option<usize>> {
        let root = self.record(self.root)?;
        let Some(dot) = self.dot(u64::from(root.block))? else { return Ok(None) };
        let Some(skip) = rock_ridge::skip(&dot.system_use) else { return Ok(None) };
        let found = RockRidge::read(&dot.system_use, self.root, &|at| self.fetch(at))?;
        // The protocol can be in use for something else.
        Ok(found.mode.map(|_| skip))
    }

    /// The record of a directory itself, at the start of its extent.
    pub fn dot(&self, block: u64) -> Result<Option<Record>> {
        let place = block.saturating_mul(self.block_size);
        if place >= self.disk.len() {
            return Err(Error::corrupt("ISO 9660 directory", place, "it lies past the end of the volume"));
        }
        Ok(self.record(place).ok().filter(|record| record.name == [0]))
    }

    /// The record at byte `place`.
    pub fn record(&self, place: u64) -> Result<Record> {
        let corrupt = || Error::corrupt("ISO 9660 directory record", place, "it is no record");
        // Up to the end of its sector, or of the image.
        let sector_end = (place / SECTOR).saturating_add(1).saturating_mul(SECTOR);
        let len = sector_end.min(self.disk.len()).checked_sub(place).ok_or_else(corrupt)?.min(255);
        let bytes = read_vec(&self.disk, place, usize::try_from(len).expect("at most 255"))?;
        Record::parse(&bytes).ok_or_else(corrupt)
    }

    /// Reads a continuation of a system use area.
    pub fn fetch(&self, at: Continuation) -> Result<Vec<u8>> {
        let start = u64::from(at.block).saturating_mul(self.block_size).saturating_add(u64::from(at.offset));
        let corrupt = |_| Error::corrupt("ISO 9660 continuation area", start, "it lies past the end of the volume");
        check_range(start, u64::from(at.len), self.disk.len()).map_err(corrupt)?;
        read_vec(&self.disk, start, usize::try_from(at.len).expect("at most 32 KiB, checked by the caller"))
    }

    /// What Rock Ridge says of a record; nothing where it is not used. The root's area and that of a directory itself are not skipped into.
    pub fn extra(&self, record: &Record, place: u64) -> Result<RockRidge> {
        let Names::RockRidge(skip) = self.names else { return Ok(RockRidge::default()) };
        let is_root_itself = rock_ridge::skip(&record.system_use).is_some();
        let skip = if is_root_itself { 0 } else { skip };
        RockRidge::read(record.system_use.get(skip..).unwrap_or_default(), place, &|at| self.fetch(at))
    }

    /// Calls `visit` for each record of the directory in `len` bytes from block `block` on, with where it lies, but not for the directory itself and its parent.
    pub fn scan(
        &self,
        block: u64,
        len: u64,
        visit: &mut dyn FnMut(u64, Record) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let start = block.saturating_mul(self.block_size);
        let corrupt = |at, reason| Error::corrupt("ISO 9660 directory", at, reason);
        if check_range(start, len, self.disk.len()).is_err() {
            return Err(corrupt(start, "it lies past the end of the volume"));
        }
        if len > MAX_DIRECTORY {
            return Err(corrupt(start, "it is longer than a directory can be"));
        }
        let end = start.saturating_add(len);
        let mut at = start;
        while at < end {
            let sector_end = (at / SECTOR).saturating_add(1).saturating_mul(SECTOR).min(end);
            let sector = usize::try_from(sector_end.saturating_sub(at)).expect("at most a sector");
            let bytes = read_vec(&self.disk, at, sector)?;
            let mut rest = &bytes[..];
            // A length of 0 says that no other record lies in the sector.
            while rest.first().is_some_and(|len| *len != 0) && rest.len() > FIXED {
                let record = Record::parse(rest).ok_or_else(|| corrupt(at, "one of its records is broken"))?;
                rest = rest.get(record.record_len..).unwrap_or_default();
                let place = at;
                at = at.saturating_add(u64::try_from(record.record_len).expect("at most 255"));
                if !record.is_dot() && visit(place, record)?.is_break() {
                    return Ok(());
                }
            }
            at = sector_end;
        }
        Ok(())
    }
}

/// UTF-16 units of big-endian bytes.
pub fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect()
}

/// The name that a record has by itself, without its version.
///
/// Source: ECMA-119 8.5.1: name, ".", extension, ";", version.
pub fn plain_name(names: Names, identifier: &[u8]) -> Vec<u8> {
    let mut name = match names {
        Names::Joliet => utf16::to_wtf8(&units(identifier)),
        _ => identifier.to_vec(),
    };
    if let Some(semicolon) = name.iter().rposition(|byte| *byte == b';')
        && name.iter().skip(semicolon).skip(1).all(u8::is_ascii_digit)
    {
        name.truncate(semicolon);
        // The dot is there even where no extension is.
        if names == Names::Plain && name.last() == Some(&b'.') {
            name.pop();
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_not_shown() {
        for (stored, shown) in
            [("README.TXT;1", "README.TXT"), ("FILE.;1", "FILE"), ("DIR", "DIR"), ("A;B;12", "A;B"), ("A;B", "A;B")]
        {
            assert_eq!(plain_name(Names::Plain, stored.as_bytes()), shown.as_bytes());
        }
        assert_eq!(plain_name(Names::Joliet, b"\0a\0.\0;\x001"), b"a.");
    }
}
