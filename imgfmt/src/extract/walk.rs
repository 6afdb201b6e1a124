//! The walk through the source: makes folders in the target and hands out what is to be copied.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{Result, full_message};
use crate::extract::copy::{Begun, Job, LARGE, PIECE};
use crate::extract::finish::Later;
use crate::extract::folder::{Folder, key};
use crate::extract::metadata::Metadata;
use crate::extract::name::{other_name, stream_file_name, target_name};
use crate::extract::streams::{StreamsOf, keep_streams};
use crate::extract::{ExtractOptions, Streams, is_fatal};
use crate::filesystem::files::{Attributes, Entry, FileSystem, NodeId, NodeKind};

/// Folders within folders; each is an open file while its content is walked.
const MAX_DEPTH: usize = 400;
/// Permissions of folders of filesystems that have none.
const FOLDER_PERMISSIONS: u16 = 0o755;

/// Names in the target that the source does not have, by their key, with whether each is a folder.
type Extra = HashMap<OsString, (OsString, bool)>;

/// A folder that is being walked.
struct Frame {
    folder: Arc<Folder>,
    /// Names from the target down to it.
    place: Vec<OsString>,
    /// In the image, for messages.
    path: String,
    /// What is still to do, last first.
    entries: Vec<Entry>,
    /// Names in the target that the source has, by their key.
    taken: HashSet<OsString>,
    /// Names of the source that were met.
    exact: HashSet<Vec<u8>>,
    /// Names that were in the target before anything was copied into it and that the source was not seen to have, with
    /// whether each is a folder. Listed ahead of the copies, whose unfinished files would be among them.
    extra: Extra,
}

impl Frame {
    /// Claims a name for something of the source. Returns false where it is taken already.
    fn claim(&mut self, name: &OsStr) -> bool {
        let key = key(name);
        self.extra.remove(&key);
        self.taken.insert(key)
    }
}

/// A large file whose pieces are handed out.
struct Pieces {
    begun: Arc<Begun>,
    next: u64,
    len: u64,
}

fn by_key(entries: Vec<(OsString, bool)>) -> Extra {
    entries.into_iter().map(|(name, is_folder)| (key(&name), (name, is_folder))).collect()
}

/// The walk.
pub(crate) struct Walk<'a> {
    files: &'a dyn FileSystem,
    options: ExtractOptions,
    frames: Vec<Frame>,
    pieces: Option<Pieces>,
    /// Folders that were entered: none is entered twice, so that loops and cross links end.
    entered: HashSet<NodeId>,
    /// First names of files with several.
    first_names: HashMap<NodeId, (Vec<OsString>, OsString)>,
    later: Later,
    /// Jobs that were found ahead of their turn.
    ready: Vec<Job>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(files: &'a dyn FileSystem, root: &Arc<Folder>, options: ExtractOptions) -> Self {
        let frame = Frame {
            folder: Arc::clone(root),
            place: Vec::new(),
            path: String::new(),
            entries: Vec::new(),
            taken: HashSet::new(),
            exact: HashSet::new(),
            extra: HashMap::new(),
        };
        Self {
            files,
            options,
            frames: vec![frame],
            pieces: None,
            entered: HashSet::new(),
            first_names: HashMap::new(),
            later: Later::default(),
            ready: Vec::new(),
        }
    }

    /// What is left for the end.
    pub(crate) fn into_later(self) -> Later {
        self.later
    }

    /// Begins with one node, which becomes `name` in the target folder.
    pub(crate) fn start(&mut self, node: NodeId, path: &str, name: &[u8]) -> Result<()> {
        if let Some(frame) = self.frames.first_mut() {
            frame.path = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        }
        let attributes = self.files.attributes(node)?;
        let kind = Some(attributes.kind);
        self.node(Entry { name: name.to_vec(), node, kind }, path.to_owned())
    }

    /// The next thing to copy.
    pub(crate) fn next_job(&mut self) -> Result<Option<Job>> {
        loop {
            if let Some(job) = self.next_piece() {
                return Ok(Some(job));
            }
            if let Some(job) = self.ready.pop() {
                return Ok(Some(job));
            }
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            match frame.entries.pop() {
                Some(entry) if self.files.is_disk_file(entry.node) => {
                    // One that an earlier copy by name left in the target is not removed either.
                    if let Some((name, _)) = target_name(&entry.name) {
                        frame.claim(&name);
                    }
                    let count = &mut self.later.report.disk_files_left_out;
                    *count = count.saturating_add(1);
                }
                Some(entry) => {
                    let path = format!("{}/{}", frame.path, String::from_utf8_lossy(&entry.name));
                    self.node(entry, path)?;
                }
                None => {
                    let frame = self.frames.pop().expect("there was one");
                    self.later.keep_extra(&frame.place, frame.extra.into_values().collect());
                }
            }
        }
    }

    fn next_piece(&mut self) -> Option<Job> {
        let pieces = self.pieces.as_mut()?;
        let start = pieces.next;
        let end = start.saturating_add(PIECE).min(pieces.len);
        pieces.next = end;
        let (file, last) = (Arc::clone(&pieces.begun), end >= pieces.len);
        if last {
            self.pieces = None;
        }
        Some(Job::Piece { file, start, end, last })
    }

    /// Takes one node of the folder that is being walked. Problems of the source are told and passed over.
    fn node(&mut self, entry: Entry, path: String) -> Result<()> {
        let Some((mut name, mut phrase)) = target_name(&entry.name) else {
            self.later.report.problem(&path, "its name is not safe to make here");
            return Ok(());
        };
        let frame = self.frames.last_mut().expect("the folder that is being walked");
        let mut claimed = frame.claim(&name);
        if !claimed && !frame.exact.contains(&entry.name) {
            // Two names of the source that are one here.
            (name, phrase) = other_name(&entry.name);
            claimed = frame.claim(&name);
        }
        frame.exact.insert(entry.name.clone());
        if !claimed {
            self.later.report.problem(&path, "another file has this name here already");
            return Ok(());
        }
        if let Some(phrase) = phrase {
            self.later.report.note(&path, phrase);
        }
        let attributes = match self.files.attributes(entry.node) {
            Ok(attributes) => attributes,
            Err(error) => {
                self.later.report.problem(&path, full_message(&error));
                return Ok(());
            }
        };
        match attributes.kind {
            NodeKind::Folder => self.folder(entry.node, &attributes, name, path),
            NodeKind::File => self.file(entry.node, attributes, name, path),
            kind => {
                let device = matches!(kind, NodeKind::CharacterDevice { .. } | NodeKind::BlockDevice { .. });
                if device && !self.options.keep.privileged {
                    self.later.report.problem(&path, "it is a device node, which is made only on request");
                    return Ok(());
                }
                let folder = Arc::clone(&frame.folder);
                self.ready.push(Job::Other { folder, name, node: entry.node, attributes, path });
                Ok(())
            }
        }
    }

    fn folder(&mut self, node: NodeId, attributes: &Attributes, name: OsString, path: String) -> Result<()> {
        let report = &mut self.later.report;
        if !self.options.recursive {
            report.problem(&path, "it is a folder, which is taken only on request (--recursive)");
            return Ok(());
        }
        if !self.entered.insert(node) {
            report.problem(&path, "this folder is in the tree twice: it was taken at its first place");
            return Ok(());
        }
        if self.frames.len() > MAX_DEPTH {
            report.problem(&path, format!("it lies deeper than {MAX_DEPTH} folders"));
            return Ok(());
        }
        let parent = self.frames.last().expect("the folder that is being walked");
        let (folder, made) = match parent.folder.make_subfolder(&name) {
            Ok((folder, made)) => (Arc::new(folder), made),
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => {
                report.problem(&path, full_message(&error));
                return Ok(());
            }
        };
        report.folders = report.folders.saturating_add(1);
        let mut place = parent.place.clone();
        place.push(name.clone());
        let mut entries = Vec::new();
        let listed = self.files.list(node, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        });
        if let Err(error) = listed {
            report.problem(&path, format!("its list cannot be read whole: {}", full_message(&error)));
        }
        match self.folder_metadata(node, attributes, &name, &path) {
            Ok(metadata) => self.later.folders.push((place.clone(), path.clone(), metadata)),
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => self.later.report.problem(&path, full_message(&error)),
        }
        entries.reverse();
        // The target folder itself is never cleaned: only what is below what was asked for.
        let extra = if self.options.delete && !made { by_key(folder.entries()?) } else { Extra::new() };
        self.frames.push(Frame { folder, place, path, entries, taken: HashSet::new(), exact: HashSet::new(), extra });
        Ok(())
    }

    /// What a folder gets at the end, and its named streams now: NTFS has them for folders too.
    fn folder_metadata(
        &mut self,
        node: NodeId,
        attributes: &Attributes,
        name: &OsString,
        path: &str,
    ) -> Result<Metadata> {
        let mut metadata = Metadata::of(self.files, node, attributes, self.options.keep, FOLDER_PERMISSIONS)?;
        let mut options = self.options;
        if options.streams == Streams::AsStreams {
            options.streams = Streams::LeaveOut;
        }
        if options.delete && options.streams == Streams::AsFiles {
            self.claim_streams(node, name);
        }
        let parent = &self.frames.last().expect("the folder that is being walked").folder;
        let (mut notes, of) = (Vec::new(), StreamsOf { node, name, new: None });
        let kept = keep_streams(self.files, &options, parent, of, &mut metadata, &mut notes)?;
        let report = &mut self.later.report;
        report.bytes = report.bytes.saturating_add(kept.written);
        report.streams_left_out = report.streams_left_out.saturating_add(kept.left_out);
        notes.into_iter().for_each(|note| report.note(path, note));
        Ok(metadata)
    }

    /// Claims the names of the files that the named streams of a node become.
    fn claim_streams(&mut self, node: NodeId, name: &OsStr) {
        let frame = self.frames.last_mut().expect("the folder that is being walked");
        // A list that cannot be read is told by the copy, and then nothing is removed.
        for stream in self.files.streams(node).unwrap_or_default() {
            if let Some((name, _)) = stream_file_name(name, &stream.name) {
                frame.claim(&name);
            }
        }
    }

    fn file(&mut self, node: NodeId, attributes: Attributes, name: OsString, path: String) -> Result<()> {
        if self.options.delete && self.options.streams == Streams::AsFiles {
            self.claim_streams(node, &name);
        }
        let frame = self.frames.last().expect("the folder that is being walked");
        if attributes.links > 1 {
            match self.first_names.get(&node) {
                Some(first) => {
                    self.later.hard_links.push((first.clone(), (frame.place.clone(), name), path));
                    return Ok(());
                }
                None => {
                    self.first_names.insert(node, (frame.place.clone(), name.clone()));
                }
            }
        }
        let folder = Arc::clone(&frame.folder);
        if attributes.len < LARGE || self.options.update {
            self.ready.push(Job::Whole { folder, name, node, attributes, path });
            return Ok(());
        }
        match Begun::new(self.files, &self.options, folder, name, node, &attributes, path.clone()) {
            Ok(begun) => {
                let len = begun.len();
                self.pieces = Some(Pieces { begun: Arc::new(begun), next: 0, len });
            }
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => self.later.report.problem(&path, full_message(&error)),
        }
        Ok(())
    }
}
