//! Files: [`FileSystem`] on ext2, ext3 and ext4.
//!
//! What a front sees:
//!
//! - A node's id is its inode number.
//! - A journal that needs recovery is replayed in memory, as the driver would replay it before anything else.
//! - Encrypted files, folders and links are there with their attributes; their content and names are unsupported by name.
//! - In folders that do not tell case apart, names are found as they are stored.
//! - Blocks of fs-verity behind the end of a file are not shown, and not used to check it.
//! - Deleted files that the filesystem still had to free are not shown.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use crate::bytes::{le16, le32};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::filesystem::ext::content;
use crate::filesystem::ext::inode::{Inode, file_type, flag, number};
use crate::filesystem::ext::volume::Volume;
use crate::filesystem::ext::xattr;
use crate::filesystem::files::{
    Attributes, Content, Entry, FileSystem, NodeId, NodeKind, Space, StreamEntry, Time, Xattr,
};
use crate::filesystem::{Summary, UsedBlocks};

/// The files of a filesystem.
#[derive(Debug)]
struct Files {
    volume: Arc<Volume>,
    space: OnceLock<Space>,
}

/// Opens the files of the filesystem in a partition.
pub(super) fn open(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn FileSystem>>> {
    let Some(volume) = Volume::open(partition)? else { return Ok(None) };
    if let Some(feature) = volume.superblock.unknown_incompat().into_iter().next() {
        return Err(Error::unsupported("ext superblock", format_args!("feature {feature}")));
    }
    let volume = Arc::new(volume.replay_journal()?);
    Ok(Some(Box::new(Files { volume, space: OnceLock::new() })))
}

impl Files {
    /// The inode of a node that a folder can name.
    fn inode(&self, node: NodeId) -> Result<Inode> {
        let missing = || Error::NotFound(format!("there is no inode {}", node.0));
        let wanted = u32::try_from(node.0).map_err(|_| missing())?;
        let superblock = &self.volume.superblock;
        if wanted == 0 || wanted > superblock.inodes_count {
            return Err(missing());
        }
        let inode = self.volume.inode(wanted)?;
        if wanted < superblock.first_ino && wanted != number::ROOT || inode.has(flag::EA_INODE) {
            return Err(inode.corrupt(0, "it is named, but is the filesystem's own"));
        }
        if inode.links == 0 || inode.mode == 0 {
            return Err(inode.corrupt(0, "it is named, but not in use"));
        }
        Ok(inode)
    }

    fn folder(&self, node: NodeId) -> Result<Inode> {
        let inode = self.inode(node)?;
        if inode.file_type() != file_type::DIRECTORY {
            return Err(Error::NotFound(format!("inode {} is no folder", node.0)));
        }
        if inode.has(flag::ENCRYPT) {
            return Err(Error::unsupported(format_args!("ext inode {}", node.0), "the names in it are encrypted"));
        }
        Ok(inode)
    }
}

/// The kind of an inode; `None` for type bits that mean nothing.
fn kind_of(inode: &Inode) -> Option<NodeKind> {
    let (major, minor) = device(inode);
    Some(match inode.file_type() {
        file_type::REGULAR => NodeKind::File,
        file_type::DIRECTORY => NodeKind::Folder,
        file_type::SYMLINK => NodeKind::Symlink,
        file_type::CHARACTER_DEVICE => NodeKind::CharacterDevice { major, minor },
        file_type::BLOCK_DEVICE => NodeKind::BlockDevice { major, minor },
        file_type::FIFO => NodeKind::Fifo,
        file_type::SOCKET => NodeKind::Socket,
        _ => return None,
    })
}

/// The kind that an entry of a directory says; devices have numbers that only their inodes know.
fn said_kind(file_type: u8) -> Option<NodeKind> {
    match file_type {
        1 => Some(NodeKind::File),
        2 => Some(NodeKind::Folder),
        5 => Some(NodeKind::Fifo),
        6 => Some(NodeKind::Socket),
        7 => Some(NodeKind::Symlink),
        _ => None,
    }
}

/// Major and minor number of a device: 8 bits each in the first word of the map, or 12 and 20 bits in the second.
fn device(inode: &Inode) -> (u32, u32) {
    let (old, new) = (le32(&inode.block, 0).unwrap_or(0), le32(&inode.block, 4).unwrap_or(0));
    if old != 0 {
        return ((old >> 8) & 0xff, old & 0xff);
    }
    ((new >> 8) & 0xfff, (new & 0xff) | ((new >> 12) & 0xf_ff00))
}

/// A time: seconds at `at` of the inode, and at `extra` nanoseconds and two more bits of the seconds, where the inode is long enough.
fn time(inode: &Inode, at: usize, extra: usize) -> Time {
    let seconds = i64::from(le32(&inode.raw, at).unwrap_or(0).cast_signed());
    let extra = field(inode, extra).unwrap_or(0);
    Time { seconds: seconds.saturating_add(i64::from(extra & 3) << 32), nanoseconds: (extra >> 2).min(999_999_999) }
}

/// A word of the part of the inode behind 128 bytes; `None` where this inode does not have it.
fn field(inode: &Inode, at: usize) -> Option<u32> {
    let (end, _) = inode.attribute_area();
    (at.saturating_add(4) <= end).then(|| le32(&inode.raw, at)).flatten()
}

impl FileSystem for Files {
    fn summary(&self) -> Summary {
        self.volume.summary()
    }

    fn space(&self) -> Result<Space> {
        if let Some(space) = self.space.get() {
            return Ok(*space);
        }
        let superblock = &self.volume.superblock;
        let (mut clusters, mut inodes) = (0_u64, 0_u64);
        // The counts in the superblock are those of the last unmount.
        for number in 0..superblock.groups() {
            let group = self.volume.group(number)?;
            clusters = clusters.saturating_add(group.free_clusters);
            inodes = inodes.saturating_add(group.free_inodes);
        }
        let cluster_len = superblock.block_size.saturating_mul(superblock.cluster_blocks);
        let space = Space {
            total: superblock.blocks_count.saturating_mul(superblock.block_size),
            free: clusters.saturating_mul(cluster_len),
            nodes: u64::from(superblock.inodes_count),
            nodes_free: inodes,
        };
        Ok(*self.space.get_or_init(|| space))
    }

    fn root(&self) -> NodeId {
        NodeId(u64::from(number::ROOT))
    }

    fn attributes(&self, node: NodeId) -> Result<Attributes> {
        let inode = self.inode(node)?;
        let kind = kind_of(&inode).ok_or_else(|| inode.corrupt(0, "its type is none"))?;
        let half = |at| u32::from(le16(&inode.raw, at).unwrap_or(0));
        let has_created = field(&inode, 0x90).is_some();
        Ok(Attributes {
            kind,
            len: if matches!(kind, NodeKind::File | NodeKind::Folder | NodeKind::Symlink) { inode.size } else { 0 },
            allocated: inode.sectors.saturating_mul(512),
            links: u32::from(inode.links),
            permissions: Some(inode.mode & 0o7777),
            uid: Some(half(0x02) | half(0x78) << 16),
            gid: Some(half(0x18) | half(0x7a) << 16),
            modified: Some(time(&inode, 0x10, 0x88)),
            accessed: Some(time(&inode, 0x08, 0x8c)),
            changed: Some(time(&inode, 0x0c, 0x84)),
            created: has_created.then(|| time(&inode, 0x90, 0x94)),
            dos_attributes: None,
        })
    }

    fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let folder = self.folder(folder)?;
        if !can_be_shown(name) {
            return Ok(None);
        }
        let found = self.volume.find(&folder, name)?;
        Ok(found.map(|(inode, file_type)| Entry {
            name: name.to_vec(),
            node: NodeId(u64::from(inode)),
            kind: said_kind(file_type),
        }))
    }

    fn list(&self, folder: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        let folder = self.folder(folder)?;
        self.volume.folder_entries(&folder, &mut |entry| {
            if !can_be_shown(entry.name) {
                return ControlFlow::Continue(());
            }
            visit(Entry {
                name: entry.name.to_vec(),
                node: NodeId(u64::from(entry.inode)),
                kind: said_kind(entry.file_type),
            })
        })
    }

    fn open(&self, node: NodeId, stream: Option<&[u8]>) -> Result<Box<dyn Content>> {
        let inode = self.inode(node)?;
        if stream.is_some() || inode.file_type() != file_type::REGULAR {
            return Err(Error::NotFound(format!("inode {} has no such content", node.0)));
        }
        content::open(&self.volume, inode)
    }

    fn link_target(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        if inode.file_type() != file_type::SYMLINK {
            return Err(Error::NotFound(format!("inode {} is no symbolic link", node.0)));
        }
        if inode.has(flag::ENCRYPT) {
            return Err(Error::unsupported(format_args!("ext inode {}", node.0), "its target is encrypted"));
        }
        let too_long = || inode.corrupt(0, "the target of the link is too long");
        let mut target = vec![0; usize::try_from(inode.size).unwrap_or(usize::MAX).min(self.volume.block_len())];
        if inode.size > self.volume.superblock.block_size {
            return Err(too_long());
        }
        if inode.is_fast_symlink(&self.volume.superblock) {
            target = inode.block.get(..target.len()).ok_or_else(too_long)?.to_vec();
        } else {
            content::open(&self.volume, inode)?.read_at(&mut target, 0)?;
        }
        // As the driver does, which hands out text with an end.
        if let Some(end) = target.iter().position(|byte| *byte == 0) {
            target.truncate(end);
        }
        Ok(target)
    }

    fn streams(&self, node: NodeId) -> Result<Vec<StreamEntry>> {
        self.inode(node)?;
        Ok(Vec::new())
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>> {
        let inode = self.inode(node)?;
        let found = xattr::shown(&self.volume, &inode)?;
        let mut names = HashSet::new();
        if found.iter().any(|xattr| !names.insert(&xattr.name)) {
            return Err(inode.corrupt(0, "it has an extended attribute twice"));
        }
        Ok(found)
    }
}

/// Whether a name can stand in a path.
fn can_be_shown(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}
