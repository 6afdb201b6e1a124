//! The file that holds an overlay, and who owns it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::overlay::layout::{HOLDER_SLOT, SLOT_LEN};
use crate::platform;

/// Bytes of the holder's process id that are looked at.
const HOLDER_LEN: usize = 20;

/// How long a lock is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where the bytes of an overlay lie. Reads and writes come from many threads.
pub trait Storage: Send + Sync {
    /// Fills all of `buf` from `offset`, or fails.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, or fails; a write past the end makes it longer.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Returns once all that was written is durable.
    fn sync(&self) -> io::Result<()>;
    /// What it is called in messages.
    fn name(&self) -> String;
}

/// An overlay's file, open and locked.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
}

impl FileStorage {
    /// Makes a file that is there with all that `fill` writes, or not at all. Fails where there is one with this name.
    pub(super) fn create(path: &Path, fill: impl FnOnce(Arc<dyn Storage>) -> Result<()>) -> Result<()> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}.new", uuid::Uuid::new_v4().simple()));
        let unfinished = PathBuf::from(unfinished);
        let made = OpenOptions::new().read(true).write(true).create_new(true).open(&unfinished);
        let file = made.map_err(|error| Error::io("make", &unfinished, error))?;
        let storage = Arc::new(Self { file, path: path.to_owned() });
        let filled = fill(storage).and_then(|()| give_name(&unfinished, path));
        // Where it has its name already, this was its other name.
        let _ = std::fs::remove_file(&unfinished);
        filled
    }

    /// Opens and locks a file: for this process alone, or for reading, which others may do as well.
    pub(super) fn open(path: &Path, read_only: bool) -> Result<Self> {
        let storage = Self::open_unlocked(path, !read_only)?;
        let lock =
            || if read_only { platform::try_lock_shared(&storage.file) } else { platform::try_lock(&storage.file) };
        let mut locked = lock();
        let started = Instant::now();
        // A program that is being started holds the locks of the one that starts it for a moment.
        while matches!(locked, Err(TryLockError::WouldBlock)) && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
            locked = lock();
        }
        match locked {
            Ok(()) => Ok(storage),
            Err(TryLockError::WouldBlock) => Err(Error::Refused(format!(
                "overlay {} is in use by {}: one process at a time can have it; stop that one first",
                path.display(),
                storage.holder()
            ))),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
        }
    }

    /// Opens a file to look at what it says of itself, whoever has it; and says who.
    pub(super) fn look(path: &Path) -> Result<(Self, Option<String>)> {
        let storage = Self::open_unlocked(path, false)?;
        let holder = match platform::try_lock_shared(&storage.file) {
            // Who only looks keeps nobody from it.
            Ok(()) => {
                platform::unlock(&storage.file).map_err(|error| Error::io("unlock", path, error))?;
                None
            }
            Err(TryLockError::WouldBlock) => Some(storage.holder()),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path, error)),
        };
        Ok((storage, holder))
    }

    fn open_unlocked(path: &Path, write: bool) -> Result<Self> {
        // A FIFO would be waited for: what a name leads to is looked at first.
        let kind = std::fs::metadata(path).map_err(|error| Error::io("examine", path, error))?.file_type();
        if !kind.is_file() {
            let kind = platform::kind_name(kind);
            return Err(Error::Refused(format!("{} is {kind}: an overlay is a regular file", path.display())));
        }
        let opened = OpenOptions::new().read(true).write(write).open(path);
        let file = opened.map_err(|error| Error::io("open", path, error))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Who has the lock, as the file says.
    fn holder(&self) -> String {
        let mut bytes = [0; HOLDER_LEN];
        let read = self.read_at(&mut bytes, HOLDER_SLOT.saturating_mul(SLOT_LEN));
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let id = std::str::from_utf8(line).ok().and_then(|line| line.parse::<u32>().ok());
        match id.filter(|_| read.is_ok()) {
            Some(id) => format!("process {id}"),
            None => "another process".to_owned(),
        }
    }
}

/// Gives a finished file its name, unless another one has it.
fn give_name(unfinished: &Path, path: &Path) -> Result<()> {
    match std::fs::hard_link(unfinished, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Error::io("make", path, error)),
        // Filesystems without hard links, such as FAT.
        Err(_) if std::fs::symlink_metadata(path).is_err() => {
            std::fs::rename(unfinished, path).map_err(|error| Error::io("make", path, error))?;
        }
        Err(error) => return Err(Error::io("make", path, error)),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    platform::sync_folder(folder).map_err(|error| Error::io("sync the folder of", path, error))
}

impl Storage for FileStorage {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        platform::read_exact_at(&self.file, buf, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        platform::write_all_at(&self.file, bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
