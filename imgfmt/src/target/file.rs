//! A regular file as a target: sparse, and under its name only when it is whole.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::platform;
use crate::target::Target;

/// Granularity at which zeros become holes.
const PAGE: usize = 4096;

/// A new file that has its name only once it is finished; until then it lies beside it under another one, and is removed when it is dropped.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl NewFile {
    /// Starts a file beside `path`, whose name it takes when it is finished (replacing a file there, or the file that a symbolic link there leads to).
    /// Where systems tell sparse files from others, it is one only if `sparse`.
    pub fn create(path: &Path, sparse: bool) -> Result<Self> {
        let real = std::fs::canonicalize(path);
        let path = real.as_deref().unwrap_or(path);
        let mut name =
            path.file_name().ok_or_else(|| Error::NotFound(format!("{} names no file", path.display())))?.to_owned();
        name.push(format!(".hikae-{}", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = OpenOptions::new().write(true).read(true).create_new(true).open(&temporary);
        let file = file.map_err(|error| Error::io("create", &temporary, error))?;
        let new = Self { file, temporary, path: path.to_owned(), finished: false };
        if sparse {
            platform::make_sparse(&new.file).map_err(|error| Error::io("create", &new.temporary, error))?;
        }
        Ok(new)
    }

    /// Sets its length; what was never written is zero.
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|error| Error::io("set the length of", &self.temporary, error))
    }

    /// Writes at a place.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        platform::write_all_at(&self.file, bytes, offset).map_err(|error| Error::io("write", &self.temporary, error))
    }

    /// Makes it durable and gives it its name.
    pub fn finish(mut self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("sync", &self.temporary, error))?;
        std::fs::rename(&self.temporary, &self.path).map_err(|error| Error::io("rename", &self.temporary, error))?;
        self.finished = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        platform::sync_folder(folder).map_err(|error| Error::io("sync the folder of", &self.path, error))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: what was not finished is of no use.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// A new file of a known length. What is not written is a hole.
#[derive(Debug)]
pub struct FileTarget {
    file: NewFile,
    len: u64,
}

impl FileTarget {
    /// Starts a sparse file of `len` bytes; see [`NewFile::create`].
    pub fn create(path: &Path, len: u64) -> Result<Self> {
        Self::of(NewFile::create(path, true)?, len)
    }

    /// Gives a new file its length.
    pub fn of(file: NewFile, len: u64) -> Result<Self> {
        file.set_len(len)?;
        Ok(Self { file, len })
    }
}

impl Target for FileTarget {
    fn len(&self) -> u64 {
        self.len
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let zeros = [0; PAGE];
        let is_hole = |page: &[u8]| zeros.get(..page.len()) == Some(page);
        let mut at = offset;
        // Runs of pages that are not zero are written with one call each.
        for run in bytes.chunks(PAGE).collect::<Vec<_>>().chunk_by(|a, b| is_hole(a) == is_hole(b)) {
            let len: usize = run.iter().map(|page| page.len()).sum();
            if run.first().is_some_and(|page| !is_hole(page)) {
                let start = usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
                let run = bytes.get(start..start.saturating_add(len)).expect("runs tile the buffer");
                self.file.write_at(run, at)?;
            }
            at = at.saturating_add(u64::try_from(len).unwrap_or(0));
        }
        Ok(())
    }

    fn zero_at(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.file.finish()
    }
}
