//! The kernel's calls, translated to the tree.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};
use imgfmt::error::full_message;
use imgfmt::filesystem::files::{Attributes, Entry, FileSystem, NodeId, NodeKind};
use imgfmt::tree::Tree;
use imgfmt::{Error, ExtentKind};

use crate::attributes::{Owners, file_attr, file_type, unknown_attr};
use crate::errno::errno;
use crate::folders::OpenFolder;
use crate::mount::Log;
use crate::readahead::{Bytes, OpenFile, Readahead};
use crate::streams::{StreamName, Streams};

/// How long the kernel may keep what it was told: a year, since nothing changes.
const FOR_LONG: Duration = Duration::from_secs(365 * 86_400);
/// For what could not be found out in passing: the kernel asks again.
const NOT_AT_ALL: Duration = Duration::ZERO;
/// Longest name that the kernel takes in a listing, in bytes.
const MAX_NAME: usize = 1024;
/// Longest value of an extended attribute on Linux, in bytes.
const MAX_XATTR: u64 = 65_536;
/// Extents that are looked at for the end of a hole or of data.
const SEEK_EXTENTS: usize = 1 << 20;
/// Requests that the kernel may keep under way in the background.
const MAX_BACKGROUND: u16 = 64;

const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// A tree as a FUSE filesystem.
pub(crate) struct Translate {
    tree: Arc<Tree>,
    owners: Owners,
    log: Log,
    readahead: Readahead,
    streams: Streams,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    folders: RwLock<HashMap<u64, Arc<OpenFolder>>>,
    next_handle: AtomicU64,
}

impl std::fmt::Debug for Translate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Translate").field("tree", &self.tree).finish_non_exhaustive()
    }
}

/// What stands for an error number on its way to the kernel.
type Answer<T> = Result<T, Errno>;

impl Translate {
    pub(crate) fn new(tree: Arc<Tree>, owners: Owners, log: Log, readahead: Readahead) -> Self {
        Self {
            tree,
            owners,
            log,
            readahead,
            streams: Streams::default(),
            files: RwLock::default(),
            folders: RwLock::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    /// Logs an error and makes it a number.
    fn failed(&self, action: &dyn Display, node: NodeId, error: &Error) -> Errno {
        let node = self.streams.find(node).map_or(node, |stream| stream.node);
        (self.log)(&format!("cannot {action} {}: {}", self.tree.describe(node), full_message(error)));
        errno(error)
    }

    /// Runs what answers a call. A bug in a parser costs the one call, and neither a thread of the mount nor its reader.
    fn answer<T>(
        &self,
        action: impl Display,
        node: INodeNo,
        work: impl FnOnce(NodeId) -> Result<T, Error>,
    ) -> Answer<T> {
        let node = NodeId(node.0);
        match catch_unwind(AssertUnwindSafe(|| work(node))) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(&action, node, &error)),
            Err(_) => {
                (self.log)(&format!("cannot {action} {}: a bug in hikae, please report it", self.tree.describe(node)));
                Err(Errno::EIO)
            }
        }
    }

    fn attributes(&self, node: NodeId) -> Result<Attributes, Error> {
        let Some(stream) = self.streams.find(node) else { return self.tree.attributes(node) };
        let content = self.tree.open(stream.node, Some(&stream.name))?;
        let of_file = self.tree.attributes(stream.node)?;
        let len = content.len();
        Ok(Attributes { kind: NodeKind::File, len, allocated: len, links: 1, ..of_file })
    }

    fn attr(&self, node: NodeId) -> Result<FileAttr, Error> {
        Ok(file_attr(node, &self.attributes(node)?, &self.owners))
    }

    /// Finds a name, or `file:stream`.
    fn find(&self, folder: NodeId, name: &[u8]) -> Result<Option<NodeId>, Error> {
        if self.streams.find(folder).is_some() {
            return Ok(None);
        }
        if let Some(entry) = self.tree.lookup(folder, name)? {
            return Ok(Some(entry.node));
        }
        let Some(colon) = name.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0) else {
            return Ok(None);
        };
        let (file, stream) = name.split_at(colon);
        let stream = stream.get(1..).unwrap_or_default();
        let Some(entry) = self.tree.lookup(folder, file)? else { return Ok(None) };
        if !self.tree.streams(entry.node)?.iter().any(|found| found.name == stream) {
            return Ok(None);
        }
        self.streams.number(StreamName { node: entry.node, name: stream.to_vec() }).map(Some)
    }

    fn open_file(&self, node: NodeId) -> Result<Arc<OpenFile>, Error> {
        let content = match self.streams.find(node) {
            Some(stream) => self.tree.open(stream.node, Some(&stream.name))?,
            None => self.tree.open(node, None)?,
        };
        Ok(self.readahead.file(node, content))
    }

    fn handle<T>(&self, table: &RwLock<HashMap<u64, T>>, value: T) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        table.write().expect("no holder of the lock panics").insert(handle, value);
        FileHandle(handle)
    }

    fn opened<T: Clone>(table: &RwLock<HashMap<u64, T>>, handle: FileHandle) -> Option<T> {
        table.read().expect("no holder of the lock panics").get(&handle.0).cloned()
    }

    /// Reads for an answer; empty at and behind the end of the file.
    fn read_bytes(&self, file: &Arc<OpenFile>, offset: u64, size: u32) -> Result<Option<Bytes>, Error> {
        let end = offset.saturating_add(size.into()).min(file.content().len());
        if offset >= end { Ok(None) } else { self.readahead.read(file, offset..end).map(Some) }
    }

    /// The extended attributes of a node: its own, and its named streams as `user.NAME` as far as Linux allows their length.
    fn xattr_names(&self, node: NodeId) -> Result<Vec<u8>, Error> {
        if self.streams.find(node).is_some() {
            return Ok(Vec::new());
        }
        let mut names: Vec<Vec<u8>> = self.tree.xattrs(node)?.into_iter().map(|xattr| xattr.name).collect();
        for stream in self.tree.streams(node)? {
            let name = [b"user.", stream.name.as_slice()].concat();
            if stream.len <= MAX_XATTR && !names.contains(&name) {
                names.push(name);
            }
        }
        names.retain(|name| !name.is_empty() && !name.contains(&0) && is_listed(name));
        let mut list = Vec::new();
        for name in names {
            list.extend(name);
            list.push(0);
        }
        Ok(list)
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if self.streams.find(node).is_some() {
            return Ok(None);
        }
        if let Some(xattr) = self.tree.xattrs(node)?.into_iter().find(|xattr| xattr.name == name) {
            return Ok(Some(xattr.value));
        }
        let Some(name) = name.strip_prefix(b"user.") else { return Ok(None) };
        if !self.tree.streams(node)?.iter().any(|stream| stream.name == name && stream.len <= MAX_XATTR) {
            return Ok(None);
        }
        let content = self.tree.open(node, Some(name))?;
        let mut value = vec![0; usize::try_from(content.len().min(MAX_XATTR)).unwrap_or(0)];
        content.read_at(&mut value, 0)?;
        Ok(Some(value))
    }

    /// Where the next data or hole starts, at or behind `offset`; `None` where there is none.
    fn seek(file: &OpenFile, offset: u64, whence: i32) -> Result<Option<u64>, Error> {
        let len = file.content().len();
        let mut at = offset;
        for _ in 0..SEEK_EXTENTS {
            if at >= len {
                break;
            }
            let extent = file.content().extent_at(at)?;
            let is_hole = extent.kind == ExtentKind::Zero;
            if is_hole == (whence == SEEK_HOLE) {
                return Ok(Some(at));
            }
            at = extent.end();
        }
        // Behind the last byte lies a hole. A place that was not reached may be called data.
        match whence {
            SEEK_HOLE => Ok((offset < len).then_some(len)),
            _ => Ok((at < len).then_some(at)),
        }
    }

    /// Lists a folder from entry `offset` on: its own two names first.
    fn list(
        &self,
        node: NodeId,
        folder: &OpenFolder,
        offset: u64,
        mut add: impl FnMut(&Entry, u64) -> bool,
    ) -> Result<(), Error> {
        const OWN: [&[u8]; 2] = [b".", b".."];
        for (number, name) in (0_u64..).zip(OWN) {
            let entry = Entry { name: name.to_vec(), node, kind: Some(NodeKind::Folder) };
            if number >= offset && add(&entry, number.saturating_add(1)) {
                return Ok(());
            }
        }
        folder.visit(&*self.tree, offset.saturating_sub(2), |entry, next| {
            if entry.name.len() > MAX_NAME || entry.name.contains(&b'/') || entry.name.contains(&0) {
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                (self.log)(&format!(
                    "{} is left out of {}: no system takes it",
                    name.escape_debug(),
                    self.tree.describe(node)
                ));
                return ControlFlow::Continue(());
            }
            if add(entry, next.saturating_add(2)) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    }

    /// What the kind of an entry is, with a look at the node only where the folder does not say.
    fn kind_of(&self, entry: &Entry) -> NodeKind {
        let looked = || self.tree.attributes(entry.node).map(|attributes| attributes.kind);
        entry.kind.or_else(|| looked().ok()).unwrap_or(NodeKind::File)
    }
}

impl Filesystem for Translate {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ];
        for flag in wanted {
            // An older kernel lacks some, and the mount works without them.
            let _ = config.add_capabilities(flag);
        }
        // The kernel takes the smaller of this and its own limits.
        if let Err(most) = config.set_max_readahead(1 << 20) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_write(1 << 20);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.answer("look into", parent, |folder| match self.find(folder, name.as_bytes())? {
            Some(node) => self.attr(node).map(Some),
            None => Ok(None),
        });
        match found {
            Ok(Some(attr)) => reply.entry(&FOR_LONG, &attr, Generation(0)),
            // Number 0 lets the kernel remember that there is no such name.
            Ok(None) => reply.entry(&FOR_LONG, &unknown_attr(NodeId(0), NodeKind::File, &self.owners), Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.answer("look at", ino, |node| self.attr(node)) {
            Ok(attr) => reply.attr(&FOR_LONG, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.answer("follow", ino, |node| self.tree.link_target(node)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.answer("open", ino, |node| self.open_file(node)) {
            Ok(file) => {
                let handle = self.handle(&self.files, file);
                reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = Self::opened(&self.files, fh) else { return reply.error(Errno::EBADF) };
        let action = format_args!("read {size} bytes at {offset:#x} of");
        match self.answer(action, ino, |_| self.read_bytes(&file, offset, size)) {
            Ok(Some(bytes)) => reply.data(bytes.as_slice()),
            Ok(None) => reply.data(&[]),
            Err(error) => reply.error(error),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let closed = self.files.write().expect("no holder of the lock panics").remove(&fh.0);
        drop(closed);
        reply.ok();
    }

    fn lseek(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let Some(file) = Self::opened(&self.files, fh) else { return reply.error(Errno::EBADF) };
        let (Ok(offset), SEEK_DATA | SEEK_HOLE) = (u64::try_from(offset), whence) else {
            return reply.error(Errno::EINVAL);
        };
        match self.answer("read the map of", ino, |_| Self::seek(&file, offset, whence)) {
            Ok(Some(at)) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.handle(&self.folders, Arc::new(OpenFolder::new(NodeId(ino.0))));
        reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(folder) = Self::opened(&self.folders, fh) else { return reply.error(Errno::EBADF) };
        let listed = self.answer("list", ino, |node| {
            self.list(node, &folder, offset, |entry, next| {
                let kind = file_type(self.kind_of(entry));
                reply.add(INodeNo(entry.node.0), next, kind, OsStr::from_bytes(&entry.name))
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let Some(folder) = Self::opened(&self.folders, fh) else { return reply.error(Errno::EBADF) };
        let listed = self.answer("list", ino, |node| {
            self.list(node, &folder, offset, |entry, next| {
                let (attr, ttl) = match self.attr(entry.node) {
                    Ok(attr) => (attr, FOR_LONG),
                    // It is listed all the same; whoever looks at it gets the error.
                    Err(_) => (unknown_attr(entry.node, self.kind_of(entry), &self.owners), NOT_AT_ALL),
                };
                reply.add(attr.ino, next, OsStr::from_bytes(&entry.name), &ttl, &attr, Generation(0))
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        let closed = self.folders.write().expect("no holder of the lock panics").remove(&fh.0);
        drop(closed);
        reply.ok();
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let space = self.answer("measure", ino, |node| {
            self.tree.space_at(self.streams.find(node).map_or(node, |stream| stream.node))
        });
        match space {
            Ok(space) => {
                let (total, free) = (space.total / 4096, space.free / 4096);
                reply.statfs(total, free, free, space.nodes, space.nodes_free, 4096, 255, 4096);
            }
            Err(error) => reply.error(error),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.answer("read an attribute of", ino, |node| self.xattr(node, name.as_bytes())) {
            Ok(Some(value)) => send_xattr(&value, size, reply),
            Ok(None) => reply.error(Errno::NO_XATTR),
            Err(error) => reply.error(error),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.answer("read the attributes of", ino, |node| self.xattr_names(node)) {
            Ok(names) => send_xattr(&names, size, reply),
            Err(error) => reply.error(error),
        }
    }
}

/// Says whether a listing names an extended attribute. Those that only one driver knows can be read by name, as with ntfs-3g; listed, they would make
/// every program that copies attributes fail on other filesystems.
fn is_listed(name: &[u8]) -> bool {
    !name.starts_with(b"system.") || name.starts_with(b"system.posix_acl_")
}

/// Answers with bytes, or with their number where the caller asks for that.
fn send_xattr(bytes: &[u8], size: u32, reply: ReplyXattr) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    match size {
        0 => reply.size(len),
        _ if size < len => reply.error(Errno::ERANGE),
        _ => reply.data(bytes),
    }
}
