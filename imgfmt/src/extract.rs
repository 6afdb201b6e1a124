//! Extraction: files of a filesystem inside an image become files of this machine.
//!
//! Names and links in an image are untrusted. Whatever they say, nothing outside of the target folder is touched: every step
//! is relative to an open folder and follows no link, a folder that the filesystem names twice is taken once, and links are made but never
//! walked through. What cannot be kept is told; a file that cannot be read whole is left out (or salvaged on request), never shortened.
//!
//! The `walk` makes folders and finds files, the engine copies them on all cores, `finish` links, removes and dates folders at the end.

mod copy;
mod finish;
mod folder;
pub mod metadata;
mod name;
#[cfg(any(windows, test))]
mod reparse;
mod streams;
mod walk;

use std::path::Path;
use std::sync::Arc;

use crate::engine::{Run, run_ordered};
use crate::error::{Error, Result};
use crate::extract::folder::Folder;
use crate::extract::metadata::Keep;
use crate::extract::walk::Walk;
use crate::filesystem::files::{FileSystem, NodeId};

/// Notes and problems that are kept in words; all of them are counted.
const MAX_TOLD: usize = 10_000;

/// What becomes of named streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Streams {
    /// They are left out and counted.
    #[default]
    LeaveOut,
    /// Each becomes a file `NAME:STREAM` beside its file.
    AsFiles,
    /// Each becomes an extended attribute `user.STREAM`.
    AsXattrs,
    /// Each stays a stream of its file. Only Windows has them.
    AsStreams,
}

/// How to extract.
#[derive(Clone, Copy, Debug)]
pub struct ExtractOptions {
    /// What to keep beside the content.
    pub keep: Keep,
    /// Take folders with everything below them.
    pub recursive: bool,
    /// Write only what differs from what is in the target.
    pub update: bool,
    /// Remove from the target what the source does not have.
    pub delete: bool,
    /// Named streams.
    pub streams: Streams,
    /// Keep files that cannot be read whole, with a marker in place of what is missing.
    pub salvage: bool,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            keep: Keep::SAFE,
            recursive: false,
            update: false,
            delete: false,
            streams: Streams::LeaveOut,
            salvage: false,
        }
    }
}

/// Something the user should know of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The path as the image has it. Untrusted text.
    pub path: String,
    /// What is to be known, as a phrase.
    pub what: String,
}

/// What an extraction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Folders made or found.
    pub folders: u64,
    /// Files written.
    pub files: u64,
    /// Bytes written into them.
    pub bytes: u64,
    /// Files that were right already.
    pub unchanged: u64,
    /// Symbolic links, hard links, and special nodes made.
    pub links: u64,
    /// Names removed from the target.
    pub removed: u64,
    /// Named streams that were left out.
    pub streams_left_out: u64,
    /// Files that are only the disk once more ([`FileSystem::is_disk_file`]) and that were left out.
    pub disk_files_left_out: u64,
    /// Number of problems: something is not in the target that should be.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<Note>,
    /// Number of notes: something is in the target, but not just as it was.
    pub note_count: u64,
    /// The first of them.
    pub notes: Vec<Note>,
}

impl Extracted {
    /// Adds what another part of the same run did.
    fn merge(&mut self, other: Self) {
        for (mine, more) in [
            (&mut self.folders, other.folders),
            (&mut self.files, other.files),
            (&mut self.bytes, other.bytes),
            (&mut self.unchanged, other.unchanged),
            (&mut self.links, other.links),
            (&mut self.removed, other.removed),
            (&mut self.streams_left_out, other.streams_left_out),
            (&mut self.disk_files_left_out, other.disk_files_left_out),
            (&mut self.problem_count, other.problem_count),
            (&mut self.note_count, other.note_count),
        ] {
            *mine = mine.saturating_add(more);
        }
        self.problems.extend(other.problems);
        self.notes.extend(other.notes);
    }

    fn problem(&mut self, path: &str, what: impl Into<String>) {
        self.problem_count = self.problem_count.saturating_add(1);
        if self.problems.len() < MAX_TOLD {
            self.problems.push(Note { path: path.to_owned(), what: what.into() });
        }
    }

    fn note(&mut self, path: &str, what: impl Into<String>) {
        self.note_count = self.note_count.saturating_add(1);
        if self.notes.len() < MAX_TOLD {
            self.notes.push(Note { path: path.to_owned(), what: what.into() });
        }
    }
}

/// Decides whether names that the source does not have may be removed; it is given them with the target's path before them.
pub type Confirm<'a> = dyn Fn(&[String]) -> bool + 'a;

/// Extracts `node`, which is called `path` in messages, as `name` into the folder `target` (made where it is not there, its parents not).
///
/// A folder is taken without the disk files in it ([`FileSystem::is_disk_file`]); `node` itself may be one.
/// Problems with single files do not end the run: they are in the report. It ends early where the target cannot be written any more.
#[expect(clippy::too_many_arguments, reason = "from where, to where, and how")]
pub fn extract(
    files: &dyn FileSystem,
    node: NodeId,
    path: &str,
    target: &Path,
    name: &[u8],
    options: &ExtractOptions,
    confirm: &Confirm<'_>,
    run: Run<'_>,
) -> Result<Extracted> {
    let root = Arc::new(Folder::open(target)?);
    let mut walk = Walk::new(files, &root, *options);
    walk.start(node, path, name)?;
    let mut copied = finish::Later::default();
    run_ordered(
        run,
        || walk.next_job(),
        copy::Hands::default,
        |hands, job| copy::work(files, options, hands, job, run.cancel),
        |done| copied.take(done, run.progress),
    )?;
    let mut later = walk.into_later();
    later.report.merge(copied.report);
    finish::finish(&root, later, options, confirm, run)
}

/// Says whether an error of the target means that nothing more can be written.
fn is_fatal(error: &Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error {
        Error::Io { source, action, .. } => {
            matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem) || *action == "write to"
        }
        _ => false,
    }
}
