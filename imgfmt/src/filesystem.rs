//! Filesystems inside a partition: which bytes they use, which bytes their metadata reach, and the [`files`] in them.
//!
//! Capture asks two questions that are answered apart from each other, so that each can judge the other:
//! [`UsedBlocks::allocated`] reads the allocation map, [`UsedBlocks::walk`] reads the metadata and never the map.
//! All offsets are bytes from the start of the partition.

pub mod bits;
pub mod chain;
pub mod dos_time;
pub mod elision;
pub mod exfat;
pub mod ext;
pub mod fat;
pub mod files;
pub mod iso9660;
pub mod listing;
pub mod ntfs;
pub mod resolve;
pub mod swap;
pub mod utf16;

use std::ops::Range;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::filesystem::files::FileSystem;
use crate::ranges::RangeSet;

/// What a reached range holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Structures of the filesystem itself.
    Metadata,
    /// Bytes of a file, or of an attribute or stream of one.
    Content,
}

/// A range of the partition that metadata reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Bytes of the partition, at block (cluster) granularity.
    pub range: Range<u64>,
    /// What lies there.
    pub reach: Reach,
    /// What the owner is called in this filesystem's terms: "inode", "MFT record", "directory entry at byte".
    pub owner_kind: &'static str,
    /// Which one: an inode number, an MFT record number, a byte offset.
    pub owner: u64,
}

/// A file whose content need not be kept (S6): its clusters stay, their content becomes zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elidable {
    /// Its path from the root of the filesystem: "pagefile.sys", or "swap area" for a swap partition.
    pub path: String,
    /// Where its content lies, in bytes of the partition.
    pub ranges: RangeSet,
    /// What the user should know about it, such as an active hibernation.
    pub warning: Option<String>,
}

/// What `info` shows of a filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// "NTFS", "FAT32", "exFAT", "ext4", "swap".
    pub kind: &'static str,
    /// The volume label as the user gave it; may be empty. Untrusted text: fronts escape control characters.
    pub label: String,
    /// Serial number or UUID in the form the field uses; may be empty.
    pub id: String,
    /// Cluster or block size in bytes.
    pub block_size: u64,
    /// Bytes of the partition that the filesystem covers.
    pub len: u64,
}

/// A filesystem whose used bytes can be told. Opened from a partition by [`open`].
pub trait UsedBlocks: Send + Sync {
    /// What it is.
    fn summary(&self) -> Summary;

    /// Reasons why its allocation map must not be trusted now (dirty, journal to replay, error state, unknown features),
    /// each a phrase such as "the dirty flag is set". Empty where there are none.
    fn doubts(&self) -> Result<Vec<String>>;

    /// The doubts that are left where the system wrote out all metadata and held further writes back while the copy was made that is read here (a
    /// shadow copy): then a journal that is not replayed says nothing against the map.
    fn doubts_of_a_flushed_copy(&self) -> Result<Vec<String>> {
        self.doubts()
    }

    /// Every byte of the partition that the allocation map calls used, and every byte that the map does not govern (boot
    /// areas, backup boot sectors, the rest of the partition behind the last block). Never less than the truth.
    fn allocated(&self) -> Result<RangeSet>;

    /// Calls `visit` for every range that metadata reach, in any order, possibly more than once, without consulting the
    /// allocation map. Fails where metadata are damaged; `visit` can end the walk with an error of its own.
    fn walk(&self, visit: &mut dyn FnMut(Reached) -> Result<()>) -> Result<()>;

    /// Files whose content need not be kept.
    fn elidable(&self) -> Result<Vec<Elidable>>;

    /// The path of an owner that [`UsedBlocks::walk`] named, where it can be found. Untrusted text.
    fn path_of(&self, owner: u64) -> Result<Option<String>>;
}

/// Opens a partition as one kind of filesystem: `None` where it is another kind (or none), an error where it is this kind
/// but damaged or with features that are not read.
type Opener<T> = fn(Arc<dyn Disk>) -> Result<Option<Box<T>>>;

/// One kind of filesystem.
struct Driver {
    /// Tells its used blocks; `None` where the kind is kept whole.
    used_blocks: Option<Opener<dyn UsedBlocks>>,
    /// Reads its files; `None` where they are not read.
    files: Option<Opener<dyn FileSystem>>,
}

/// The kinds that are read, in the order in which a partition is probed. ISO 9660 and swap come last: their signatures outlive what is made
/// over them.
const DRIVERS: &[Driver] = &[ntfs::DRIVER, exfat::DRIVER, fat::DRIVER, ext::DRIVER, iso9660::DRIVER, swap::DRIVER];

/// Opens the used-block map of a partition's filesystem; `None` where no known kind claims it.
pub fn open(partition: &Arc<dyn Disk>) -> Result<Option<Box<dyn UsedBlocks>>> {
    probe(partition, |driver| driver.used_blocks)
}

/// Opens a partition's filesystem for reading files; `None` where no known kind claims it.
pub fn open_files(partition: &Arc<dyn Disk>) -> Result<Option<Box<dyn FileSystem>>> {
    probe(partition, |driver| driver.files)
}

fn probe<T: ?Sized>(
    partition: &Arc<dyn Disk>,
    opener: impl Fn(&Driver) -> Option<Opener<T>>,
) -> Result<Option<Box<T>>> {
    for open in DRIVERS.iter().filter_map(opener) {
        if let Some(filesystem) = open(Arc::clone(partition))? {
            return Ok(Some(filesystem));
        }
    }
    Ok(None)
}
