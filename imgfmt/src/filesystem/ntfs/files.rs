//! Files: [`FileSystem`] on NTFS.
//!
//! What a front sees:
//!
//! - A node's id is its file reference: MFT record number (32 bits, as many as Windows has) and above it 14 bits of the sequence number, so
//!   that it stays below 2^46. A reference to a record that was used again is [`Error::NotFound`], never another file. A record number alone
//!   is taken too.
//! - System files (`$MFT` and the others below record 16) are hidden in listings, as ntfs-3g hides them; looking them up by name works.
//! - 8.3 names of files that have a long name are not listed; looking them up works.
//! - Names that differ in case alone are different files where a folder holds both; looking up prefers the exact one.
//! - There are no permissions, owners and groups but those that WSL left.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use crate::bytes::{le32, le64};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::filesystem::files::{
    Attributes, Content, Entry, FileSystem, NodeId, NodeKind, Space, StreamEntry, Time, Xattr,
};
use crate::filesystem::ntfs::attribute::{File, FileAttribute, Value, Want};
use crate::filesystem::ntfs::ea::{self, Wsl};
use crate::filesystem::ntfs::index::{Index, IndexEntry};
use crate::filesystem::ntfs::names::{FileName, I30, UpCase, can_be_shown, stored, to_wtf8, units};
use crate::filesystem::ntfs::record::{attribute_type, record_number, sequence_number};
use crate::filesystem::ntfs::reparse::{self, Meaning, Place, Reparse};
use crate::filesystem::ntfs::security::Secure;
use crate::filesystem::ntfs::units::{Packed, wide};
use crate::filesystem::ntfs::volume::{Volume, system_file};
use crate::filesystem::ntfs::wof::{self, Wof};
use crate::filesystem::ntfs::{content, xattrs};
use crate::filesystem::utf16::from_wtf8;
use crate::filesystem::{Summary, UsedBlocks};

/// `FILE_ATTRIBUTE_HIDDEN`.
const HIDDEN: u32 = 0x2;
/// `FILE_ATTRIBUTE_SYSTEM`.
const SYSTEM: u32 = 0x4;
/// `FILE_ATTRIBUTE_DIRECTORY`.
const DIRECTORY: u32 = 0x10;
/// `FILE_ATTRIBUTE_REPARSE_POINT`.
const REPARSE_POINT: u32 = 0x400;
/// Set for a folder in a $FILE_NAME.
const HAS_INDEX: u32 = 0x1000_0000;
/// The bits of `FILE_ATTRIBUTE_*` that Windows shows: above are copies of what the record says.
const SHOWN: u32 = 0x0fff_ffff;

/// The files of a volume.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) volume: Arc<Volume>,
    root: NodeId,
    /// `None` where $UpCase is damaged: names are then found as they are stored, without the order of folders.
    upcase: Option<UpCase>,
    secure: OnceLock<Option<Secure>>,
    space: OnceLock<Space>,
}

/// Opens the files of the volume in a partition.
pub(super) fn open(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn FileSystem>>> {
    let Some(volume) = Volume::open(partition)? else { return Ok(None) };
    let root = volume.file(system_file::ROOT, &|_| Want::Nothing)?;
    let root = node_id(root.number | u64::from(root.sequence) << 48);
    let upcase = match volume.value(system_file::UPCASE, attribute_type::DATA, &[]) {
        Ok(Some(table)) if wide(table.len()) == UpCase::LEN => Some(UpCase::new(&table)),
        Ok(_) => None,
        Err(Error::Corrupt { .. } | Error::Bad { .. }) => None,
        Err(other) => return Err(other),
    };
    let (secure, space) = (OnceLock::new(), OnceLock::new());
    Ok(Some(Box::new(Files { volume: Arc::new(volume), root, upcase, secure, space })))
}

/// What a file's own attributes tell of it.
pub(super) struct Node {
    pub(super) file: File,
    /// `FILE_ATTRIBUTE_*`, with that of a folder.
    pub(super) dos_attributes: u32,
    /// Value of $REPARSE_POINT.
    pub(super) reparse: Option<Vec<u8>>,
    /// Value of $EA.
    pub(super) ea: Option<Vec<u8>>,
    /// Content of a small system file without a reparse point.
    interix: Option<Vec<u8>>,
}

impl Node {
    fn reparse(&self) -> Option<Reparse<'_>> {
        self.reparse.as_deref().and_then(Reparse::parse)
    }

    fn meaning(&self) -> Meaning {
        match (&self.reparse, &self.interix) {
            (Some(_), _) => self.reparse().map_or(Meaning::Nothing, |reparse| reparse::meaning(reparse.tag)),
            (None, Some(content)) => reparse::interix_meaning(content),
            (None, None) => Meaning::Nothing,
        }
    }

    fn kind(&self) -> NodeKind {
        let device = || match &self.interix {
            Some(content) => {
                let number = |at| le64(content, at).and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
                (number(8), number(16))
            }
            None => self.ea.as_deref().and_then(|ea| Wsl::parse(ea).device).unwrap_or_default(),
        };
        match self.meaning() {
            Meaning::Link => NodeKind::Symlink,
            Meaning::Socket => NodeKind::Socket,
            Meaning::Fifo => NodeKind::Fifo,
            Meaning::CharacterDevice => {
                let (major, minor) = device();
                NodeKind::CharacterDevice { major, minor }
            }
            Meaning::BlockDevice => {
                let (major, minor) = device();
                NodeKind::BlockDevice { major, minor }
            }
            Meaning::Nothing if self.file.is_folder => NodeKind::Folder,
            Meaning::Nothing => NodeKind::File,
        }
    }

    fn target(&self) -> Option<Vec<u8>> {
        match &self.interix {
            Some(content) => reparse::interix_target(content),
            None => self.reparse()?.target(),
        }
    }

    /// Where its content is.
    fn place(&self) -> Place {
        self.reparse().map_or(Place::Stream, |reparse| reparse.place(self.dos_attributes))
    }

    /// The stream that holds its content.
    fn content(&self) -> Option<&FileAttribute> {
        match self.place() {
            Place::Packed(_) => self.file.attribute(attribute_type::DATA, &stored(wof::STREAM)),
            _ => self.file.attribute(attribute_type::DATA, &[]),
        }
    }
}

/// Where the sequence number starts in a node's id.
const SEQUENCE_SHIFT: u32 = 32;
/// As much of it as there is room for.
const SEQUENCE_MASK: u16 = 0x3fff;

/// The node that a file reference means.
pub(super) fn node_id(reference: u64) -> NodeId {
    // No MFT is that long, so what is cut off here is not found.
    let number = record_number(reference).min(u64::from(u32::MAX));
    NodeId(number | u64::from(sequence_number(reference) & SEQUENCE_MASK) << SEQUENCE_SHIFT)
}

/// $STANDARD_INFORMATION: times in units of 100 ns since 1601-01-01, and attributes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StandardInformation {
    pub(super) created: u64,
    pub(super) modified: u64,
    pub(super) changed: u64,
    pub(super) accessed: u64,
    pub(super) attributes: u32,
    /// Id of the security descriptor in $Secure.
    pub(super) security: Option<u32>,
}

impl StandardInformation {
    pub(super) fn of(file: &File) -> Option<Self> {
        let raw = file.resident(attribute_type::STANDARD_INFORMATION)?;
        Some(Self {
            created: le64(raw, 0)?,
            modified: le64(raw, 8)?,
            changed: le64(raw, 16)?,
            accessed: le64(raw, 24)?,
            attributes: le32(raw, 32)?,
            security: le32(raw, 52).filter(|id| *id != 0),
        })
    }
}

/// A moment from units of 100 ns since 1601-01-01.
fn time(raw: u64) -> Time {
    const UNITS: i64 = 10_000_000;
    /// From 1601 to 1970.
    const EPOCH: i64 = 11_644_473_600;
    let raw = raw.cast_signed();
    Time {
        seconds: raw.div_euclid(UNITS).saturating_sub(EPOCH),
        nanoseconds: u32::try_from(raw.rem_euclid(UNITS).saturating_mul(100)).expect("below 10^9"),
    }
}

impl Files {
    /// Reads what is asked for of a node's attributes; the record is checked to be the one that was meant.
    pub(super) fn file(&self, node: NodeId, want: &dyn Fn(u32) -> Want) -> Result<File> {
        let number = node.0 & ((1 << SEQUENCE_SHIFT) - 1);
        let sequence = u16::try_from(node.0 >> SEQUENCE_SHIFT).unwrap_or(u16::MAX);
        let file = self.volume.file(number, want)?;
        if sequence != 0 && sequence != file.sequence & SEQUENCE_MASK {
            return Err(Error::NotFound(format!("the file of MFT record {number} that a folder names is gone")));
        }
        Ok(file)
    }

    /// Reads a node: the attributes that tell what it is, and those that `want` asks for besides.
    pub(super) fn node(&self, node: NodeId, want: &dyn Fn(u32) -> Want) -> Result<Node> {
        let file = self.file(node, &|of| match (of, want(of)) {
            (attribute_type::STANDARD_INFORMATION | attribute_type::REPARSE_POINT | attribute_type::EA, _) => {
                Want::Whole
            }
            (attribute_type::DATA, Want::Nothing) => Want::Sizes,
            (_, want) => want,
        })?;
        let mut dos_attributes = StandardInformation::of(&file).map_or(0, |information| information.attributes) & SHOWN;
        if file.is_folder {
            dos_attributes |= DIRECTORY;
        } else {
            dos_attributes &= !DIRECTORY;
        }
        let value = |of, most| match file.attribute(of, &[]).map(|attribute| &attribute.value) {
            None => Ok(None),
            Some(Value::Resident(value)) => Ok(Some(value.clone())),
            Some(Value::NonResident(stream)) => self.volume.whole_stream(stream, most).map(Some),
        };
        let reparse = value(attribute_type::REPARSE_POINT, reparse::MAX_LEN)?;
        let ea = value(attribute_type::EA, ea::MAX_LEN)?;
        let mut interix = None;
        if !file.is_folder
            && reparse.is_none()
            && dos_attributes & (SYSTEM | HIDDEN) == SYSTEM
            && let Some(data) = file.attribute(attribute_type::DATA, &[])
            && (9..=reparse::MAX_INTERIX).contains(&data.value.len())
        {
            let content = self.plain(file.number, &[])?;
            let mut bytes = vec![0; usize::try_from(content.len().min(reparse::MAX_INTERIX)).expect("bounded")];
            content.read_at(&mut bytes, 0)?;
            interix = (reparse::interix_meaning(&bytes) != Meaning::Nothing).then_some(bytes);
        }
        Ok(Node { file, dos_attributes, reparse, ea, interix })
    }

    /// Opens a stream as it is stored. `name` is UTF-16, little-endian bytes.
    fn plain(&self, number: u64, name: &[u8]) -> Result<Box<dyn Content>> {
        let only_data = |of| if of == attribute_type::DATA { Want::Whole } else { Want::Nothing };
        let file = self.volume.file(number, &only_data)?;
        let found = file.attributes.into_iter().find(|attribute| attribute.name == name);
        let found = found.ok_or_else(|| Error::NotFound(format!("MFT record {number} has no such stream")))?;
        content::open(&self.volume, number, found)
    }

    fn open_content(&self, node: &Node) -> Result<Box<dyn Content>> {
        let number = node.file.number;
        match node.place() {
            Place::Stream => self.plain(number, &[]),
            Place::Elsewhere(whose) => Err(Error::unsupported(format_args!("NTFS MFT record {number}"), whose)),
            Place::Packed(packing) => {
                let unnamed = node.file.attribute(attribute_type::DATA, &[]);
                let len = unnamed.map(|unnamed| unnamed.value.len());
                let len = len.ok_or_else(|| self.volume.corrupt_record(number, "it has no unnamed stream"))?;
                let packed = self.plain(number, &stored(wof::STREAM)).map_err(|error| match error {
                    Error::NotFound(_) => self.volume.corrupt_record(number, "its compressed stream is missing"),
                    other => other,
                })?;
                let records = self.volume.record_places(&[number]);
                Ok(Box::new(Packed::new(Wof::open(number, packing, packed, len, records)?)))
            }
        }
    }

    /// The index of a folder.
    fn folder(&self, node: NodeId) -> Result<Index> {
        let file = self.file(node, &Index::want)?;
        let index = if file.is_folder { Index::open(&self.volume, &file, &I30)? } else { None };
        index.ok_or_else(|| Error::NotFound(format!("MFT record {} is no folder", file.number)))
    }

    /// Compares two names as the filesystem does.
    fn same_name(&self, a: &[u8], b: &[u16]) -> bool {
        match &self.upcase {
            Some(upcase) => upcase.compare(units(a), b.iter().copied()).is_eq(),
            None => units(a).eq(b.iter().copied()),
        }
    }

    /// The named streams of a file, but the one that holds its packed content.
    fn named_streams(node: &Node) -> impl Iterator<Item = &FileAttribute> {
        let is_packed = matches!(node.place(), Place::Packed(_));
        node.file.attributes.iter().filter(move |attribute| {
            attribute.type_code == attribute_type::DATA
                && !attribute.name.is_empty()
                && !(is_packed && attribute.name == stored(wof::STREAM))
        })
    }

    /// The descriptors of $Secure, opened once.
    pub(super) fn secure(&self) -> Result<Option<&Secure>> {
        if let Some(secure) = self.secure.get() {
            return Ok(secure.as_ref());
        }
        let secure = Secure::open(&self.volume)?;
        Ok(self.secure.get_or_init(|| secure).as_ref())
    }
}

/// What an entry of a folder says that its file is; `None` where only the file itself tells.
fn kind_of(name: &FileName<'_>) -> Option<NodeKind> {
    let is_folder = name.attributes & (HAS_INDEX | DIRECTORY) != 0;
    if name.attributes & REPARSE_POINT != 0 {
        return match reparse::meaning(name.reparse_tag) {
            Meaning::Link => Some(NodeKind::Symlink),
            Meaning::Socket => Some(NodeKind::Socket),
            Meaning::Fifo => Some(NodeKind::Fifo),
            // The numbers of devices are in their files; and the tag can be missing.
            _ => None,
        };
    }
    // A system file can be a link or a device of Interix.
    let may_be_interix = name.attributes & (SYSTEM | HIDDEN) == SYSTEM && name.data_size <= reparse::MAX_INTERIX;
    match is_folder {
        true => Some(NodeKind::Folder),
        false if may_be_interix => None,
        false => Some(NodeKind::File),
    }
}

fn entry_of(entry: &IndexEntry<'_>, name: &FileName<'_>) -> Entry {
    Entry { name: to_wtf8(name.name), node: node_id(entry.reference), kind: kind_of(name) }
}

impl FileSystem for Files {
    fn summary(&self) -> Summary {
        self.volume.summary()
    }

    fn space(&self) -> Result<Space> {
        if let Some(space) = self.space.get() {
            return Ok(*space);
        }
        let total = self.volume.summary().len;
        let used = self.volume.allocated()?.clipped(total).total();
        let space = Space { total, free: total.saturating_sub(used), nodes: 0, nodes_free: 0 };
        Ok(*self.space.get_or_init(|| space))
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn attributes(&self, node: NodeId) -> Result<Attributes> {
        let node = self.node(node, &|of| match of {
            attribute_type::FILE_NAME => Want::Whole,
            attribute_type::INDEX_ALLOCATION => Want::Sizes,
            _ => Want::Nothing,
        })?;
        let kind = node.kind();
        let sized = |attribute: Option<&FileAttribute>| match attribute.map(|attribute| &attribute.value) {
            // In steps of 8 bytes of the record, as NTFS counts it.
            Some(Value::Resident(value)) => (wide(value.len()), wide(value.len().next_multiple_of(8))),
            Some(Value::NonResident(stream)) => (stream.data_size, stream.allocated_size),
            None => (0, 0),
        };
        let (_, allocated) = sized(node.content());
        let (len, allocated) = match kind {
            NodeKind::File => (sized(node.file.attribute(attribute_type::DATA, &[])).0, allocated),
            NodeKind::Folder => sized(node.file.attribute(attribute_type::INDEX_ALLOCATION, &I30)),
            // One whose target cannot be read is none the less a link.
            NodeKind::Symlink => (node.target().map_or(0, |target| wide(target.len())), allocated),
            _ => (0, allocated),
        };
        let names = node.file.attributes.iter().filter(|attribute| {
            attribute.type_code == attribute_type::FILE_NAME
                && matches!(&attribute.value, Value::Resident(value) if FileName::parse(value).is_some_and(|name| !name.is_short))
        });
        let links = u32::try_from(names.count()).unwrap_or(u32::MAX).max(1);
        let wsl = node.ea.as_deref().map(Wsl::parse).unwrap_or_default();
        let times = StandardInformation::of(&node.file);
        Ok(Attributes {
            kind,
            len,
            allocated,
            links,
            permissions: wsl.mode.map(|mode| u16::try_from(mode & 0o7777).expect("twelve bits")),
            uid: wsl.uid,
            gid: wsl.gid,
            modified: times.map(|times| time(times.modified)),
            accessed: times.map(|times| time(times.accessed)),
            changed: times.map(|times| time(times.changed)),
            created: times.map(|times| time(times.created)),
            dos_attributes: Some(node.dos_attributes),
        })
    }

    fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let index = self.folder(folder)?;
        let Some(wanted) = from_wtf8(name).filter(|_| can_be_shown(name)) else { return Ok(None) };
        let mut found: Option<Entry> = None;
        let mut take = |entry: &IndexEntry<'_>| {
            let Some(stored) = FileName::parse(entry.key) else { return ControlFlow::Continue(()) };
            let is_exact = units(stored.name).eq(wanted.iter().copied());
            if is_exact || found.is_none() {
                found = Some(entry_of(entry, &stored));
            }
            if is_exact { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match &self.upcase {
            Some(upcase) => {
                let order = |key: &[u8]| {
                    let key = FileName::parse(key).map_or(&[][..], |name| name.name);
                    upcase.compare(wanted.iter().copied(), units(key))
                };
                index.search(&self.volume, &order, &mut take)?;
            }
            None => index.for_each(&self.volume, &mut |entry| match FileName::parse(entry.key) {
                Some(name) if self.same_name(name.name, &wanted) => take(entry),
                _ => ControlFlow::Continue(()),
            })?,
        }
        Ok(found)
    }

    fn list(&self, folder: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        let index = self.folder(folder)?;
        let mut is_damaged = false;
        index.for_each(&self.volume, &mut |entry| {
            let Some(name) = FileName::parse(entry.key) else {
                is_damaged = true;
                return ControlFlow::Break(());
            };
            if name.is_short || record_number(entry.reference) < system_file::FIRST_VISIBLE {
                return ControlFlow::Continue(());
            }
            let entry = entry_of(entry, &name);
            if can_be_shown(&entry.name) { visit(entry) } else { ControlFlow::Continue(()) }
        })?;
        if is_damaged {
            return Err(self.volume.corrupt_record(record_number(folder.0), "a name in its index is cut short"));
        }
        Ok(())
    }

    fn open(&self, node: NodeId, stream: Option<&[u8]>) -> Result<Box<dyn Content>> {
        let node = self.node(node, &|_| Want::Nothing)?;
        let number = node.file.number;
        let Some(stream) = stream else {
            return match node.kind() {
                NodeKind::File => self.open_content(&node),
                kind => Err(Error::NotFound(format!("MFT record {number} is no file but {kind:?}"))),
            };
        };
        let name = from_wtf8(stream).unwrap_or_default();
        let streams = || Self::named_streams(&node);
        let found = streams().find(|attribute| units(&attribute.name).eq(name.iter().copied()));
        let found = found.or_else(|| streams().find(|attribute| self.same_name(&attribute.name, &name)));
        match found {
            Some(found) => self.plain(number, &found.name),
            None => {
                let stream = String::from_utf8_lossy(stream);
                Err(Error::NotFound(format!("MFT record {number} has no stream {stream:?}")))
            }
        }
    }

    fn link_target(&self, node: NodeId) -> Result<Vec<u8>> {
        let node = self.node(node, &|_| Want::Nothing)?;
        let number = node.file.number;
        if node.kind() != NodeKind::Symlink {
            return Err(Error::NotFound(format!("MFT record {number} is no link")));
        }
        node.target().ok_or_else(|| self.volume.corrupt_record(number, "its link has no target that can be read"))
    }

    fn streams(&self, node: NodeId) -> Result<Vec<StreamEntry>> {
        let node = self.node(node, &|_| Want::Nothing)?;
        Ok(Self::named_streams(&node)
            .map(|stream| StreamEntry { name: to_wtf8(&stream.name), len: stream.value.len() })
            .filter(|stream| can_be_shown(&stream.name))
            .collect())
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        xattrs::of(self, node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_1601_in_both_directions() {
        let epoch = 116_444_736_000_000_000_u64;
        assert_eq!(time(epoch), Time { seconds: 0, nanoseconds: 0 });
        assert_eq!(time(epoch + 12_345_678), Time { seconds: 1, nanoseconds: 234_567_800 });
        assert_eq!(time(epoch - 1), Time { seconds: -1, nanoseconds: 999_999_900 });
        assert_eq!(time(0).seconds, -11_644_473_600);
        assert_eq!(time(u64::MAX), Time { seconds: -11_644_473_601, nanoseconds: 999_999_900 });
    }
}
