//! Directory entries: 8.3 entries, and the long names in front of them.

use crate::bytes::{array, le16, le32, u8_at};

/// Bytes of an entry.
pub const SLOT: usize = 32;
/// Bytes of the longest directory: 65536 entries.
///
/// Source: fatgen103, "FAT Directory Structure"; Linux and Windows grow none past it.
pub const MAX_LEN: u64 = 65536 * 32;

/// Bits of [`Short::attributes`].
pub mod attribute {
    /// The name is the label of the volume, and there is no file.
    pub const VOLUME_ID: u8 = 0x08;
    /// A directory.
    pub const DIRECTORY: u8 = 0x10;
    /// All of read-only, hidden, system and volume: a part of a long name.
    pub const LONG_NAME: u8 = 0x0f;
    /// The bits that tell parts of long names.
    pub const LONG_NAME_MASK: u8 = 0x3f;
}

/// What the 32 bytes of an entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// No entry, and none behind it.
    End,
    /// An entry that was deleted.
    Deleted,
    /// A part of a long name.
    Long(LongPart),
    /// An entry with a name of its own.
    Short(Short),
}

/// Up to 13 UTF-16 units of a long name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPart {
    /// 1 for the first part of the name, which is stored last; the part stored first has 0x40 besides.
    order: u8,
    /// Checksum of the 8.3 name that the name belongs to.
    checksum: u8,
    units: [u16; 13],
}

/// An 8.3 entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// Name and extension, padded with spaces, in the OEM code page, as stored.
    pub name: [u8; 11],
    /// Read-only 0x01, hidden 0x02, system 0x04, volume label 0x08, directory 0x10, archive 0x20.
    pub attributes: u8,
    /// 0x08: the name is shown in lower case; 0x10: the extension is.
    pub case: u8,
    /// First cluster; 0 where there is none. The upper half is of FAT32 alone.
    pub cluster: u32,
    /// Bytes of the file; 0 for a directory.
    pub len: u32,
    /// Hundredths of a second, 0 to 199, to be added to the time of creation.
    pub created_hundredths: u8,
    /// Time and date of creation, in DOS format.
    pub created: (u16, u16),
    /// Date of the last access.
    pub accessed: u16,
    /// Time and date of the last change.
    pub modified: (u16, u16),
}

impl Slot {
    /// Parses an entry. Every value of it is some entry.
    ///
    /// Source: fatgen103, "FAT Directory Structure" and "FAT Long Directory Entries".
    pub fn parse(bytes: &[u8; SLOT]) -> Self {
        Self::of(bytes).expect("the fields lie in the 32 bytes")
    }

    fn of(bytes: &[u8; SLOT]) -> Option<Self> {
        let attributes = u8_at(bytes, 11)?;
        Some(match u8_at(bytes, 0)? {
            0x00 => Self::End,
            0xe5 => Self::Deleted,
            order if attributes & attribute::LONG_NAME_MASK == attribute::LONG_NAME => {
                let mut units = [0; 13];
                for (unit, at) in units.iter_mut().zip([1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]) {
                    *unit = le16(bytes, at)?;
                }
                Self::Long(LongPart { order, checksum: u8_at(bytes, 13)?, units })
            }
            _ => Self::Short(Short {
                name: array(bytes, 0)?,
                attributes,
                case: u8_at(bytes, 12)?,
                cluster: u32::from(le16(bytes, 20)?) << 16 | u32::from(le16(bytes, 26)?),
                len: le32(bytes, 28)?,
                created_hundredths: u8_at(bytes, 13)?,
                created: (le16(bytes, 14)?, le16(bytes, 16)?),
                accessed: le16(bytes, 18)?,
                modified: (le16(bytes, 22)?, le16(bytes, 24)?),
            }),
        })
    }
}

impl Short {
    /// Says whether it is the volume label.
    pub fn is_label(&self) -> bool {
        self.attributes & attribute::VOLUME_ID != 0
    }

    /// Says whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.attributes & attribute::DIRECTORY != 0
    }

    /// Says whether it is "." or "..".
    pub fn is_dot(&self) -> bool {
        matches!(&self.name, b".          " | b"..         ")
    }

    /// The checksum by which the parts of a long name say that they belong to this entry.
    pub fn checksum(&self) -> u8 {
        self.name.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
    }

    /// The 8.3 name as it is shown, decoded by `decode` from the OEM code page.
    pub fn shown(&self, decode: impl Fn(u8) -> char) -> String {
        let mut name = self.name;
        // 0x05 stands for a name that starts with the mark of deleted ones.
        if name[0] == 0x05 {
            name[0] = 0xe5;
        }
        let part = |bytes: &[u8], lower: bool| {
            let len = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last.saturating_add(1));
            let shown = bytes.iter().take(len).map(|byte| decode(*byte));
            if lower { shown.flat_map(char::to_lowercase).collect() } else { shown.collect::<String>() }
        };
        let (base, extension) = name.split_at(8);
        let (mut shown, extension) = (part(base, self.case & 0x08 != 0), part(extension, self.case & 0x10 != 0));
        if !extension.is_empty() {
            shown.push('.');
            shown.push_str(&extension);
        }
        shown
    }
}

/// Gathers the parts of a long name, which come last part first.
#[derive(Clone, Debug, Default)]
pub struct LongName {
    units: Vec<u16>,
    checksum: u8,
    /// The part that must come next; 0 where all are there.
    missing: u8,
}

impl LongName {
    /// Takes a part. One that does not follow the ones before it makes them all orphans.
    pub fn push(&mut self, part: &LongPart) {
        let order = part.order & 0x3f;
        if part.order & 0x40 != 0 && (1..=20).contains(&order) {
            self.units = vec![0; usize::from(order).saturating_mul(13)];
            self.checksum = part.checksum;
            self.missing = order;
        }
        if order == 0 || order != self.missing || part.checksum != self.checksum {
            return self.forget();
        }
        self.missing = order.saturating_sub(1);
        let start = usize::from(self.missing).saturating_mul(13);
        let place = self.units.get_mut(start..start.saturating_add(13)).expect("sized for the first part stored");
        place.copy_from_slice(&part.units);
    }

    /// Drops what was gathered: something else came.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The name of the 8.3 entry that comes behind the parts; `None` where they are not all there or not its own.
    pub fn take(&mut self, entry: &Short) -> Option<Vec<u16>> {
        let name = std::mem::take(self);
        if name.units.is_empty() || name.missing != 0 || name.checksum != entry.checksum() {
            return None;
        }
        let mut units = name.units;
        if let Some(end) = units.iter().position(|unit| *unit == 0) {
            units.truncate(end);
        }
        (!units.is_empty()).then_some(units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &[u8; 11]) -> Short {
        let mut bytes = [0; SLOT];
        bytes[..11].copy_from_slice(name);
        let Slot::Short(short) = Slot::parse(&bytes) else { panic!("a short entry") };
        short
    }

    fn long(order: u8, checksum: u8, text: &str) -> LongPart {
        let mut units = [0xffff; 13];
        for (unit, value) in units.iter_mut().zip(text.encode_utf16().chain([0])) {
            *unit = value;
        }
        LongPart { order, checksum, units }
    }

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        // Made by mtools for "The quick brown.fox".
        assert_eq!(short(b"THEQUI~1FOX").checksum(), 0x07);
    }

    #[test]
    fn short_names_are_shown_with_their_case() {
        let mut entry = short(b"README  TXT");
        assert_eq!(entry.shown(char::from), "README.TXT");
        entry.case = 0x08;
        assert_eq!(entry.shown(char::from), "readme.TXT");
        entry.case = 0x18;
        assert_eq!(entry.shown(char::from), "readme.txt");
        assert_eq!(short(b"A B        ").shown(char::from), "A B");
        assert_eq!(short(b"\x05X      \xe5  ").shown(char::from), "\u{e5}X.\u{e5}");
    }

    #[test]
    fn long_names_are_put_together_from_the_end() {
        let entry = short(b"LONGNA~1TXT");
        let sum = entry.checksum();
        let mut name = LongName::default();
        name.push(&long(0x42, sum, "nother.txt"));
        name.push(&long(0x01, sum, "A long name a"));
        assert_eq!(name.take(&entry), Some("A long name another.txt".encode_utf16().collect()));
        assert_eq!(name.take(&entry), None, "taken once");
    }

    #[test]
    fn orphaned_parts_are_ignored() {
        let entry = short(b"LONGNA~1TXT");
        let sum = entry.checksum();
        let orders: [&[(u8, u8)]; 6] =
            [&[(0x42, 0)], &[(0x01, 0)], &[(0x43, 0), (0x01, 0)], &[(0x42, 0), (0x01, 1)], &[(0x41, 1)], &[(0x7f, 0)]];
        for parts in orders {
            let mut name = LongName::default();
            for (order, wrong) in parts {
                name.push(&long(*order, sum.wrapping_add(*wrong), "text"));
            }
            assert_eq!(name.take(&entry), None, "{parts:?}");
        }
    }
}
