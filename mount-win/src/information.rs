//! What Windows is told of a file: attributes, times, lengths, number.
//!
//! Source: `BY_HANDLE_FILE_INFORMATION` (fileapi.h), `WIN32_FIND_DATAW` (minwinbase.h); [MS-FSCC] 2.6 (attributes), 2.1.2.1 (tags).

use imgfmt::filesystem::files::{Attributes, NodeId, NodeKind};

use crate::times::file_times;

/// `FILE_ATTRIBUTE_READONLY`.
pub const READ_ONLY: u32 = 0x0001;
/// `FILE_ATTRIBUTE_TEMPORARY`.
pub const TEMPORARY: u32 = 0x0100;
/// `FILE_ATTRIBUTE_SYSTEM`.
const SYSTEM: u32 = 0x0004;
/// `FILE_ATTRIBUTE_DIRECTORY`.
pub const DIRECTORY: u32 = 0x0010;
/// `FILE_ATTRIBUTE_NORMAL`: nothing else is to be said.
const NORMAL: u32 = 0x0080;
/// `FILE_ATTRIBUTE_REPARSE_POINT`.
pub const REPARSE_POINT: u32 = 0x0400;
/// Attributes of the image that are shown: read-only, hidden, system, archive, not content-indexed.
///
/// Compressed, sparse, encrypted, offline and the like say how the bytes were kept there; here they are plain, and a program that
/// believed otherwise would ask for what there is not (a container file that is said to be compressed or sparse is refused by hypervisors).
const SHOWN: u32 = 0x0001 | 0x0002 | 0x0004 | 0x0020 | 0x2000;
/// `IO_REPARSE_TAG_SYMLINK`.
const TAG_SYMLINK: u32 = 0xa000_000c;

/// What a symbolic link leads to, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No link.
    None,
    /// A link of the tree itself to a folder: shown as that folder.
    Plain,
    /// A link to a folder: programs that walk a tree should not follow it, since it may lead back.
    Folder,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Information {
    /// `FILE_ATTRIBUTE_*`.
    pub attributes: u32,
    /// Its tag, where it is a reparse point.
    pub tag: u32,
    /// Creation, as [`file_time`](crate::times::file_time) counts.
    pub created: u64,
    /// Last access.
    pub accessed: u64,
    /// Last change of the content.
    pub written: u64,
    /// Bytes of the content; 0 for a folder.
    pub len: u64,
    /// Hard links.
    pub links: u32,
    /// The number of the file, the same for as long as the drive is there.
    pub index: u64,
}

impl Information {
    /// What is known of a node. `len` is what can be read of it.
    pub fn new(node: NodeId, attributes: &Attributes, len: u64, link: Link) -> Self {
        let is_folder = attributes.kind == NodeKind::Folder;
        let mut bits = attributes.dos_attributes.unwrap_or(0) & SHOWN;
        if is_folder {
            bits |= DIRECTORY;
        }
        let is_special = !matches!(attributes.kind, NodeKind::File | NodeKind::Folder | NodeKind::Symlink);
        if is_special {
            bits |= SYSTEM;
        }
        let tag = if link == Link::Folder { TAG_SYMLINK } else { 0 };
        if tag != 0 {
            bits |= REPARSE_POINT;
        }
        let [created, accessed, written] = file_times(attributes);
        Self {
            attributes: if bits == 0 { NORMAL } else { bits },
            tag,
            created,
            accessed,
            written,
            len: if is_folder { 0 } else { len },
            links: attributes.links,
            index: node.0,
        }
    }

    /// What is known of a named stream, given what is known of its file.
    pub fn of_stream(self, len: u64) -> Self {
        let bits = self.attributes & !(DIRECTORY | REPARSE_POINT);
        Self { attributes: if bits == 0 { NORMAL } else { bits }, tag: 0, len, ..self }
    }

    /// What is known of a node that cannot be looked at: its kind.
    pub fn unknown(node: NodeId, kind: NodeKind) -> Self {
        let attributes = if kind == NodeKind::Folder { DIRECTORY } else { NORMAL };
        Self { attributes, links: 1, index: node.0, ..Self::default() }
    }

    /// Says whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Its name as it is shown; at most [`MAX_UNITS`](crate::names::MAX_UNITS).
    pub name: Vec<u16>,
    /// What is known of it.
    pub information: Information,
}

/// A stream of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundStream {
    /// Its name and type: `::$DATA`, `:name:$DATA`.
    pub name: Vec<u16>,
    /// Its bytes.
    pub len: u64,
}

/// Says whether a stream's name can be written into a path.
pub fn is_stream_name(units: &[u16]) -> bool {
    // NUL, slash, colon, backslash.
    !units.is_empty() && units.len() <= 255 && !units.iter().any(|unit| matches!(*unit, 0 | 0x2f | 0x3a | 0x5c))
}

#[cfg(test)]
mod tests {
    use imgfmt::filesystem::files::Time;

    use super::*;

    fn attributes(kind: NodeKind, dos: Option<u32>) -> Attributes {
        let time = Some(Time { seconds: 1_600_000_000, nanoseconds: 0 });
        Attributes {
            kind,
            len: 5,
            allocated: 4096,
            links: 2,
            permissions: Some(0o644),
            uid: None,
            gid: None,
            modified: time,
            accessed: None,
            changed: None,
            created: None,
            dos_attributes: dos,
        }
    }

    #[test]
    fn attributes_say_what_is_true_here() {
        let bits = |kind, dos, link| Information::new(NodeId(7), &attributes(kind, dos), 5, link).attributes;
        assert_eq!(bits(NodeKind::File, None, Link::None), 0x80);
        // Archive, compressed, sparse, encrypted, offline, recall on data access.
        assert_eq!(bits(NodeKind::File, Some(0x0040_5a20), Link::None), 0x20);
        assert_eq!(bits(NodeKind::File, Some(0x80), Link::None), 0x80);
        assert_eq!(bits(NodeKind::File, Some(0x27), Link::None), 0x27);
        assert_eq!(bits(NodeKind::Folder, Some(0x1000_0016), Link::None), 0x16);
        assert_eq!(bits(NodeKind::Folder, None, Link::Folder), 0x410);
        assert_eq!(bits(NodeKind::Fifo, None, Link::None), 0x04);
    }

    #[test]
    fn a_stream_of_a_folder_is_a_file_and_missing_times_are_the_nearest() {
        let folder = Information::new(NodeId(7), &attributes(NodeKind::Folder, None), 5, Link::Folder);
        assert_eq!((folder.len, folder.links, folder.index), (0, 2, 7));
        assert_eq!((folder.created, folder.accessed), (folder.written, folder.written));
        let stream = folder.of_stream(9);
        assert_eq!((stream.attributes, stream.tag, stream.len), (0x80, 0, 9));
    }
}
