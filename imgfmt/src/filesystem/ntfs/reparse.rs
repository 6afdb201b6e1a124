//! Reparse points: links, special files of WSL, and files whose content is kept in a way of its own.
//!
//! Source: [MS-FSCC] 2.1.2. A tag that is not named here leaves a file or folder as it is; its reparse data are an extended attribute.

use crate::bytes::{le16, le32};
use crate::filesystem::ntfs::names::{field, stored, to_wtf8};

/// Longest reparse data: that of Windows.
pub(super) const MAX_LEN: u64 = 16 << 10;

const MOUNT_POINT: u32 = 0xa000_0003;
const SYMLINK: u32 = 0xa000_000c;
/// System compression, or a file in a WIM.
const WOF: u32 = 0x8000_0017;
const WSL_SYMLINK: u32 = 0xa000_001d;
const WSL_SOCKET: u32 = 0x8000_0023;
const WSL_FIFO: u32 = 0x8000_0024;
const WSL_CHARACTER_DEVICE: u32 = 0x8000_0025;
const WSL_BLOCK_DEVICE: u32 = 0x8000_0026;

/// `FILE_ATTRIBUTE_OFFLINE`, `_RECALL_ON_OPEN` and `_RECALL_ON_DATA_ACCESS`: the content must be fetched first.
const NOT_LOCAL: u32 = 0x0044_1000;

/// What a reparse point makes of its file, as far as the tag alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A symbolic link or a junction.
    Link,
    Socket,
    Fifo,
    CharacterDevice,
    BlockDevice,
    /// A file or folder still.
    Nothing,
}

/// What the tag of a reparse point makes of its file.
pub(super) fn meaning(tag: u32) -> Meaning {
    match tag {
        MOUNT_POINT | SYMLINK | WSL_SYMLINK => Meaning::Link,
        WSL_SOCKET => Meaning::Socket,
        WSL_FIFO => Meaning::Fifo,
        WSL_CHARACTER_DEVICE => Meaning::CharacterDevice,
        WSL_BLOCK_DEVICE => Meaning::BlockDevice,
        _ => Meaning::Nothing,
    }
}

/// How system compression packed a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// XPRESS with Huffman codes, in chunks of so many bytes.
    Xpress(usize),
    /// LZX in chunks of 32 KiB.
    Lzx,
}

/// Where the content of a file with a reparse point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its unnamed stream, as that of any file.
    Stream,
    /// In the stream `WofCompressedData`.
    Packed(Packing),
    /// Not in the file; by whose doing.
    Elsewhere(&'static str),
}

/// The data of a reparse point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reparse<'a> {
    /// What kind it is.
    pub(super) tag: u32,
    /// What that kind needs to know.
    data: &'a [u8],
}

impl<'a> Reparse<'a> {
    /// Parses the value of $REPARSE_POINT.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let len = field(value, 4)?;
        Some(Self { tag: le32(value, 0)?, data: value.get(8..8_usize.checked_add(len)?)? })
    }

    /// Where the content is; `attributes` are the file's `FILE_ATTRIBUTE_*`.
    pub(super) fn place(&self, attributes: u32) -> Place {
        let if_not_local = |whose| if attributes & NOT_LOCAL != 0 { Place::Elsewhere(whose) } else { Place::Stream };
        match self.tag {
            WOF => self.packing(),
            0x8000_0013 => Place::Elsewhere("its content is deduplicated by Windows Server"),
            0x8000_0007 => Place::Elsewhere("its content is in the single instance store"),
            0x8000_0008 => Place::Elsewhere("its content is in a mounted WIM file"),
            0x8000_0005 => Place::Elsewhere("its content is on another disk of a drive extender"),
            0xc000_0014 => Place::Elsewhere("its content is streamed by an application package"),
            0x8000_0018 | 0x9000_1018 => Place::Elsewhere("its content is in another layer of a Windows container"),
            0xc000_0004 | 0x8000_0006 => if_not_local("its content was moved to another storage tier"),
            0x8000_001e => if_not_local("its content is in Azure File Sync"),
            0x9000_001c => if_not_local("its content is projected by a program"),
            0x8000_0015 | 0x8000_0021 => if_not_local("its content is in OneDrive"),
            // One of sixteen cloud providers.
            tag if tag & 0xffff_0fff == 0x9000_001a => if_not_local("its content is in the cloud"),
            _ => Place::Stream,
        }
    }

    fn packing(&self) -> Place {
        // Version and provider, then version and algorithm of the file provider.
        match (le32(self.data, 0), le32(self.data, 4), le32(self.data, 8), le32(self.data, 12)) {
            (Some(1), Some(2), Some(1), Some(0)) => Place::Packed(Packing::Xpress(4096)),
            (Some(1), Some(2), Some(1), Some(1)) => Place::Packed(Packing::Lzx),
            (Some(1), Some(2), Some(1), Some(2)) => Place::Packed(Packing::Xpress(8192)),
            (Some(1), Some(2), Some(1), Some(3)) => Place::Packed(Packing::Xpress(16384)),
            (Some(1), Some(1), ..) => Place::Elsewhere("its content is in a WIM file (WIMBoot)"),
            _ => Place::Elsewhere("its content is kept by an unknown version of the Windows Overlay Filter"),
        }
    }

    /// Where a link points; `None` where its data are damaged.
    pub(super) fn target(&self) -> Option<Vec<u8>> {
        // Symbolic links have a field of flags (1: relative) more than junctions; how the target starts tells as much.
        let path_buffer: usize = match self.tag {
            MOUNT_POINT => 8,
            SYMLINK => 12,
            // A version of 2, then the target as Linux has it.
            WSL_SYMLINK if le32(self.data, 0) == Some(2) => {
                let target = self.data.get(4..)?;
                return (!target.is_empty() && !target.contains(&0)).then(|| target.to_vec());
            }
            _ => return None,
        };
        let start = path_buffer.checked_add(field(self.data, 0)?)?;
        let target = self.data.get(start..start.checked_add(field(self.data, 2)?)?)?;
        if target.is_empty() || target.len() % 2 != 0 || target.chunks_exact(2).any(|unit| unit == [0, 0]) {
            return None;
        }
        Some(shown_target(target))
    }
}

/// A path of Windows (UTF-16) with `/` between names, and without the name by which the object manager knows all drives:
/// `\??\C:\x` is `C:/x`, `\??\UNC\server\share` is `//server/share`, any other object (a volume by its id) is below `//?/`.
fn shown_target(target: &[u8]) -> Vec<u8> {
    let slashes = |bytes: &[u8]| {
        let mut bytes = to_wtf8(bytes);
        bytes.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
        bytes
    };
    let Some(object) = target.strip_prefix(&stored("\\??\\")[..]) else { return slashes(target) };
    let unc = stored("UNC\\");
    if let Some(start) = object.get(..unc.len())
        && start.eq_ignore_ascii_case(&unc)
    {
        return [b"//".to_vec(), slashes(object.get(unc.len()..).unwrap_or_default())].concat();
    }
    let is_drive = le16(object, 2) == Some(u16::from(b':'));
    let prefix = if is_drive { &b""[..] } else { &b"//?/"[..] };
    [prefix.to_vec(), slashes(object)].concat()
}

/// Magic numbers of Interix files: a character device, a block device, a symbolic link.
const INTERIX: [(&[u8; 8], Meaning); 3] =
    [(b"IntxCHR\0", Meaning::CharacterDevice), (b"IntxBLK\0", Meaning::BlockDevice), (b"IntxLNK\x01", Meaning::Link)];
/// Longest content of an Interix file: the magic number and a path of Linux in UTF-16.
pub(super) const MAX_INTERIX: u64 = 8 + 2 * 4096;

/// What a system file without a reparse point is by its content: ntfs-3g and Services for Unix keep devices and links so.
///
/// Their named pipes and sockets (system files of 0 and 1 bytes) are files here: nothing tells them from files of Windows.
pub(super) fn interix_meaning(content: &[u8]) -> Meaning {
    let found = INTERIX.iter().find(|(magic, _)| content.starts_with(&magic[..]));
    match found {
        Some((_, Meaning::Link)) if content.len() > 8 && content.len().is_multiple_of(2) => Meaning::Link,
        Some((_, device @ (Meaning::CharacterDevice | Meaning::BlockDevice))) if content.len() == 24 => *device,
        _ => Meaning::Nothing,
    }
}

/// Where the Interix link with this content points.
pub(super) fn interix_target(content: &[u8]) -> Option<Vec<u8>> {
    content.get(8..).map(to_wtf8).filter(|target| !target.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(tag: u32, target: &str) -> Vec<u8> {
        let target = stored(target);
        let len = u16::try_from(target.len()).unwrap();
        let mut data: Vec<u8> = [0, len, len, 0].into_iter().flat_map(u16::to_le_bytes).collect();
        if tag == SYMLINK {
            data.extend([0; 4]);
        }
        data.extend(target);
        point(tag, &data)
    }

    fn point(tag: u32, data: &[u8]) -> Vec<u8> {
        let mut raw = tag.to_le_bytes().to_vec();
        raw.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        raw.extend(data);
        raw
    }

    #[test]
    fn targets_are_shown_with_slashes() {
        let cases = [
            (SYMLINK, r"..\a\b", "../a/b"),
            (SYMLINK, r"\rooted", "/rooted"),
            (SYMLINK, r"\??\D:\x\y", "D:/x/y"),
            (MOUNT_POINT, r"\??\C:\many", "C:/many"),
            (SYMLINK, r"\??\UNC\server\share\x", "//server/share/x"),
            (MOUNT_POINT, r"\??\Volume{01234567-89ab}\", "//?/Volume{01234567-89ab}/"),
        ];
        for (tag, stored, shown) in cases {
            let raw = link(tag, stored);
            let reparse = Reparse::parse(&raw).unwrap();
            assert_eq!(meaning(reparse.tag), Meaning::Link);
            assert_eq!(String::from_utf8(reparse.target().unwrap()).unwrap(), shown);
        }
        let wsl = point(WSL_SYMLINK, b"\x02\0\0\0/etc/passwd");
        assert_eq!(Reparse::parse(&wsl).unwrap().target().unwrap(), b"/etc/passwd");
    }

    #[test]
    fn links_that_lie_have_no_target() {
        let mut raw = link(SYMLINK, "abc");
        raw[10] = 200;
        assert_eq!(Reparse::parse(&raw).unwrap().target(), None);
        assert_eq!(Reparse::parse(&link(SYMLINK, "")).unwrap().target(), None);
        assert_eq!(Reparse::parse(&link(SYMLINK, "a\0b")).unwrap().target(), None);
        let mut raw = link(SYMLINK, "abc");
        raw[4] = 200;
        assert!(Reparse::parse(&raw).is_none());
        assert!(Reparse::parse(&raw[..7]).is_none());
    }

    #[test]
    fn content_is_where_the_tag_says() {
        let wof = |provider: u8, algorithm: u8| {
            let raw = point(WOF, &[1, 0, 0, 0, provider, 0, 0, 0, 1, 0, 0, 0, algorithm, 0, 0, 0]);
            Reparse::parse(&raw).unwrap().place(0)
        };
        assert_eq!(wof(2, 1), Place::Packed(Packing::Lzx));
        assert_eq!(wof(2, 3), Place::Packed(Packing::Xpress(16384)));
        assert!(matches!(wof(1, 0), Place::Elsewhere(_)) && matches!(wof(2, 4), Place::Elsewhere(_)));
        let cloud = point(0x9000_601a, &[]);
        let cloud = Reparse::parse(&cloud).unwrap();
        assert_eq!(cloud.place(0x20), Place::Stream);
        assert!(matches!(cloud.place(0x0040_0020), Place::Elsewhere(_)));
    }
}
