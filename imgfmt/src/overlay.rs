//! Overlays: a file takes the writes that are made to a disk, and the disk itself, its base, is never written.
//!
//! A write goes into fresh slots of the file (`space` says which are free), then the `map` in memory names them. A commit writes
//! the changed pages of the map, and last a block that names their root: so the file always holds one whole state. `layer` shows the
//! result as a disk; one file has a layer for the disk and one for each container format that was written to.
//!
//! Source: docs/overlay.md, which is the specification of the file.

mod digest;
mod file;
mod layer;
mod layout;
mod map;
mod medium;
mod shared;
mod space;

use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, WritableDisk};
use crate::error::{Error, Result};
use crate::overlay::layer::LayerDisk;
use crate::overlay::shared::Shared;

pub use digest::digest_of;
pub use file::{FileStorage, Storage};
pub use layout::{MAX_NAME, Proof, SLOT};

/// What an overlay is made over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What the base is called; for messages only, cut at [`MAX_NAME`] bytes.
    pub name: String,
    /// What proves that it is the same base.
    pub proof: Proof,
    /// Last change of the base's file in seconds since 1970, 0 where unknown: for a warning only.
    pub modified: u64,
    /// Length of the disk in bytes.
    pub disk_len: u64,
    /// Logical sector size of the disk: 512 or 4096.
    pub sector_size: u32,
}

/// What the file of an overlay says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Random, of this overlay.
    pub id: [u8; 16],
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Its base.
    pub about: About,
    /// Number of the last commit.
    pub sequence: u64,
    /// Bytes of the file that are in use or free to be used again.
    pub file_len: u64,
    /// Bytes of the file that are free to be used again.
    pub free: u64,
    /// Its layers; the first is the disk's.
    pub layers: Vec<LayerSummary>,
}

/// One layer of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSummary {
    /// `disk`, or the container format that it belongs to.
    pub key: String,
    /// Length in bytes.
    pub len: u64,
    /// Bytes in blocks that have data.
    pub data: u64,
}

/// A disk whose length can be changed: a container that takes a hypervisor's writes.
pub trait ResizableDisk: WritableDisk {
    /// Makes the disk `len` bytes long. What is new reads as zero; what is cut off is gone, even if it grows again.
    fn set_len(&self, len: u64) -> Result<()>;
}

/// An open overlay: the one owner of its file. Clones share it; the file is free again when the last of them and of its disks is gone.
///
/// What was not flushed by then is flushed, as far as that works.
#[derive(Clone, Debug)]
pub struct Overlay {
    shared: Arc<Shared>,
}

impl Overlay {
    /// Makes the file of a new overlay and owns it. Fails where there is a file with this name.
    pub fn create(path: &Path, about: &About) -> Result<Self> {
        FileStorage::create(path, |storage| Shared::create(storage, about))?;
        Self::open(path, about)
    }

    /// Opens an overlay for writing. [`Error::Refused`] where another process has it open (the message has its process id), or where
    /// it belongs to another base than `about` (the message has both names).
    pub fn open(path: &Path, about: &About) -> Result<Self> {
        let shared = Shared::open(Arc::new(FileStorage::open(path, false)?), about, false)?;
        shared.tell_holder();
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The same for reading only: several processes may do so at once, but none while it is open for writing.
    pub fn open_read_only(path: &Path, about: &About) -> Result<Self> {
        let shared = Shared::open(Arc::new(FileStorage::open(path, true)?), about, true)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Opens the overlay, or makes it where there is no file with this name.
    pub fn open_or_create(path: &Path, about: &About) -> Result<Self> {
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::create(path, about),
            _ => Self::open(path, about),
        }
    }

    /// Makes a new overlay in any storage, whose bytes are lost.
    pub fn create_on(storage: Arc<dyn Storage>, about: &About) -> Result<Self> {
        Shared::create(Arc::clone(&storage), about)?;
        Self::open_on(storage, about)
    }

    /// Opens the overlay in any storage, which nobody else may write.
    pub fn open_on(storage: Arc<dyn Storage>, about: &About) -> Result<Self> {
        Ok(Self { shared: Arc::new(Shared::open(storage, about, false)?) })
    }

    /// What the file says of itself, whoever has it open, and the holder of its lock in words (`process 4711`).
    pub fn examine(path: &Path) -> Result<(Summary, Option<String>)> {
        let (storage, holder) = FileStorage::look(path)?;
        Ok((Shared::summary_of(Arc::new(storage))?, holder))
    }

    /// The same of any storage.
    pub fn examine_storage(storage: Arc<dyn Storage>) -> Result<Summary> {
        Shared::summary_of(storage)
    }

    /// Removes an overlay's file, and a link by which it was named. Refused while it is in use, and where the file is no overlay.
    pub fn remove(path: &Path) -> Result<Summary> {
        // The lock is held until the name is gone.
        let storage: Arc<dyn Storage> = Arc::new(FileStorage::open(path, false)?);
        let summary = Shared::summary_of(Arc::clone(&storage))?;
        let remove = |path: &Path| std::fs::remove_file(path).map_err(|error| Error::io("remove", path, error));
        let is_link = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if is_link {
            remove(&path.canonicalize().map_err(|error| Error::io("examine", path, error))?)?;
        }
        remove(path)?;
        Ok(summary)
    }

    /// What the overlay holds now, flushed or not.
    pub fn summary(&self) -> Summary {
        self.shared.summary()
    }

    /// Says whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.shared.is_read_only()
    }

    /// Shows the disk: `base` with what was written to it. All disks of one overlay agree.
    ///
    /// Fails where the length or sector size of `base` is not the one that the overlay was made for.
    pub fn disk(&self, base: Arc<dyn Disk>) -> Result<Arc<dyn WritableDisk>> {
        self.shared.check_shape(base.len(), base.sector_size())?;
        let layer = self.shared.layer(layout::DISK_KEY, base.len())?;
        Ok(Arc::new(LayerDisk::new(Arc::clone(&self.shared), layer, base)))
    }

    /// Shows a container: `base`, the virtual disk file as it is computed, with what was written to its own structures.
    ///
    /// `key` names the format in at most 8 letters, such as `vmdk`. Fails where the layer was made over a base of another length: the
    /// two do not belong together.
    pub fn container(&self, key: &str, base: Arc<dyn Disk>) -> Result<Arc<dyn ResizableDisk>> {
        if key == layout::DISK_KEY {
            return Err(Error::Refused("the layer of the disk is no container".to_owned()));
        }
        let layer = self.shared.layer(key, base.len())?;
        Ok(Arc::new(LayerDisk::new(Arc::clone(&self.shared), layer, base)))
    }

    /// Returns once everything that was written before, to any layer, is durable.
    pub fn flush(&self) -> Result<()> {
        self.shared.commit()
    }
}
