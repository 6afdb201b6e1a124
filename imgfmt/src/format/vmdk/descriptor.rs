//! The descriptor: a text of `key=value` lines and extent lines.

use std::str::FromStr;

use uuid::Uuid;

use crate::format::identity::Identity;
use crate::format::vmdk::layout::SECTOR;

/// Extents that a disk may have: 8 TiB in pieces of 2 GB.
pub(super) const MAX_EXTENTS: usize = 4096;
/// `parentCID` of a disk without a parent.
const NO_PARENT: u32 = u32::MAX;

/// Longest disk of a flat extent, in bytes: programs count its sectors in signed numbers of bytes.
pub(crate) const MAX_FLAT: u64 = 1 << 62;
/// Heads and sectors in a track of the geometry of an IDE disk, and the most cylinders that one can have.
const IDE: (u64, u64, u64) = (16, 63, 16_383);

/// Which kind of disk a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One flat extent in a file of its own.
    MonolithicFlat,
    /// One sparse extent, with the descriptor inside.
    MonolithicSparse,
    /// The same, compressed, in the order in which it is read.
    StreamOptimized,
}

/// The descriptor of a disk of `len` bytes (a multiple of 512) with one extent in the file `extent`.
pub(crate) fn descriptor(kind: Kind, len: u64, extent: &str, identity: &Identity) -> String {
    let sectors = len / SECTOR;
    let (heads, per_track, most) = IDE;
    let cylinders = sectors.checked_div(heads.saturating_mul(per_track)).unwrap_or(0).clamp(1, most);
    let (create_type, access, kind) = match kind {
        Kind::MonolithicFlat => ("monolithicFlat", "RW", "FLAT"),
        Kind::MonolithicSparse => ("monolithicSparse", "RW", "SPARSE"),
        Kind::StreamOptimized => ("streamOptimized", "RDONLY", "SPARSE"),
    };
    let offset = if kind == "FLAT" { " 0" } else { "" };
    // The two highest identifiers are taken: no parent, and not set.
    let cid = identity.number("content").min(u32::MAX - 2);
    // VirtualBox writes those of the four identifiers that it misses into the descriptor; so none is missing.
    let (image, modification, none) = (identity.uuid("disk"), identity.uuid("modification"), Uuid::nil());
    format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         encoding=\"UTF-8\"\n\
         CID={cid:08x}\n\
         parentCID={NO_PARENT:08x}\n\
         createType=\"{create_type}\"\n\
         \n\
         # Extent description\n\
         {access} {sectors} {kind} \"{extent}\"{offset}\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.virtualHWVersion = \"4\"\n\
         ddb.adapterType = \"ide\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{heads}\"\n\
         ddb.geometry.sectors = \"{per_track}\"\n\
         ddb.uuid.image = \"{image}\"\n\
         ddb.uuid.modification = \"{modification}\"\n\
         ddb.uuid.parent = \"{none}\"\n\
         ddb.uuid.parentmodification = \"{none}\"\n"
    )
}

/// What a descriptor says. Names are untrusted bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// "monolithicSparse" and the like.
    pub(super) create_type: String,
    /// Changes whenever the disk is changed.
    pub(super) cid: u32,
    /// `cid` of the parent when this was made over it.
    pub(super) parent_cid: Option<u32>,
    /// Where the parent was then.
    pub(super) parent_hint: Vec<u8>,
    /// In the order of the disk.
    pub(super) extents: Vec<ExtentLine>,
}

/// An extent line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExtentLine {
    /// Sectors of it.
    pub(super) sectors: u64,
    /// "FLAT", "SPARSE", "ZERO" and the like.
    pub(super) kind: String,
    /// The file.
    pub(super) name: Vec<u8>,
    /// First sector in the file, of flat extents.
    pub(super) offset: u64,
}

/// Parses a descriptor, which may be followed by zeros. `Err` is the reason.
pub(super) fn parse(text: &[u8]) -> Result<Descriptor, &'static str> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut descriptor = Descriptor::default();
    let mut parent_cid = NO_PARENT;
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.starts_with(b"#") || line.is_empty() {
            continue;
        }
        if ["RW ", "RDONLY ", "NOACCESS "].iter().any(|access| line.starts_with(access.as_bytes())) {
            if descriptor.extents.len() >= MAX_EXTENTS {
                return Err("it lists more than 4096 extents");
            }
            descriptor.extents.push(extent_line(line).ok_or("an extent line makes no sense")?);
            continue;
        }
        let Some((key, value)) = split_at(line, b'=') else { continue };
        let value = value.trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        let cid = || u32::from_str_radix(&text(), 16).map_err(|_| "a content identifier is no number");
        match key.trim_ascii() {
            b"createType" => descriptor.create_type = text(),
            b"CID" => descriptor.cid = cid()?,
            b"parentCID" => parent_cid = cid()?,
            b"parentFileNameHint" => descriptor.parent_hint = value.to_vec(),
            _ => {}
        }
    }
    if descriptor.extents.is_empty() {
        return Err("it lists no extent");
    }
    descriptor.parent_cid = (parent_cid != NO_PARENT).then_some(parent_cid);
    Ok(descriptor)
}

fn split_at(line: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == separator)?;
    Some((line.get(..at)?, line.get(at.checked_add(1)?..)?))
}

/// `RW 4192256 SPARSE "name.vmdk"`, `RW 16 FLAT "name" 0`, `RW 63 ZERO`.
fn extent_line(line: &[u8]) -> Option<ExtentLine> {
    // Names are quoted and may hold blanks, so the quotes split the line first.
    let mut quoted = line.split(|byte| *byte == b'"');
    let head = std::str::from_utf8(quoted.next()?).ok()?;
    let name = quoted.next().unwrap_or_default().to_vec();
    let tail = std::str::from_utf8(quoted.next().unwrap_or_default()).ok()?;
    let mut words = head.split_ascii_whitespace();
    let _access = words.next()?;
    let sectors = number(words.next()?)?;
    let kind = words.next()?.to_owned();
    let offset = tail.split_ascii_whitespace().next().map_or(Some(0), number)?;
    (sectors > 0).then_some(ExtentLine { sectors, kind, name, offset })
}

fn number(word: &str) -> Option<u64> {
    u64::from_str(word).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_extents_are_found_among_comments() {
        let text = b"# Disk DescriptorFile\r\nversion=1\r\nCID=fffffffe\nparentCID = 1a2b3c4d\n\ncreateType=\"custom\"\n\
            parentFileNameHint=\"C:\\a b\\base.vmdk\"\n# Extent description\nRW 63 ZERO\nRW 4096 FLAT \"a \xff flat.vmdk\" 128\n\
            RDONLY 8 SPARSE \"s.vmdk\"\nddb.adapterType = \"ide\"\n\0\0garbage=\"";
        let descriptor = parse(text).unwrap();
        assert_eq!(descriptor.create_type, "custom");
        assert_eq!((descriptor.cid, descriptor.parent_cid), (0xffff_fffe, Some(0x1a2b_3c4d)));
        assert_eq!(descriptor.parent_hint, br"C:\a b\base.vmdk");
        let extents: Vec<_> =
            descriptor.extents.iter().map(|e| (e.sectors, e.kind.as_str(), &e.name[..], e.offset)).collect();
        assert_eq!(
            extents,
            [(63, "ZERO", &b""[..], 0), (4096, "FLAT", b"a \xff flat.vmdk", 128), (8, "SPARSE", b"s.vmdk", 0)]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "CID=1\n",
            "RW x FLAT \"a\" 0\n",
            "RW 0 FLAT \"a\" 0\n",
            "RW 1\n",
            "RW 1 FLAT \"a\" -1\n",
            "CID=zz\nRW 1 ZERO",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse("RW 1 ZERO\n".repeat(4096).as_bytes()).is_ok());
        assert!(parse("RW 1 ZERO\n".repeat(4097).as_bytes()).is_err());
    }
}
