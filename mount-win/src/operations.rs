//! What Dokan asks for, answered from the tree: safe, and the same on every system.
//!
//! ```text
//! program -> kernel -> Dokan's driver -> dokan2.dll -> dokan (this crate) -> Operations -> imgfmt::tree
//! ```
//!
//! Any number of threads may call at once. No lock is held while anything is read; who writes shares one, and has it alone where the length of a file changes.
//!
//! Source of the answers: [MS-FSA] 2.1.5.1 (opening), .3 (reading), .4 (writing), .6 (listing), .7 (flushing), .8 (locks), .15 (setting: .1 room, .2 attributes and
//! times, .4 length).

use std::sync::{Arc, OnceLock, RwLock};

use imgfmt::disk::{buf_len, check_range};
use imgfmt::error::full_message;
use imgfmt::filesystem::files::{Content, FileSystem, NodeId, NodeKind, Space, StreamEntry};
use imgfmt::filesystem::utf16::from_wtf8;
use imgfmt::overlay::ResizableDisk;
use imgfmt::readahead::{self, Readahead};
use imgfmt::tree::Tree;
use imgfmt::view::writable::WritableView;
use imgfmt::{Disk, Error, Result, WritableDisk};

use crate::access::Wish;
use crate::handles::Handles;
use crate::information::{self, FoundFile, FoundStream, Information, is_stream_name};
use crate::names;
use crate::path::{Part, Path};
use crate::security;
use crate::status::Status;
use crate::volume::{VolumeInformation, free_space};
use crate::walk::{Found, Missing, Walker};
use crate::wildcard::{Pattern, has_wildcards};

/// Hears what goes wrong while a drive is served, line by line. The library prints nothing.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Bytes that are read at once, however many a program asks for.
const PART: usize = 1 << 20;
/// The extended attribute that is a file's security descriptor.
const ACL: &[u8] = b"system.ntfs_acl";

/// What is read of an opened file.
enum Source {
    /// Stored bytes, which are decoded ahead of who reads them in sequence.
    Ahead(Arc<readahead::OpenFile>),
    /// A stream, or words of ours.
    Plain(Box<dyn Content>),
    /// Bytes that can change.
    Writable(Arc<WritableView>),
}

/// An opened file.
struct OpenFile {
    found: Found,
    /// Names of a folder from the root down.
    names: Vec<Vec<u16>>,
    stream: Option<Vec<u8>>,
    information: Information,
    /// The file where it takes writes.
    writable: Option<Arc<WritableView>>,
    /// Each write is to be durable when it is answered.
    writes_through: bool,
    source: OnceLock<Source>,
}

impl OpenFile {
    /// What is known of it now.
    fn information(&self) -> Information {
        let len = self.writable.as_ref().map_or(self.information.len, |view| view.len());
        Information { len, ..self.information }
    }
}

/// What became of a wish to open something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its number, for all other calls; never 0.
    pub handle: u64,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Whether the wish would have created it, had it not been there.
    pub might_have_created: bool,
}

/// A tree as a drive.
pub struct Operations {
    tree: Arc<Tree>,
    walker: Walker,
    volume: VolumeInformation,
    readahead: Readahead,
    log: Log,
    handles: Handles<OpenFile>,
    /// Held for writing while the length of a file changes, and for reading while anything else is written: what is written to the end goes there, whoever writes besides.
    lengths: RwLock<()>,
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations").field("tree", &self.tree).finish_non_exhaustive()
    }
}

/// An answer to a call.
pub type Answer<T> = std::result::Result<T, Status>;

impl Operations {
    /// Serves a tree.
    pub fn new(tree: Arc<Tree>, volume: VolumeInformation, readahead: Readahead, log: Log) -> Self {
        let (walker, handles) = (Walker::new(Arc::clone(&tree)), Handles::default());
        Self { walker, tree, volume, readahead, log, handles, lengths: RwLock::new(()) }
    }

    /// Opens a file, folder or stream. `access`, `disposition` and `options` are those of `ZwCreateFile`.
    pub fn create(&self, path: &[u16], access: u32, disposition: u32, options: u32) -> Answer<Opened> {
        let wish = Wish::parse(access, disposition, options)?;
        let path = Path::parse(path)?;
        wish.check_path(path.must_be_folder)?;
        if wish.changes_volume() && !self.tree.takes_writes() {
            return Err(Status::MEDIA_WRITE_PROTECTED);
        }
        let found = match self.said("open", &path, self.walker.walk(&path.names))? {
            Ok(found) => found,
            Err(Missing::Name) => return Err(self.refused(wish.for_missing())),
            Err(Missing::Path) => return Err(Status::OBJECT_PATH_NOT_FOUND),
        };
        let (stream, information) = match &path.part {
            Part::Whole => (None, found.information),
            Part::Content if found.information.is_folder() => return Err(Status::FILE_IS_A_DIRECTORY),
            Part::Folder if !found.information.is_folder() => return Err(Status::NOT_A_DIRECTORY),
            Part::Content | Part::Folder => (None, found.information),
            Part::Stream(wanted) => match self.said("open", &path, self.find_stream(&found, wanted))? {
                Some((name, len)) => (Some(name), found.information.of_stream(len)),
                None => return Err(self.refused(wish.for_missing())),
            },
        };
        let is_folder = information.is_folder();
        let writable = match stream {
            None if !is_folder => self.said("open", &path, self.tree.writable(found.node))?,
            _ => None,
        };
        match &writable {
            None => {
                let stays = information.attributes & information::READ_ONLY != 0;
                wish.for_existing(is_folder, path.must_be_folder).map_err(|status| match status {
                    Status::CANNOT_DELETE if stays => status,
                    _ => self.refused(status),
                })?;
            }
            Some(view) if wish.for_writable(path.must_be_folder)? => {
                let _changing = self.lengths.write().expect("no holder of the lock panics");
                self.said("empty", &path, view.set_len(0))?;
            }
            Some(_) => {}
        }
        let names = if is_folder { path.names.clone() } else { Vec::new() };
        let writes_through = wish.writes_through();
        let file = OpenFile { found, names, stream, information, writable, writes_through, source: OnceLock::new() };
        if !is_folder && wish.reads_content() {
            // What cannot be read should say so now, and not in the middle of a copy.
            self.said("open", &path, self.source(&file).map(|_| ()))?;
        }
        let might_have_created = wish.creates();
        let handle = self.handles.open(file).ok_or(Status::TOO_MANY_OPENED_FILES)?;
        Ok(Opened { handle, is_folder, might_have_created })
    }

    /// The last program's handle is closed; the file can still be read for the cache, until [`Operations::close`].
    pub fn cleanup(&self, handle: u64) -> Answer<()> {
        self.file(handle).map(|_| ())
    }

    /// Nobody will ask for this file again.
    pub fn close(&self, handle: u64) -> Answer<()> {
        self.handles.close(handle).map(|_| ()).ok_or(Status::INVALID_HANDLE)
    }

    /// Files that are open.
    pub fn open_files(&self) -> usize {
        self.handles.len()
    }

    /// Reads from byte `offset`. Returns the number of bytes, which is less than asked for only at the end.
    pub fn read(&self, handle: u64, buf: &mut [u8], offset: i64) -> Answer<usize> {
        let file = self.file(handle)?;
        if file.information.is_folder() {
            return Err(Status::INVALID_DEVICE_REQUEST);
        }
        let offset = start_of(offset, buf.len())?;
        if buf.is_empty() {
            return Ok(0);
        }
        let left = file.information().len.saturating_sub(offset);
        if left == 0 {
            return Err(Status::END_OF_FILE);
        }
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let wanted = buf.get_mut(..len).ok_or(Status::INTERNAL_ERROR)?;
        match self.fill(&file, wanted, offset) {
            Ok(()) => Ok(len),
            Err(error) => {
                Err(self.failed(&format_args!("read {len} bytes at {offset:#x} of"), file.found.node, &error))
            }
        }
    }

    /// What is known of an open file.
    pub fn information(&self, handle: u64) -> Answer<Information> {
        self.file(handle).map(|file| file.information())
    }

    /// Lists an open folder, as far as its entries match `pattern` (`None`: all), until `visit` says no. An entry that cannot be looked at is
    /// listed with its kind alone.
    pub fn find_files(
        &self,
        handle: u64,
        pattern: Option<&[u16]>,
        visit: &mut dyn FnMut(&FoundFile) -> bool,
    ) -> Answer<()> {
        let file = self.file(handle)?;
        if !file.information.is_folder() || file.stream.is_some() {
            return Err(Status::INVALID_PARAMETER);
        }
        let node = file.found.node;
        let listed = self.list(&file, pattern, visit);
        listed.map_err(|error| self.failed(&"list", node, &error))
    }

    /// The streams of an open file or folder, until `visit` says no.
    pub fn find_streams(&self, handle: u64, visit: &mut dyn FnMut(&FoundStream) -> bool) -> Answer<()> {
        let file = self.file(handle)?;
        let node = file.found.node;
        let suffix = |name: &[u16]| [&[0x3a][..], name, &":$DATA".encode_utf16().collect::<Vec<_>>()].concat();
        let main = file.found.information;
        let len = file.writable.as_ref().map_or(main.len, |view| view.len());
        if !main.is_folder() && !visit(&FoundStream { name: suffix(&[]), len }) {
            return Ok(());
        }
        let streams = self.streams(&file.found).map_err(|error| self.failed(&"list the streams of", node, &error))?;
        for (stream, name) in streams {
            if !visit(&FoundStream { name: suffix(&name), len: stream.len }) {
                break;
            }
        }
        Ok(())
    }

    /// The security descriptor of an open file, with the parts that `wanted` (a `SECURITY_INFORMATION`) names.
    pub fn security(&self, handle: u64, wanted: u32) -> Answer<Vec<u8>> {
        let file = self.file(handle)?;
        let node = file.found.node;
        let is_folder = file.found.information.is_folder();
        let stored = self.tree.xattrs(node).map(|all| all.into_iter().find(|xattr| xattr.name == ACL));
        let stored = stored.map_err(|error| self.failed(&"read the security descriptor of", node, &error))?;
        if let Some(stored) = stored {
            if let Some(selected) = security::select(&stored.value, wanted) {
                return Ok(selected);
            }
            (self.log)(&format!("the security descriptor of {} is damaged", self.tree.describe(node)));
        }
        security::select(&security::everyone_may_read(is_folder), wanted).ok_or(Status::INTERNAL_ERROR)
    }

    /// Writes from byte `offset`, or from the end of the file (`None`). Returns the number of bytes. The memory manager (`paging`) writes whole pages, and never makes a
    /// file longer by that.
    pub fn write(&self, handle: u64, bytes: &[u8], offset: Option<i64>, paging: bool) -> Answer<usize> {
        let file = self.file(handle)?;
        let view = file.writable.as_ref().ok_or_else(|| self.change())?;
        let start = offset.map(|offset| start_of(offset, bytes.len())).transpose()?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let shared = self.lengths.read().expect("no holder of the lock panics");
        if !paging && start.is_none_or(|start| start.saturating_add(buf_len(bytes)) > view.len()) {
            drop(shared);
            let _changing = self.lengths.write().expect("no holder of the lock panics");
            return self.write_at(&file, view, bytes, start.unwrap_or(view.len()));
        }
        let start = start.unwrap_or(view.len());
        let most = usize::try_from(view.len().saturating_sub(start)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..bytes.len().min(most)).ok_or(Status::INTERNAL_ERROR)?;
        self.write_at(&file, view, bytes, start)
    }

    fn write_at(&self, file: &OpenFile, view: &WritableView, bytes: &[u8], offset: u64) -> Answer<usize> {
        let action = format_args!("write {} bytes at {offset:#x} of", bytes.len());
        let written = view.write_at(bytes, offset);
        let written = if file.writes_through { written.and_then(|()| view.flush()) } else { written };
        written.map_err(|error| self.failed(&action, file.found.node, &error))?;
        Ok(bytes.len())
    }

    /// Gives a file another length.
    pub fn set_len(&self, handle: u64, len: i64) -> Answer<()> {
        self.resize(handle, len, |len, _| Some(len))
    }

    /// Lets a file have room for so many bytes: one that is longer ends there, and others need no room.
    pub fn set_room(&self, handle: u64, len: i64) -> Answer<()> {
        self.resize(handle, len, |room, len| (room < len).then_some(room))
    }

    /// Gives a file the length that is made of the number and its length, if any.
    fn resize(&self, handle: u64, number: i64, new: impl FnOnce(u64, u64) -> Option<u64>) -> Answer<()> {
        let file = self.changed(handle)?;
        if file.information.is_folder() {
            return Err(Status::INVALID_PARAMETER);
        }
        let number = u64::try_from(number).map_err(|_| Status::INVALID_PARAMETER)?;
        let view = file.writable.as_ref().ok_or_else(|| self.change())?;
        let _changing = self.lengths.write().expect("no holder of the lock panics");
        let len = view.len();
        let Some(new) = new(number, len).filter(|new| *new != len) else { return Ok(()) };
        let set = view.set_len(new);
        set.map_err(|error| self.failed(&format_args!("make {new} bytes long"), file.found.node, &error))
    }

    /// Sets attributes (`FILE_ATTRIBUTE_*`; 0: none). Programs do so with what they have written; files that take writes have none of their own, and nothing changes.
    pub fn set_attributes(&self, handle: u64, attributes: u32) -> Answer<()> {
        let file = self.changed(handle)?;
        let wrong = if file.information.is_folder() { information::TEMPORARY } else { information::DIRECTORY };
        self.touch(&file, attributes & wrong != 0)
    }

    /// Sets times of creation, access and change (as [`file_time`](crate::times::file_time) counts; 0 leaves one as it is, -1 and -2 say who keeps it from now on). See
    /// [`Operations::set_attributes`].
    pub fn set_times(&self, handle: u64, times: [i64; 3]) -> Answer<()> {
        let file = self.changed(handle)?;
        self.touch(&file, times.iter().any(|time| *time < -2))
    }

    fn touch(&self, file: &OpenFile, is_wrong: bool) -> Answer<()> {
        match &file.writable {
            _ if is_wrong => Err(Status::INVALID_PARAMETER),
            Some(_) => Ok(()),
            None => Err(self.change()),
        }
    }

    /// A file that something is to be set of, on a drive that takes writes.
    fn changed(&self, handle: u64) -> Answer<Arc<OpenFile>> {
        let file = self.file(handle)?;
        if self.tree.takes_writes() { Ok(file) } else { Err(Status::MEDIA_WRITE_PROTECTED) }
    }

    /// Returns once what was written is durable.
    pub fn flush(&self, handle: u64) -> Answer<()> {
        let file = self.changed(handle)?;
        let flushed = file.writable.as_ref().map_or(Ok(()), |view| view.flush());
        flushed.map_err(|error| self.failed(&"write to the disk what was written to", file.found.node, &error))
    }

    /// A lock or its end. Dokan's driver keeps locks itself, and asks only where it is told not to; so everybody can have one.
    pub fn lock(&self, handle: u64) -> Answer<()> {
        let is_folder = self.file(handle)?.information.is_folder();
        if is_folder { Err(Status::INVALID_PARAMETER) } else { Ok(()) }
    }

    /// Everything that would change a name, or a file that takes no writes.
    pub fn change(&self) -> Status {
        self.refused(Status::MEDIA_WRITE_PROTECTED)
    }

    /// A drive on which some files take writes is not protected; only these are.
    fn refused(&self, status: Status) -> Status {
        let is_protected = matches!(status, Status::MEDIA_WRITE_PROTECTED | Status::CANNOT_DELETE);
        if is_protected && self.tree.takes_writes() { Status::ACCESS_DENIED } else { status }
    }

    /// What the drive says of itself.
    pub fn volume(&self) -> &VolumeInformation {
        &self.volume
    }

    /// Bytes that the caller may use, of all, and that are free.
    pub fn free_space(&self) -> Answer<[u64; 3]> {
        let space: Result<Space> = self.tree.space();
        space.map(|space| free_space(&space)).map_err(|error| self.failed(&"measure", self.tree.root(), &error))
    }

    /// The log that the drive was given.
    pub fn log(&self) -> &Log {
        &self.log
    }

    fn file(&self, handle: u64) -> Answer<Arc<OpenFile>> {
        self.handles.get(handle).ok_or(Status::INVALID_HANDLE)
    }

    /// Logs an error about a path and makes it a status.
    fn said<T>(&self, action: &str, path: &Path, result: Result<T>) -> Answer<T> {
        result.map_err(|error| {
            let names: Vec<String> = path.names.iter().map(|name| String::from_utf16_lossy(name)).collect();
            (self.log)(&format!("cannot {action} \\{}: {}", names.join("\\"), full_message(&error)));
            Status::from(&error)
        })
    }

    fn failed(&self, action: &dyn std::fmt::Display, node: NodeId, error: &Error) -> Status {
        (self.log)(&format!("cannot {action} {}: {}", self.tree.describe(node), full_message(error)));
        Status::from(error)
    }

    fn fill(&self, file: &OpenFile, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.source(file)? {
            Source::Plain(content) => content.read_at(buf, offset),
            Source::Writable(view) => view.read_at(buf, offset),
            Source::Ahead(ahead) => {
                let mut at = offset;
                for part in buf.chunks_mut(PART) {
                    let end = at.saturating_add(buf_len(part));
                    part.copy_from_slice(self.readahead.read(ahead, at..end)?.as_slice());
                    at = end;
                }
                Ok(())
            }
        }
    }

    /// What is read of a file, opened when it is first wanted.
    fn source<'a>(&self, file: &'a OpenFile) -> Result<&'a Source> {
        if let Some(source) = file.source.get() {
            return Ok(source);
        }
        let node = file.found.node;
        let opened = match (&file.stream, &file.found.text) {
            _ if file.writable.is_some() => Source::Writable(Arc::clone(file.writable.as_ref().expect("just looked"))),
            (Some(stream), _) => Source::Plain(self.tree.open(node, Some(stream))?),
            (None, Some(text)) => Source::Plain(Box::new(Text(Arc::clone(text)))),
            (None, None) if file.found.is_special => Source::Plain(Box::new(Text(Arc::from([])))),
            (None, None) => Source::Ahead(self.readahead.file(node.0, self.tree.open(node, None)?)),
        };
        // Where another thread was faster, what it opened serves.
        Ok(file.source.get_or_init(|| opened))
    }

    fn list(&self, file: &OpenFile, pattern: Option<&[u16]>, visit: &mut dyn FnMut(&FoundFile) -> bool) -> Result<()> {
        let Some(place) = self.walker.folder(&file.names)? else {
            return Err(Error::NotFound("the folder cannot be found again".into()));
        };
        let named = match pattern.filter(|pattern| !has_wildcards(pattern)) {
            Some(name) => match self.walker.folders().find(&self.tree, place.node, name)? {
                Some(entry) => Some(entry),
                None => return Ok(()),
            },
            None => None,
        };
        let folder = self.walker.folders().get(&self.tree, place.node)?;
        let wanted: Vec<_> = match (named, pattern.map(Pattern::new)) {
            // A name finds what it opens, even where another one is shown: another one that is stored, or for a short name the long one.
            (Some(named), _) => folder.shown(&named).into_iter().collect(),
            (None, Some(pattern)) => folder.entries().iter().filter(|shown| pattern.matches(&shown.name)).collect(),
            (None, None) => folder.entries().iter().collect(),
        };
        for shown in wanted {
            let entry = &shown.entry;
            let found = self.walker.entry(&place, &entry.name, entry.node, entry.kind);
            let information = found.map(|found| found.information).unwrap_or_else(|error| {
                self.failed(&"look at", entry.node, &error);
                Information::unknown(entry.node, entry.kind.unwrap_or(NodeKind::File))
            });
            if !visit(&FoundFile { name: shown.name.clone(), information }) {
                break;
            }
        }
        Ok(())
    }

    /// Streams that a path can name, with their names here.
    fn streams(&self, found: &Found) -> Result<Vec<(StreamEntry, Vec<u16>)>> {
        let streams = self.tree.streams(found.node)?.into_iter();
        let shown = streams.filter_map(|stream| {
            let units = from_wtf8(&stream.name).filter(|units| is_stream_name(units))?;
            Some((stream, units))
        });
        Ok(shown.collect())
    }

    fn find_stream(&self, found: &Found, wanted: &[u16]) -> Result<Option<(Vec<u8>, u64)>> {
        let streams = self.streams(found)?;
        let exact = streams.iter().find(|(_, units)| units == wanted);
        let key = names::key(wanted);
        let found = exact.or_else(|| streams.iter().find(|(_, units)| names::key(units) == key));
        Ok(found.map(|(stream, _)| (stream.name.clone(), stream.len)))
    }
}

/// Where a range begins, which ends where a file may end: [MS-FSA] 2.1.5.3, 2.1.5.4.
fn start_of(offset: i64, len: usize) -> Answer<u64> {
    let end = i64::try_from(len).ok().and_then(|len| offset.checked_add(len));
    match (u64::try_from(offset), end) {
        (Ok(start), Some(_)) => Ok(start),
        _ => Err(Status::INVALID_PARAMETER),
    }
}

/// Bytes that are a file: the target of a link.
#[derive(Debug)]
struct Text(Arc<[u8]>);

impl Content for Text {
    fn len(&self) -> u64 {
        buf_len(&self.0)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let start = usize::try_from(offset).expect("checked by check_range");
        let end = start.saturating_add(buf.len());
        buf.copy_from_slice(self.0.get(start..end).expect("checked by check_range"));
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<imgfmt::Extent> {
        check_range(offset, 1, self.len())?;
        let len = self.len().saturating_sub(offset);
        Ok(imgfmt::Extent { offset, len, kind: imgfmt::ExtentKind::Data })
    }

    fn places(&self) -> Option<Vec<std::ops::Range<u64>>> {
        None
    }
}
