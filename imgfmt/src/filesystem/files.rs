//! Files inside a partition: the one interface that every reader of a filesystem implements and every front uses.
//!
//! A reader is opened once and shared by all threads. It trusts nothing that it reads: loops, absurd sizes and references to
//! nowhere are [`Error::Corrupt`](crate::Error::Corrupt), features that it does not read are
//! [`Error::Unsupported`](crate::Error::Unsupported) by name, never an empty folder or a file of zeros.

use std::fmt::Debug;
use std::ops::{ControlFlow, Range};

use crate::disk::Extent;
use crate::error::Result;
use crate::filesystem::Summary;

/// Identifies a node for as long as its generation exists: an inode number, an MFT record number, a byte of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A folder (directory).
    Folder,
    /// A symbolic link, or a junction.
    Symlink,
    /// A character device.
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A moment: seconds since 1970-01-01T00:00:00Z, negative before, and nanoseconds after that second, below 10^9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Time {
    /// Whole seconds, rounded towards the past.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What a node says of itself. `None` is what the filesystem does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What it is.
    pub kind: NodeKind,
    /// Bytes of its content; of a symbolic link, of its target; of a folder, as the filesystem counts, or 0.
    pub len: u64,
    /// Bytes of the partition that its content takes.
    pub allocated: u64,
    /// Hard links; at least 1.
    pub links: u32,
    /// Permission bits (the low twelve bits of a Unix mode).
    pub permissions: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of the content.
    pub modified: Option<Time>,
    /// Last access.
    pub accessed: Option<Time>,
    /// Last change of the node itself.
    pub changed: Option<Time>,
    /// Creation.
    pub created: Option<Time>,
    /// `FILE_ATTRIBUTE_*` bits of Windows.
    pub dos_attributes: Option<u32>,
}

/// A name in a folder. "." and ".." are never among them.
///
/// Names are untrusted bytes: as they are stored where the filesystem has bytes (ext), UTF-8 where it has Unicode, with lone
/// surrogates in three bytes each (WTF-8). A reader leaves out names that are empty or hold `/` or NUL, or are "." or "..", and fails where the whole
/// folder cannot be trusted; a front decides what else it can show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// What it names.
    pub node: NodeId,
    /// What that is, as the folder says, without a look at the node. `None` where the folder does not say.
    pub kind: Option<NodeKind>,
}

/// A named stream of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its name, in the encoding of [`Entry::name`]; never empty.
    pub name: Vec<u8>,
    /// Its bytes.
    pub len: u64,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// The name as Linux would show it, with its namespace: `user.x`, `security.selinux`, `system.posix_acl_access`, `system.ntfs_acl`.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// How full a filesystem is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes of all blocks.
    pub total: u64,
    /// Bytes of free blocks.
    pub free: u64,
    /// Nodes that there can be; 0 where nothing limits them.
    pub nodes: u64,
    /// Nodes that can still be made; 0 where that is not known.
    pub nodes_free: u64,
}

/// The bytes of a file or of one of its named streams, opened once and read by any number of threads.
pub trait Content: Send + Sync + Debug {
    /// Bytes; constant.
    fn len(&self) -> u64;

    /// Fills all of `buf` from `offset`, or fails: past the end with [`Error::OutOfRange`](crate::Error::OutOfRange).
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// The extent of the content that starts at `offset` (below [`Content::len`]): Data, or Zero for a hole that reads as zero. Never
    /// empty, may end before its kind does.
    fn extent_at(&self, offset: u64) -> Result<Extent>;

    /// Where the stored bytes lie in the partition, in the order of the content, the node's own record where they lie in it: what must be equal in two
    /// generations for the content to be equal without being read. `None` where that is not known.
    fn places(&self) -> Option<Vec<Range<u64>>>;
}

/// A filesystem whose files can be read. Opened from a partition by [`open_files`](crate::filesystem::open_files).
pub trait FileSystem: Send + Sync + Debug {
    /// What it is.
    fn summary(&self) -> Summary;

    /// How full it is.
    fn space(&self) -> Result<Space>;

    /// The root folder.
    fn root(&self) -> NodeId;

    /// Attributes of a node.
    fn attributes(&self, node: NodeId) -> Result<Attributes>;

    /// Finds a name in a folder, by the filesystem's own rules of equality (case, 8.3 names). The entry holds the name as it is stored.
    fn lookup(&self, folder: NodeId, name: &[u8]) -> Result<Option<Entry>>;

    /// Calls `visit` for each entry of a folder, in the order of the filesystem, until it breaks.
    fn list(&self, folder: NodeId, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<()>;

    /// Opens the content of a file, or the named stream `stream` of a file or folder. [`Error::NotFound`](crate::Error::NotFound) where there is no such
    /// stream.
    fn open(&self, node: NodeId, stream: Option<&[u8]>) -> Result<Box<dyn Content>>;

    /// Where a symbolic link points, with `/` between names. Untrusted bytes.
    fn link_target(&self, node: NodeId) -> Result<Vec<u8>>;

    /// Named streams of a node.
    fn streams(&self, node: NodeId) -> Result<Vec<StreamEntry>>;

    /// Extended attributes of a node.
    fn xattrs(&self, node: NodeId) -> Result<Vec<Xattr>>;

    /// Says whether a file is a disk that is made up beside the files of its partitions, so that it only repeats them. What walks through
    /// folders leaves such files out: they matter where somebody names one.
    fn is_disk_file(&self, node: NodeId) -> bool {
        let _ = node;
        false
    }
}
