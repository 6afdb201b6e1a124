//! The work on one file: its bytes, its streams, its metadata.

use std::ffi::OsString;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::disk::{ExtentKind, buf_len};
use crate::engine::Cancel;
use crate::error::{Error, Result, full_message};
use crate::extract::folder::{Folder, Held, NewFile, apply_to_file, as_kept};
use crate::extract::metadata::Metadata;
use crate::extract::streams::{KeptStreams, StreamsOf, keep_streams};
use crate::extract::{ExtractOptions, Streams, is_fatal};
use crate::filesystem::files::{Attributes, Content, FileSystem, NodeId, NodeKind};
use crate::platform;

/// Files from this length on are copied in pieces, by all workers at once.
pub(crate) const LARGE: u64 = 8 << 20;
/// Bytes of a piece.
pub(crate) const PIECE: u64 = 4 << 20;
/// Bytes read and written at once.
const BUF: usize = 1 << 20;
/// Granularity at which unreadable bytes are told from readable ones.
const SALVAGE_UNIT: usize = 4096;
/// What stands in a salvaged file where its bytes could not be read.
const MARKER: &[u8; 32] = b"<unreadable in the hikae image>\n";
/// Permissions of files of filesystems that have none.
const FILE_PERMISSIONS: u16 = 0o644;

/// `FILE_ATTRIBUTE_DIRECTORY`: a link to a folder has it, too.
const DOS_FOLDER: u32 = 0x10;

/// Something to copy.
pub(crate) enum Job {
    /// A whole file.
    Whole { folder: Arc<Folder>, name: OsString, node: NodeId, attributes: Attributes, path: String },
    /// A piece of a large one.
    Piece { file: Arc<Begun>, start: u64, end: u64, last: bool },
    /// A link or a special node.
    Other { folder: Arc<Folder>, name: OsString, node: NodeId, attributes: Attributes, path: String },
}

/// What became of it.
pub(crate) enum Done {
    /// A file is in the target; `notes` is what was not kept.
    File { path: String, bytes: u64, unchanged: bool, streams_left_out: u64, notes: Vec<String> },
    /// A link or special node is.
    Other { path: String, notes: Vec<String> },
    /// A piece is written; the last one hands over the file.
    Piece { bytes: u64, last: Option<Arc<Begun>> },
    /// Nothing is in the target.
    Problem { path: String, what: String },
}

/// What a worker keeps between jobs.
#[derive(Default)]
pub(crate) struct Hands {
    buf: Vec<u8>,
    other: Vec<u8>,
}

/// Why a copy ended early.
pub(crate) enum Failure {
    /// The source: the file is a problem.
    Source(Error),
    /// The target.
    Target(Error),
}

/// A file whose content is being copied.
pub(crate) struct Begun {
    new: NewFile,
    content: Box<dyn Content>,
    name: OsString,
    pub(crate) path: String,
    metadata: Metadata,
    streams: KeptStreams,
    notes: Mutex<Vec<String>>,
    /// The first thing that went wrong in any piece.
    failed: Mutex<Option<String>>,
}

impl Begun {
    /// Opens the source and starts the target.
    pub(crate) fn new(
        files: &dyn FileSystem,
        options: &ExtractOptions,
        folder: Arc<Folder>,
        name: OsString,
        node: NodeId,
        attributes: &Attributes,
        path: String,
    ) -> Result<Self> {
        let content = files.open(node, None)?;
        let mut metadata = Metadata::of(files, node, attributes, options.keep, FILE_PERMISSIONS)?;
        let mut notes = Vec::new();
        let new = folder.new_file()?;
        let of = StreamsOf { node, name: &name, new: Some(&new) };
        let streams = keep_streams(files, options, &folder, of, &mut metadata, &mut notes)?;
        // Some programs take no sparse files: Hyper-V as disks, Windows as page files. So only what has holes becomes one.
        let sparse = if has_hole(&*content) { platform::make_sparse(&new.file) } else { Ok(()) };
        sparse
            .and_then(|()| new.file.set_len(content.len()))
            .map_err(|error| Error::io("set the length of", folder.path().join(&name), error))?;
        Ok(Self { new, content, name, path, metadata, streams, notes: Mutex::new(notes), failed: Mutex::new(None) })
    }

    /// Bytes of the content.
    pub(crate) fn len(&self) -> u64 {
        self.content.len()
    }

    /// Ends the file: it is in the target, or a problem.
    pub(crate) fn finish(self) -> Result<Done> {
        let Self { new, content, name, path, metadata, streams, notes, failed } = self;
        if let Some(what) = failed.into_inner().expect("no holder of the lock panics") {
            return Ok(Done::Problem { path, what });
        }
        let mut notes = notes.into_inner().expect("no holder of the lock panics");
        notes.extend(new.apply(&metadata));
        match new.finish(&name) {
            Ok(()) => {
                let bytes = content.len().saturating_add(streams.written);
                Ok(Done::File { path, bytes, unchanged: false, streams_left_out: streams.left_out, notes })
            }
            Err(error) if is_fatal(&error) => Err(error),
            Err(error) => Ok(Done::Problem { path, what: full_message(&error) }),
        }
    }
}

/// Does a job. The error is one that ends the run.
pub(crate) fn work(
    files: &dyn FileSystem,
    options: &ExtractOptions,
    hands: &mut Hands,
    job: Job,
    cancel: &Cancel,
) -> Result<Done> {
    match job {
        Job::Whole { folder, name, node, attributes, path } => {
            match whole(files, options, hands, &folder, name, node, &attributes, &path, cancel) {
                Ok(done) => Ok(done),
                Err(error) if is_fatal(&error) || matches!(error, Error::Cancelled) => Err(error),
                Err(error) => Ok(Done::Problem { path, what: full_message(&error) }),
            }
        }
        Job::Piece { file, start, end, last } => {
            let copied = copy_range(&*file.content, &file.new.file, start..end, hands, options.salvage, cancel);
            let bytes = end.saturating_sub(start);
            match copied {
                Ok(unreadable) => file.notes.lock().expect("no holder of the lock panics").extend(unreadable),
                Err(Failure::Target(error)) => return Err(error),
                Err(Failure::Source(error @ Error::Cancelled)) => return Err(error),
                Err(Failure::Source(error)) => {
                    file.failed.lock().expect("no holder of the lock panics").get_or_insert(full_message(&error));
                }
            }
            Ok(Done::Piece { bytes, last: last.then_some(file) })
        }
        Job::Other { folder, name, node, attributes, path } => {
            match other(files, options, &folder, &name, node, &attributes) {
                Ok(notes) => Ok(Done::Other { path, notes }),
                Err(error) if is_fatal(&error) => Err(error),
                Err(error) => Ok(Done::Problem { path, what: full_message(&error) }),
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one job")]
fn whole(
    files: &dyn FileSystem,
    options: &ExtractOptions,
    hands: &mut Hands,
    folder: &Arc<Folder>,
    name: OsString,
    node: NodeId,
    attributes: &Attributes,
    path: &str,
    cancel: &Cancel,
) -> Result<Done> {
    if options.update
        && let Some(done) = unchanged(files, options, hands, folder, &name, node, attributes, path)?
    {
        return Ok(done);
    }
    let begun = Begun::new(files, options, Arc::clone(folder), name, node, attributes, path.to_owned())?;
    let len = begun.len();
    match copy_range(&*begun.content, &begun.new.file, 0..len, hands, options.salvage, cancel) {
        Ok(unreadable) => begun.notes.lock().expect("no holder of the lock panics").extend(unreadable),
        Err(Failure::Source(error) | Failure::Target(error)) => return Err(error),
    }
    begun.finish()
}

/// Says so where the target has the file's content already, and renews streams and metadata where they differ. Content of the same length and time is
/// taken for the same; with another time it is compared byte for byte.
#[expect(clippy::too_many_arguments, reason = "the parts of one job")]
fn unchanged(
    files: &dyn FileSystem,
    options: &ExtractOptions,
    hands: &mut Hands,
    folder: &Arc<Folder>,
    name: &OsString,
    node: NodeId,
    attributes: &Attributes,
    path: &str,
) -> Result<Option<Done>> {
    let Some(existing) = folder.existing(name)? else { return Ok(None) };
    if existing.kind != NodeKind::File || existing.len != attributes.len {
        return Ok(None);
    }
    let is_dated_so = options.keep.times && attributes.modified.map(as_kept) == Some(existing.modified);
    if !is_dated_so && !holds(&folder.read_file(name)?, &*files.open(node, None)?, hands)? {
        return Ok(None);
    }
    let mut metadata = Metadata::of(files, node, attributes, options.keep, FILE_PERMISSIONS)?;
    let mut notes = Vec::new();
    if options.streams == Streams::AsStreams && !files.streams(node)?.is_empty() {
        return Ok(None);
    }
    let of = StreamsOf { node, name, new: None };
    let streams = keep_streams(files, options, folder, of, &mut metadata, &mut notes)?;
    let keeps_xattrs = options.keep.xattrs || options.streams == Streams::AsXattrs;
    match folder.holds_metadata(name, &existing, &metadata, keeps_xattrs)? {
        Held::All => {}
        Held::NotAll => notes.extend(apply_to_file(&folder.read_file(name)?, &metadata)),
        // A new file is the one that surely lacks them.
        Held::More => return Ok(None),
    }
    let (path, unchanged) = (path.to_owned(), !streams.any_written);
    Ok(Some(Done::File { path, bytes: streams.written, unchanged, streams_left_out: streams.left_out, notes }))
}

/// Says whether a file, which is as long, holds the content.
pub(crate) fn holds(file: &File, content: &dyn Content, hands: &mut Hands) -> Result<bool> {
    let len = content.len();
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len.saturating_sub(at)).unwrap_or(BUF).min(BUF);
        hands.buf.resize(part, 0);
        hands.other.resize(part, 0);
        content.read_at(&mut hands.buf, at)?;
        if platform::read_exact_at(file, &mut hands.other, at).is_err() || hands.buf != hands.other {
            return Ok(false);
        }
        at = at.saturating_add(buf_len(&hands.buf));
    }
    Ok(true)
}

/// Says whether a content has a hole. What cannot be told is found out by who reads it.
fn has_hole(content: &dyn Content) -> bool {
    let mut at = 0;
    while at < content.len() {
        match content.extent_at(at) {
            Ok(extent) if extent.kind == ExtentKind::Zero => return true,
            Ok(extent) if extent.end() > at => at = extent.end(),
            _ => return false,
        }
    }
    false
}

/// Copies a range, holes as holes. Returns phrases for what was salvaged around.
pub(crate) fn copy_range(
    content: &dyn Content,
    file: &File,
    range: Range<u64>,
    hands: &mut Hands,
    salvage: bool,
    cancel: &Cancel,
) -> Result<Vec<String>, Failure> {
    let mut unreadable = Vec::new();
    let mut at = range.start;
    while at < range.end {
        cancel.check().map_err(Failure::Source)?;
        let extent = match content.extent_at(at) {
            Ok(extent) if extent.end() > at => extent,
            Ok(_) => return Err(Failure::Source(Error::corrupt("extent map of a file", at, "an extent is empty"))),
            Err(error) => return Err(Failure::Source(error)),
        };
        let end = extent.end().min(range.end);
        if extent.kind == ExtentKind::Zero {
            at = end;
            continue;
        }
        let part = usize::try_from(end.saturating_sub(at)).unwrap_or(BUF).min(BUF);
        hands.buf.resize(part, 0);
        match content.read_at(&mut hands.buf, at) {
            Ok(()) => {}
            Err(error) if salvage => unreadable.extend(salvage_around(content, &mut hands.buf, at, &error)),
            Err(error) => return Err(Failure::Source(error)),
        }
        platform::write_all_at(file, &hands.buf, at)
            .map_err(|error| Failure::Target(Error::io("write to", "the target", error)))?;
        at = at.saturating_add(buf_len(&hands.buf));
    }
    Ok(unreadable)
}

/// Reads what can be read of `buf`, unit by unit, and marks the rest.
fn salvage_around(content: &dyn Content, buf: &mut [u8], offset: u64, error: &Error) -> Option<String> {
    let mut lost = 0_u64;
    let mut at = offset;
    for unit in buf.chunks_mut(SALVAGE_UNIT) {
        if content.read_at(unit, at).is_err() {
            unit.iter_mut().zip(MARKER.iter().cycle()).for_each(|(byte, mark)| *byte = *mark);
            lost = lost.saturating_add(buf_len(unit));
        }
        at = at.saturating_add(buf_len(unit));
    }
    let reason = full_message(error);
    (lost > 0).then(|| format!("{lost} bytes near byte {offset:#x} are lost and marked in the file: {reason}"))
}

fn other(
    files: &dyn FileSystem,
    options: &ExtractOptions,
    folder: &Arc<Folder>,
    name: &OsString,
    node: NodeId,
    attributes: &Attributes,
) -> Result<Vec<String>> {
    let metadata = Metadata::of(files, node, attributes, options.keep, FILE_PERMISSIONS)?;
    if attributes.kind == NodeKind::Symlink {
        let target = files.link_target(node)?;
        if target.is_empty() || target.contains(&0) {
            return Err(Error::corrupt("symbolic link", 0, "its target is empty or holds a zero byte"));
        }
        let to_folder = attributes.dos_attributes.is_some_and(|bits| bits & DOS_FOLDER != 0);
        folder.symlink(name, &target, to_folder)?;
        // What a link's own attributes say matters nowhere, and most systems cannot set them.
        let metadata = Metadata { xattrs: Vec::new(), ..metadata };
        return Ok(folder.apply_to_name(name, attributes.kind, &metadata));
    }
    folder.special(name, attributes.kind)?;
    Ok(folder.apply_to_name(name, attributes.kind, &metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Extent;

    /// A content of extents of 100 bytes.
    #[derive(Debug)]
    struct Extents(Vec<ExtentKind>);

    impl Content for Extents {
        fn len(&self) -> u64 {
            u64::try_from(self.0.len()).unwrap() * 100
        }

        fn read_at(&self, _: &mut [u8], _: u64) -> Result<()> {
            Err(Error::Cancelled)
        }

        fn extent_at(&self, offset: u64) -> Result<Extent> {
            let kind = self.0[usize::try_from(offset / 100).unwrap()];
            if kind == ExtentKind::Bad {
                return Err(Error::Cancelled);
            }
            Ok(Extent { offset, len: 100 - offset % 100, kind })
        }

        fn places(&self) -> Option<Vec<Range<u64>>> {
            None
        }
    }

    #[test]
    fn holes_are_found_wherever_they_lie() {
        use ExtentKind::{Bad, Data, Zero};
        for (extents, expected) in [
            (vec![], false),
            (vec![Data, Data], false),
            (vec![Zero], true),
            (vec![Data, Data, Zero], true),
            (vec![Data, Zero, Data], true),
            (vec![Data, Bad, Zero], false),
        ] {
            assert_eq!(has_hole(&Extents(extents.clone())), expected, "{extents:?}");
        }
    }
}
