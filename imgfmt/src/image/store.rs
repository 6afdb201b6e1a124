//! Where packs lie: the one small interface through which every byte of an image passes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::platform;

/// A pack that can be read at any offset, by any number of threads.
pub trait PackFile: Send + Sync + Debug {
    /// Length in bytes as it is now.
    fn len(&self) -> Result<u64>;
    /// Fills all of `buf` from `offset`, or fails.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;
}

/// A pack that is being written, front to back.
pub trait NewPack: Send + Debug {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes everything appended so far durable. Where that fails, nothing of the pack is reused.
    fn sync(&mut self) -> Result<()>;
    /// The same file for reading what was appended so far.
    fn reader(&self) -> Arc<dyn PackFile>;
    /// Gives the finished pack its final name, durably. Everything must have been synced before.
    fn publish(self: Box<Self>) -> Result<()>;
}

/// A set of packs: a folder, or later an object store.
pub trait PackStore: Send + Sync + Debug {
    /// Numbers and lengths in bytes of the finished packs, ascending by number.
    fn list(&self) -> Result<Vec<(u32, u64)>>;
    /// Numbers of the packs that an interrupted writer left, ascending.
    fn list_partial(&self) -> Result<Vec<u32>>;
    /// Opens a finished pack for reading. [`Error::NotFound`] where there is none with this number.
    fn open(&self, number: u32) -> Result<Arc<dyn PackFile>>;
    /// Opens an unfinished pack for reading.
    fn open_partial(&self, number: u32) -> Result<Arc<dyn PackFile>>;
    /// Starts a new pack. Fails where one with this number exists, finished or not.
    fn create(&self, number: u32) -> Result<Box<dyn NewPack>>;
    /// Continues an unfinished pack after cutting it to `len` bytes.
    fn resume(&self, number: u32, len: u64) -> Result<Box<dyn NewPack>>;
    /// Removes an unfinished pack.
    fn delete_partial(&self, number: u32) -> Result<()>;
    /// What people call the pack: its file name.
    fn name(&self, number: u32) -> String;
    /// The path of a file that belongs to the image but is no pack, such as `NAME.hik.lock`; `suffix` is "lock".
    fn side_file(&self, suffix: &str) -> PathBuf;
    /// Bytes that can still be written, where that is known.
    fn free_space(&self) -> Option<u64>;
}

/// Packs as files in a folder, and for reading in further folders.
#[derive(Clone, Debug)]
pub struct FolderStore {
    /// `NAME.hik`.
    path: PathBuf,
    stem: String,
    folders: Vec<PathBuf>,
}

/// Ends the name of a pack that is being written.
const PARTIAL: &str = ".partial";

impl FolderStore {
    /// The image `NAME.hik` in its folder; packs may also lie in `more` folders. Nothing needs to exist yet.
    pub fn new(path: &Path, more: &[PathBuf]) -> Result<Self> {
        let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".hik"));
        let Some(stem) = stem.filter(|stem| !stem.is_empty()) else {
            let path = path.display();
            return Err(Error::Refused(format!("{path} is no name of a hikae image: it must end in .hik")));
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut folders = vec![folder];
        folders.extend_from_slice(more);
        Ok(Self { path: path.to_owned(), stem: stem.to_owned(), folders })
    }

    /// The path of pack 0, which names the image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that new packs are written into.
    pub fn folder(&self) -> &Path {
        self.folders.first().map_or(Path::new("."), PathBuf::as_path)
    }

    fn number_of(&self, name: &str) -> Option<u32> {
        let rest = name.strip_prefix(&self.stem)?.strip_suffix(".hik")?;
        if rest.is_empty() {
            return Some(0);
        }
        let digits = rest.strip_prefix('.')?;
        let number = digits.parse().ok().filter(|number| *number > 0)?;
        (self.name(number) == name).then_some(number)
    }

    /// Packs by number with their path and length; a pack in an earlier folder hides one of the same number in a later.
    fn scan(&self, ending: &str) -> Result<BTreeMap<u32, (PathBuf, u64)>> {
        let mut found = BTreeMap::new();
        for folder in &self.folders {
            let entries = match std::fs::read_dir(folder) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.map_err(|error| Error::io("list", folder, error))?,
            };
            for entry in entries {
                let entry = entry.map_err(|error| Error::io("list", folder, error))?;
                let name = entry.file_name();
                let Some(number) =
                    name.to_str().and_then(|name| name.strip_suffix(ending)).and_then(|name| self.number_of(name))
                else {
                    continue;
                };
                let path = entry.path();
                let metadata = std::fs::metadata(&path).map_err(|error| Error::io("examine", &path, error))?;
                if metadata.is_file() {
                    found.entry(number).or_insert((path, metadata.len()));
                }
            }
        }
        Ok(found)
    }

    fn path_of(&self, number: u32) -> Result<PathBuf> {
        let name = self.name(number);
        let found = self.folders.iter().map(|folder| folder.join(&name)).find(|path| path.is_file());
        found.ok_or_else(|| {
            let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
            Error::NotFound(format!("{name} is missing: it is not in {}", folders.join(", ")))
        })
    }

    /// Says whether a file, by whatever path, is one of the packs, finished or not.
    pub fn has_pack(&self, file: &Path) -> Result<bool> {
        if !file.exists() {
            return Ok(false);
        }
        for ending in ["", PARTIAL] {
            for (path, _) in self.scan(ending)?.into_values() {
                if platform::same_file(&path, file).map_err(|error| Error::io("examine", &path, error))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn partial_path(&self, number: u32) -> PathBuf {
        self.folder().join(self.name(number) + PARTIAL)
    }
}

impl PackStore for FolderStore {
    fn list(&self) -> Result<Vec<(u32, u64)>> {
        Ok(self.scan("")?.into_iter().map(|(number, (_, len))| (number, len)).collect())
    }

    fn list_partial(&self) -> Result<Vec<u32>> {
        Ok(self.scan(PARTIAL)?.into_keys().collect())
    }

    fn open(&self, number: u32) -> Result<Arc<dyn PackFile>> {
        let path = self.path_of(number)?;
        let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        Ok(Arc::new(FilePack { file, path }))
    }

    fn open_partial(&self, number: u32) -> Result<Arc<dyn PackFile>> {
        let path = self.partial_path(number);
        let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        Ok(Arc::new(FilePack { file, path }))
    }

    fn create(&self, number: u32) -> Result<Box<dyn NewPack>> {
        let path = self.partial_path(number);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|error| Error::io("create", &path, error))?;
        Ok(Box::new(FileNewPack::new(self, number, path, file, 0)))
    }

    fn resume(&self, number: u32, len: u64) -> Result<Box<dyn NewPack>> {
        let path = self.partial_path(number);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|error| Error::io("open", &path, error))?;
        file.set_len(len).map_err(|error| Error::io("shorten", &path, error))?;
        Ok(Box::new(FileNewPack::new(self, number, path, file, len)))
    }

    fn delete_partial(&self, number: u32) -> Result<()> {
        let path = self.partial_path(number);
        std::fs::remove_file(&path).map_err(|error| Error::io("remove", path, error))
    }

    fn name(&self, number: u32) -> String {
        if number == 0 { format!("{}.hik", self.stem) } else { format!("{}.{number:05}.hik", self.stem) }
    }

    fn side_file(&self, suffix: &str) -> PathBuf {
        self.folder().join(format!("{}.hik.{suffix}", self.stem))
    }

    fn free_space(&self) -> Option<u64> {
        platform::free_space(self.folder())
    }
}

/// A pack in a file.
#[derive(Debug)]
struct FilePack {
    file: File,
    path: PathBuf,
}

impl PackFile for FilePack {
    fn len(&self) -> Result<u64> {
        let metadata = self.file.metadata().map_err(|error| Error::io("examine", &self.path, error))?;
        Ok(metadata.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        platform::read_exact_at(&self.file, buf, offset).map_err(|source| Error::Io {
            action: "read",
            what: format!("{} at byte {offset:#x}", self.path.display()),
            source,
        })
    }
}

/// A pack that is being written into a `.partial` file.
#[derive(Debug)]
struct FileNewPack {
    file: Arc<FilePack>,
    final_path: PathBuf,
    folder: PathBuf,
    /// Bytes appended so far.
    len: u64,
}

impl FileNewPack {
    fn new(store: &FolderStore, number: u32, path: PathBuf, file: File, len: u64) -> Self {
        let folder = store.folder().to_owned();
        Self { file: Arc::new(FilePack { file, path }), final_path: folder.join(store.name(number)), folder, len }
    }
}

impl NewPack for FileNewPack {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        platform::write_all_at(&self.file.file, bytes, self.len)
            .map_err(|error| Error::io("write", &self.file.path, error))?;
        self.len = self.len.saturating_add(crate::disk::buf_len(bytes));
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.file.file.sync_all().map_err(|error| {
            // From now on the system may show bytes that never reached the disk, and a later sync may succeed all the same. So nothing
            // of this pack may be taken up by the next writer.
            let _ = std::fs::remove_file(&self.file.path);
            Error::io("sync", &self.file.path, error)
        })
    }

    fn reader(&self) -> Arc<dyn PackFile> {
        Arc::<FilePack>::clone(&self.file)
    }

    fn publish(self: Box<Self>) -> Result<()> {
        // Never over an existing pack: the writer's lock makes a clash impossible, unless somebody put a file there.
        if self.final_path.exists() {
            return Err(Error::Refused(format!("{} exists already and is not replaced", self.final_path.display())));
        }
        std::fs::rename(&self.file.path, &self.final_path)
            .map_err(|error| Error::io("rename", &self.file.path, error))?;
        platform::sync_folder(&self.folder).map_err(|error| {
            // A pack that is not durable under its name must not look as if it were.
            let _ = std::fs::rename(&self.final_path, &self.file.path);
            Error::io("sync", &self.folder, error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_belong_to_each_other() {
        let store = FolderStore::new(Path::new("/tmp/home.pc.hik"), &[]).unwrap();
        for number in [0, 1, 99_999, 100_000, u32::MAX] {
            assert_eq!(store.number_of(&store.name(number)), Some(number));
        }
        for name in ["home.pc.1.hik", "home.pc.00000.hik", "home.pc.+0001.hik", "home.pcx.hik", "home.hik"] {
            assert_eq!(store.number_of(name), None, "{name}");
        }
        assert!(FolderStore::new(Path::new("/tmp/home.img"), &[]).is_err());
    }
}
