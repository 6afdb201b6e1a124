//! Sets of directory entries: a primary entry and the secondary ones that follow it.

use crate::bytes::{array, le16, le32, le64, u8_at};

/// Bytes of an entry.
pub const SLOT: usize = 32;
/// Bytes of the longest directory.
///
/// Source: exFAT specification 7.4 (256 MB for the `DataLength` of directories).
pub const MAX_LEN: u64 = 256 << 20;

/// Types of entries, with the bit that says that they are in use.
mod entry_type {
    pub(super) const BITMAP: u8 = 0x81;
    pub(super) const UPCASE: u8 = 0x82;
    pub(super) const LABEL: u8 = 0x83;
    pub(super) const FILE: u8 = 0x85;
    pub(super) const STREAM: u8 = 0xc0;
    pub(super) const NAME: u8 = 0xc1;
    pub(super) const IN_USE: u8 = 0x80;
    pub(super) const SECONDARY: u8 = 0x40;
    pub(super) const BENIGN: u8 = 0x20;
}

/// Clusters that an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// First cluster; 0 where there is none.
    pub start: u32,
    /// Bytes.
    pub len: u64,
    /// Whether the clusters follow each other and the table is silent about them.
    pub contiguous: bool,
}

/// A moment as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Time in the low half, date in the high half, in DOS format.
    pub time: u32,
    /// Hundredths of a second to be added, 0 to 199.
    pub hundredths: u8,
    /// Bit 7: valid; below, the signed distance of the local time from UTC in quarters of an hour.
    pub utc_offset: u8,
}

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Read-only 0x01, hidden 0x02, system 0x04, directory 0x10, archive 0x20.
    pub attributes: u16,
    /// Creation.
    pub created: Stamp,
    /// Last change.
    pub modified: Stamp,
    /// Last access; it has no hundredths.
    pub accessed: Stamp,
    /// Name in UTF-16.
    pub name: Vec<u16>,
    /// Its content.
    pub data: Allocation,
    /// Bytes of the content that were written; at most its length.
    pub valid_len: u64,
    /// Clusters of entries that other makers define.
    pub vendor: Vec<Allocation>,
}

impl File {
    /// Says whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.attributes & 0x10 != 0
    }
}

/// What a set of entries is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The allocation bitmap, the second one of TexFAT where `second` says so.
    Bitmap {
        /// Belongs to the second table.
        second: bool,
        /// Where it lies; through the table.
        data: Allocation,
    },
    /// The up-case table.
    Upcase {
        /// Sum over its bytes.
        checksum: u32,
        /// Where it lies; through the table.
        data: Allocation,
    },
    /// The volume label in UTF-16.
    Label(Vec<u16>),
    /// A file or directory.
    File(Box<File>),
    /// An entry that may be ignored.
    Ignored,
    /// Entries that break the rules.
    Broken(&'static str),
}

/// Puts sets together from entries that come in order.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    place: u64,
    bytes: Vec<u8>,
    missing: u8,
}

/// What an entry ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// No set ends here.
    Nothing,
    /// A set that started at this byte.
    Set(u64, Item),
    /// The set that started at this byte lacks entries, since this one is none of it: to be pushed again.
    Cut(u64),
    /// The directory ends here.
    End,
}

impl Sets {
    /// Takes the entry at byte `place`.
    pub fn push(&mut self, place: u64, bytes: &[u8; SLOT]) -> Step {
        let code = bytes[0];
        if self.missing > 0 {
            if code & (entry_type::IN_USE | entry_type::SECONDARY) == entry_type::IN_USE | entry_type::SECONDARY {
                self.bytes.extend_from_slice(bytes);
                self.missing = self.missing.saturating_sub(1);
                return if self.missing == 0 { self.finish() } else { Step::Nothing };
            }
            self.missing = 0;
            return Step::Cut(self.place);
        }
        match code {
            0 => Step::End,
            _ if code & entry_type::IN_USE == 0 => Step::Nothing,
            entry_type::FILE => {
                self.place = place;
                self.bytes = bytes.to_vec();
                self.missing = bytes[1];
                if self.missing == 0 { self.finish() } else { Step::Nothing }
            }
            _ => Step::Set(place, single(code, bytes).unwrap_or(Item::Broken("it is cut short"))),
        }
    }

    fn finish(&mut self) -> Step {
        let item = match file(&self.bytes) {
            Ok(file) => Item::File(Box::new(file)),
            Err(reason) => Item::Broken(reason),
        };
        Step::Set(self.place, item)
    }

    /// Says what is left when the directory ends without a mark.
    pub fn end(&self) -> Option<u64> {
        (self.missing > 0).then_some(self.place)
    }
}

/// Clusters named by bytes 20 to 31 of an entry.
fn allocation(bytes: &[u8], contiguous: bool) -> Option<Allocation> {
    Some(Allocation { start: le32(bytes, 20)?, len: le64(bytes, 24)?, contiguous })
}

/// An entry that is a set by itself.
fn single(code: u8, bytes: &[u8; SLOT]) -> Option<Item> {
    Some(match code {
        entry_type::BITMAP => Item::Bitmap { second: u8_at(bytes, 1)? & 1 != 0, data: allocation(bytes, false)? },
        entry_type::UPCASE => Item::Upcase { checksum: le32(bytes, 4)?, data: allocation(bytes, false)? },
        entry_type::LABEL => {
            let len = usize::from(u8_at(bytes, 1)?).min(11).saturating_mul(2);
            Item::Label(crate::filesystem::utf16::units(bytes.get(2..len.saturating_add(2))?))
        }
        _ if code & entry_type::SECONDARY != 0 => Item::Broken("a secondary entry follows no primary one"),
        _ if code & entry_type::BENIGN != 0 => Item::Ignored,
        _ => Item::Broken("it is of a critical type that is not known"),
    })
}

/// The sum over all bytes of a set but the sum itself.
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().enumerate().fold(0, |sum: u16, (at, byte)| match at {
        2 | 3 => sum,
        _ => sum.rotate_right(1).wrapping_add(u16::from(*byte)),
    })
}

/// Parses the set of a file.
///
/// Source: exFAT specification 7.4, 7.6, 7.7.
fn file(bytes: &[u8]) -> Result<File, &'static str> {
    const SHORT: &str = "it is cut short";
    if Some(checksum(bytes)) != le16(bytes, 2) {
        return Err("the checksum of the set is wrong");
    }
    let mut entries = bytes.chunks_exact(SLOT).skip(1);
    let stream = entries.next().filter(|entry| entry[0] == entry_type::STREAM).ok_or("it has no stream extension")?;
    let name_len = usize::from(u8_at(stream, 3).ok_or(SHORT)?);
    let data = allocation(stream, u8_at(stream, 1).ok_or(SHORT)? & 2 != 0).ok_or(SHORT)?;
    let valid_len = le64(stream, 8).ok_or(SHORT)?;
    if valid_len > data.len {
        return Err("more of it is valid than there is");
    }
    let mut name = Vec::with_capacity(name_len);
    let mut vendor = Vec::new();
    for entry in entries {
        if name.len() < name_len {
            if entry[0] != entry_type::NAME {
                return Err("a part of its name is missing");
            }
            name.extend(crate::filesystem::utf16::units(entry.get(2..).ok_or(SHORT)?));
        } else if entry[0] & entry_type::BENIGN == 0 {
            return Err("the set holds a critical entry that is not known");
        } else if entry[1] & 1 != 0 {
            vendor.extend(allocation(entry, entry[1] & 2 != 0));
        }
    }
    if name.len() < name_len || name_len == 0 {
        return Err("a part of its name is missing");
    }
    name.truncate(name_len);
    let stamp = |at, hundredths: Option<usize>, offset| -> Option<Stamp> {
        Some(Stamp {
            time: le32(bytes, at)?,
            hundredths: hundredths.map_or(Some(0), |at| u8_at(bytes, at))?,
            utc_offset: u8_at(bytes, offset)?,
        })
    };
    Ok(File {
        attributes: le16(bytes, 4).ok_or(SHORT)?,
        created: stamp(8, Some(20), 22).ok_or(SHORT)?,
        modified: stamp(12, Some(21), 23).ok_or(SHORT)?,
        accessed: stamp(16, None, 24).ok_or(SHORT)?,
        name,
        data,
        valid_len,
        vendor,
    })
}

/// The checksum of an up-case table, piece by piece.
///
/// Source: exFAT specification 7.2.2.
pub fn table_checksum(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| sum.rotate_right(1).wrapping_add(u32::from(*byte)))
}

/// The first entry of a set, for reading it again: how many follow it.
pub fn following(first: &[u8; SLOT]) -> Option<u8> {
    let [code, count] = array(first, 0)?;
    (code == entry_type::FILE).then_some(count)
}
