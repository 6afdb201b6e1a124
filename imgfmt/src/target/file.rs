//! A regular file as a target: sparse, and under its name only when it is whole.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::platform;
use crate::target::Target;

/// Granularity at which zeros become holes.
const PAGE: usize = 4096;

/// A new file. What is not written is a hole.
#[derive(Debug)]
pub struct FileTarget {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    len: u64,
    finished: bool,
}

impl FileTarget {
    /// Starts a file of `len` bytes beside `path`, whose name it takes when it is finished (replacing a file there, or the file
    /// that a symbolic link there leads to).
    pub fn create(path: &Path, len: u64) -> Result<Self> {
        let real = std::fs::canonicalize(path);
        let path = real.as_deref().unwrap_or(path);
        let mut name =
            path.file_name().ok_or_else(|| Error::NotFound(format!("{} names no file", path.display())))?.to_owned();
        name.push(format!(".hikae-{}", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = OpenOptions::new().write(true).read(true).create_new(true).open(&temporary);
        let file = file.map_err(|error| Error::io("create", &temporary, error))?;
        platform::make_sparse(&file).map_err(|error| Error::io("create", &temporary, error))?;
        let target = Self { file, temporary, path: path.to_owned(), len, finished: false };
        target.file.set_len(len).map_err(|error| Error::io("set the length of", &target.temporary, error))?;
        Ok(target)
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
                platform::write_all_at(&self.file, run, at)
                    .map_err(|error| Error::io("write", &self.temporary, error))?;
            }
            at = at.saturating_add(u64::try_from(len).unwrap_or(0));
        }
        Ok(())
    }

    fn zero_at(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("sync", &self.temporary, error))?;
        std::fs::rename(&self.temporary, &self.path).map_err(|error| Error::io("rename", &self.temporary, error))?;
        self.finished = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        platform::sync_folder(folder).map_err(|error| Error::io("sync the folder of", &self.path, error))
    }
}

impl Drop for FileTarget {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: what was not finished is of no use.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
