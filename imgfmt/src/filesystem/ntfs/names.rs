//! Names as they are stored, and when two of them are the same.

use std::cmp::Ordering;

use crate::bytes::{le16, le32, le64, u8_at};
use crate::filesystem::ntfs::record::record_number;
use crate::filesystem::utf16;

/// `$I30` in UTF-16: the name of folder indexes.
pub(super) const I30: [u8; 8] = [b'$', 0, b'I', 0, b'3', 0, b'0', 0];

/// The code units of a stored name, without a copy.
pub(super) fn units(bytes: &[u8]) -> impl Iterator<Item = u16> + Clone + '_ {
    bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
}

/// UTF-16 (little-endian bytes) as text, with a sign for what is none.
pub(super) fn to_text(bytes: &[u8]) -> String {
    char::decode_utf16(units(bytes)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A stored name as it is shown.
pub(super) fn to_wtf8(bytes: &[u8]) -> Vec<u8> {
    // Most names are ASCII, and a folder can have a million of them.
    let ascii: Option<Vec<u8>> = units(bytes).map(|unit| u8::try_from(unit).ok().filter(u8::is_ascii)).collect();
    ascii.unwrap_or_else(|| utf16::to_wtf8(&utf16::units(bytes)))
}

/// Says whether a name can stand between two `/` of a path.
pub(super) fn can_be_shown(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

/// $UpCase: the upper-case letter of every code unit.
#[derive(Clone)]
pub(super) struct UpCase {
    table: Vec<u16>,
}

impl std::fmt::Debug for UpCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpCase").finish_non_exhaustive()
    }
}

impl UpCase {
    /// Bytes of the table: 65,536 code units.
    pub(super) const LEN: u64 = 128 << 10;

    /// Takes the content of $UpCase; code units past its end are their own upper case.
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { table: units(bytes).collect() }
    }

    fn upper(&self, unit: u16) -> u16 {
        self.table.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// Compares names without regard to case, as folders are sorted.
    pub(super) fn compare(&self, a: impl Iterator<Item = u16>, b: impl Iterator<Item = u16>) -> Ordering {
        a.map(|unit| self.upper(unit)).cmp(b.map(|unit| self.upper(unit)))
    }
}

/// The 8.3 name of a file that has a long one too. Any other namespace (0 POSIX, 1 Windows, 3 a long name that is an 8.3 one) is a name.
const SHORT: u8 = 2;

/// A $FILE_NAME value, and the key of an entry in a folder.
///
/// What it says of the file besides its name is a copy that may be out of date.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileName<'a> {
    /// Record number of the folder.
    pub(super) parent: u64,
    /// Bytes of the file.
    pub(super) data_size: u64,
    /// `FILE_ATTRIBUTE_*`, and 0x10000000 for a folder.
    pub(super) attributes: u32,
    /// Tag of the reparse point, where the attributes say that there is one; may be missing.
    pub(super) reparse_tag: u32,
    /// Whether it is the 8.3 name of a file that has a long one too.
    pub(super) is_short: bool,
    /// UTF-16, little-endian bytes.
    pub(super) name: &'a [u8],
}

impl<'a> FileName<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let len = usize::from(u8_at(value, 0x40)?).checked_mul(2)?;
        Some(Self {
            parent: record_number(le64(value, 0)?),
            data_size: le64(value, 0x30)?,
            attributes: le32(value, 0x38)?,
            reparse_tag: le32(value, 0x3c)?,
            is_short: u8_at(value, 0x41)? == SHORT,
            name: value.get(0x42..0x42_usize.checked_add(len)?)?,
        })
    }
}

/// Code units of a name for comparing.
pub(super) fn stored(name: &str) -> Vec<u8> {
    name.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Reads the 16-bit field of a structure in which offsets and lengths count bytes.
pub(super) fn field(bytes: &[u8], at: usize) -> Option<usize> {
    le16(bytes, at).map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_that_of_the_table() {
        let mut table: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (lower, upper) in (b'a'..=b'z').zip(b'A'..) {
            table[usize::from(lower) * 2] = upper;
        }
        let upcase = UpCase::new(&table);
        let compare = |a: &str, b: &str| upcase.compare(a.encode_utf16(), b.encode_utf16());
        assert_eq!(compare("ReadMe", "README"), Ordering::Equal);
        assert_eq!(compare("a_", "AB"), Ordering::Greater);
        assert_eq!(compare("a", "AB"), Ordering::Less);
        assert_eq!(compare("\u{e4}", "\u{c4}"), Ordering::Greater);
    }
}
