//! What the drive says of itself.
//!
//! Source: `GetVolumeInformationW` (fileapi.h); [MS-FSCC] 2.5.1 (flags); the limits of names are those of Dokan's header.

use imgfmt::filesystem::files::Space;

use crate::names::MAX_UNITS;

/// Longest label, in UTF-16 units: what Windows' own components expect.
const MAX_LABEL: usize = 32;
/// `FILE_CASE_PRESERVED_NAMES`, `FILE_UNICODE_ON_DISK`, `FILE_PERSISTENT_ACLS`, `FILE_NAMED_STREAMS`.
const FLAGS: u32 = 0x0002 | 0x0004 | 0x0008 | 0x0004_0000;
/// `FILE_READ_ONLY_VOLUME`.
const READ_ONLY: u32 = 0x0008_0000;

/// What `GetVolumeInformation` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInformation {
    /// The label.
    pub label: Vec<u16>,
    /// The serial number.
    pub serial: u32,
    /// Longest name, in UTF-16 units.
    pub max_name: u32,
    /// `FILE_*` flags.
    pub flags: u32,
    /// The name of the filesystem. Windows grants streams and security only to names that it knows.
    pub filesystem: &'static str,
}

impl VolumeInformation {
    /// What a drive with this label says. `takes_writes` is true where some of its files do.
    pub fn new(label: &str, serial: u32, takes_writes: bool) -> Self {
        let shown = |c: &char| !c.is_control() && !r#""*/:<>?\|"#.contains(*c);
        let mut units = Vec::new();
        for c in label.chars().filter(shown) {
            if units.len().saturating_add(c.len_utf16()) > MAX_LABEL {
                break;
            }
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        }
        let max_name = u32::try_from(MAX_UNITS).unwrap_or(255);
        let flags = if takes_writes { FLAGS } else { FLAGS | READ_ONLY };
        Self { label: units, serial, max_name, flags, filesystem: "NTFS" }
    }
}

/// Bytes that the caller may still use (none: nothing can be written), of all, and that are free.
pub fn free_space(space: &Space) -> [u64; 3] {
    [0, space.total.max(space.free), space.free]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit() {
        let label = |text: &str| String::from_utf16(&VolumeInformation::new(text, 7, false).label).unwrap();
        assert_eq!(label("laptop.hik@latest"), "laptop.hik@latest");
        assert_eq!(label("C:\\a\tb"), "Cab");
        assert_eq!(label(&"\u{1f600}".repeat(40)), "\u{1f600}".repeat(16));
        assert_eq!(free_space(&Space { total: 10, free: 4, ..Space::default() }), [0, 10, 4]);
    }
}
