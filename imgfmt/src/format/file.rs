//! A file of an image: positional reads that cannot leave it, fixed structures, and tables read in pages.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zerocopy::FromBytes;

use crate::disk::{Disk, buf_len};
use crate::error::{Error, Result};
use crate::format::cache::{Caches, PageKey};
use crate::platform::{self, FileId};
use crate::source::FileDisk;
use crate::source::device::{Kind, System};

/// Bytes of a table that are read at once.
const PAGE: u64 = 16 << 10;

/// A file that holds an image or a part of one.
#[derive(Clone)]
pub(crate) struct ImageFile {
    disk: Arc<dyn Disk>,
    name: String,
    path: Option<PathBuf>,
    id: Option<FileId>,
    number: u32,
    caches: Arc<Caches>,
}

impl std::fmt::Debug for ImageFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageFile").field("name", &self.name).field("path", &self.path).finish_non_exhaustive()
    }
}

impl ImageFile {
    /// Opens the file that the user named. Says also whether it is a block device.
    pub(crate) fn open_given(path: &Path, caches: &Arc<Caches>) -> Result<(Self, bool)> {
        let description = System::default().describe(path)?;
        let disk = FileDisk::open(&description.path, 512)?;
        let id = platform::file_id(disk.file()).map_err(|error| Error::io("examine", path, error))?;
        let file = Self::new(Arc::new(disk), path.display().to_string(), Some(description.path), Some(id), caches);
        Ok((file, description.kind == Kind::BlockDevice))
    }

    /// Takes a file that the policy let through.
    pub(crate) fn named(file: std::fs::File, path: PathBuf, caches: &Arc<Caches>) -> Result<Self> {
        let name = path.display().to_string();
        let id = platform::file_id(&file).map_err(|error| Error::io("examine", &path, error))?;
        let disk = FileDisk::from_file(file, &path, 512)?;
        Ok(Self::new(Arc::new(disk), name, Some(path), Some(id), caches))
    }

    /// Takes bytes that lie in no folder.
    pub(crate) fn without_folder(disk: Arc<dyn Disk>, name: &str, caches: &Arc<Caches>) -> Self {
        Self::new(disk, name.to_owned(), None, None, caches)
    }

    /// The same file with other bytes, such as those after its log was replayed.
    pub(crate) fn with_disk(&self, change: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>) -> Self {
        let number = self.caches.next_file();
        Self { disk: change(Arc::clone(&self.disk)), number, ..self.clone() }
    }

    fn new(disk: Arc<dyn Disk>, name: String, path: Option<PathBuf>, id: Option<FileId>, caches: &Arc<Caches>) -> Self {
        Self { disk, name, path, id, number: caches.next_file(), caches: Arc::clone(caches) }
    }

    /// Its bytes.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it lies, symbolic links resolved; `None` for bytes without a folder.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The same, or its name.
    pub(crate) fn place(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| PathBuf::from(&self.name))
    }

    /// What makes it itself.
    pub(crate) fn id(&self) -> Option<FileId> {
        self.id
    }

    /// Its number in the caches.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Bytes in it.
    pub(crate) fn len(&self) -> u64 {
        self.disk.len()
    }

    /// [`Error::Corrupt`] about a structure of this file.
    pub(crate) fn corrupt(&self, what: &str, offset: u64, reason: &'static str) -> Error {
        Error::corrupt(format_args!("{what} of {}", self.name), offset, reason)
    }

    /// [`Error::Unsupported`] about this file.
    pub(crate) fn unsupported(&self, feature: impl std::fmt::Display) -> Error {
        Error::unsupported(&self.name, feature)
    }

    /// Fails unless `len` bytes at `offset` lie in the file.
    pub(crate) fn check(&self, what: &str, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(self.corrupt(what, offset, "points past the end of the file")),
        }
    }

    /// Fills `buf` from `offset`; past the end of the file is [`Error::Corrupt`].
    pub(crate) fn read_at(&self, what: &str, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check(what, offset, buf_len(buf))?;
        self.disk.read_at(buf, offset)
    }

    /// Reads `len` bytes at `offset`; `len` must come from a constant or a validated field.
    pub(crate) fn read_vec(&self, what: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.check(what, offset, u64::try_from(len).unwrap_or(u64::MAX))?;
        let mut buf = vec![0; len];
        self.disk.read_at(&mut buf, offset)?;
        Ok(buf)
    }

    /// Reads a fixed structure.
    pub(crate) fn read_struct<T: FromBytes>(&self, what: &str, offset: u64) -> Result<T> {
        let bytes = self.read_vec(what, offset, size_of::<T>())?;
        Ok(T::read_from_bytes(&bytes).expect("as many bytes were read as it has"))
    }
}

/// A table of fixed entries in a file, which is never read as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    what: &'static str,
    start: u64,
    count: u64,
    width: u64,
}

impl Table {
    /// A table of `count` entries of `width` bytes (a power of two up to 16) at `start`, all of which must lie in the file.
    pub(crate) fn new(file: &ImageFile, what: &'static str, start: u64, count: u64, width: u64) -> Result<Self> {
        let len = count.checked_mul(width).ok_or_else(|| file.corrupt(what, start, "its length overflows"))?;
        file.check(what, start, len)?;
        Ok(Self { what, start, count, width })
    }

    /// What it is called.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// Where an entry lies in the file, for messages.
    pub(crate) fn place_of(&self, index: u64) -> u64 {
        self.start.saturating_add(index.saturating_mul(self.width))
    }

    /// The entries from `index` on, as far as the page reaches: at least one.
    pub(crate) fn entries(&self, file: &ImageFile, index: u64) -> Result<Entries> {
        if index >= self.count {
            return Err(file.corrupt(self.what, self.start, "it has too few entries"));
        }
        let len = self.count.saturating_mul(self.width);
        let at = index.saturating_mul(self.width);
        let page = at.saturating_sub(at % PAGE);
        let page_len = usize::try_from(len.saturating_sub(page).min(PAGE)).expect("at most a page");
        let offset = self.start.saturating_add(page);
        let key = PageKey { file: file.number, offset, len: page_len };
        let read = || file.read_vec(self.what, offset, page_len).map(Arc::from);
        let bytes = file.caches.page(key, read)?;
        Ok(Entries { bytes, from: usize::try_from(at.saturating_sub(page)).expect("at most a page") })
    }
}

/// Bytes of consecutive entries of a table.
#[derive(Debug)]
pub(crate) struct Entries {
    bytes: Arc<[u8]>,
    from: usize,
}

impl Deref for Entries {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or(&[])
    }
}
