//! $EA: extended attributes of OS/2, in which WSL keeps owners, modes and device numbers.
//!
//! Source: [MS-FSCC] 2.4.16 FileFullEaInformation.

use crate::bytes::{le32, u8_at};
use crate::filesystem::ntfs::names::field;

/// Longest value of $EA: 64 KiB, as Windows allows.
pub(super) const MAX_LEN: u64 = 64 << 10;

/// A name and its value.
type Named<'a> = (&'a [u8], &'a [u8]);

/// Parses the value of $EA into names (ASCII, in capitals) and values, as far as it is whole.
pub(super) fn parse(mut value: &[u8]) -> Vec<Named<'_>> {
    let mut entries = Vec::new();
    while let Some((entry, next)) = parse_entry(value) {
        entries.push(entry);
        // The last one says 0, and every other one at least its header.
        if next < 8 {
            break;
        }
        value = value.get(next..).unwrap_or_default();
    }
    entries
}

/// The first entry, and how far the next one is.
fn parse_entry(raw: &[u8]) -> Option<(Named<'_>, usize)> {
    let next = usize::try_from(le32(raw, 0)?).ok()?;
    let name_end = 8_usize.checked_add(usize::from(u8_at(raw, 5)?))?;
    // A NUL follows the name.
    let start = name_end.checked_add(1)?;
    let value = raw.get(start..start.checked_add(field(raw, 6)?)?)?;
    Some(((raw.get(8..name_end)?, value), next))
}

/// What WSL says of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wsl {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mode: Option<u32>,
    /// Major and minor number.
    pub(super) device: Option<(u32, u32)>,
}

impl Wsl {
    /// Picks it from the value of $EA.
    pub(super) fn parse(value: &[u8]) -> Self {
        let mut wsl = Self::default();
        for (name, value) in parse(value) {
            match name {
                b"$LXUID" => wsl.uid = le32(value, 0),
                b"$LXGID" => wsl.gid = le32(value, 0),
                b"$LXMOD" => wsl.mode = le32(value, 0),
                b"$LXDEV" => wsl.device = le32(value, 0).zip(le32(value, 4)),
                _ => {}
            }
        }
        wsl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(next: u32, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut raw = next.to_le_bytes().to_vec();
        raw.extend([0, u8::try_from(name.len()).unwrap()]);
        raw.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        raw.extend(name);
        raw.push(0);
        raw.extend(value);
        raw.resize(raw.len().next_multiple_of(4), 0);
        raw
    }

    #[test]
    fn entries_follow_each_other() {
        let mut raw = entry(20, b"$LXUID", &1000_u32.to_le_bytes());
        raw.extend(entry(0, b"$LXDEV", &[8, 0, 0, 0, 1, 0, 0, 0]));
        let wsl = Wsl::parse(&raw);
        assert_eq!((wsl.uid, wsl.gid, wsl.device), (Some(1000), None, Some((8, 1))));
        assert_eq!(parse(&raw).len(), 2);
        raw[20 + 6] = 200;
        assert_eq!(parse(&raw).len(), 1, "what is damaged ends the list");
        raw[0] = 4;
        assert_eq!(parse(&raw).len(), 1, "no step that is shorter than an entry");
    }
}
