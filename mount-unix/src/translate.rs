//! The kernel's calls, translated to the tree.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use imgfmt::error::full_message;
use imgfmt::filesystem::files::{Attributes, Content, Entry, FileSystem, NodeId, NodeKind};
use imgfmt::readahead::{Bytes, OpenFile, Readahead};
use imgfmt::tree::Tree;
use imgfmt::tree::content::RawFile;
use imgfmt::{Error, ExtentKind};

use crate::attributes::{Owners, file_attr, file_type, unknown_attr};
use crate::errno::errno;
use crate::folders::OpenFolder;
use crate::lock_folders::{LockFolders, is_lock, lock_number};
use crate::mount::Log;
use crate::streams::{StreamName, Streams};
use crate::writes::{self, Opened, wants_to_write};

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

/// Place of the first lock folder in a listing.
const LOCKS: u64 = 1 << 48;

const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// A tree as a FUSE filesystem.
pub(crate) struct Translate {
    pub(crate) tree: Arc<Tree>,
    owners: Owners,
    log: Log,
    readahead: Readahead,
    streams: Streams,
    pub(crate) locks: LockFolders,
    files: RwLock<HashMap<u64, Opened>>,
    folders: RwLock<HashMap<u64, Arc<OpenFolder>>>,
    next_handle: AtomicU64,
}

impl std::fmt::Debug for Translate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Translate").field("tree", &self.tree).finish_non_exhaustive()
    }
}

/// What stands for an error number on its way to the kernel.
pub(crate) type Answer<T> = Result<T, Errno>;

impl Translate {
    pub(crate) fn new(tree: Arc<Tree>, owners: Owners, log: Log, readahead: Readahead) -> Self {
        Self {
            tree,
            owners,
            log,
            readahead,
            streams: Streams::default(),
            locks: LockFolders::default(),
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
    pub(crate) fn answer<T>(
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
        if is_lock(node) {
            return self.locks.attributes(node).ok_or_else(|| Error::NotFound("the lock is gone".to_owned()));
        }
        let Some(stream) = self.streams.find(node) else { return self.tree.attributes(node) };
        let content = self.tree.open(stream.node, Some(&stream.name))?;
        let of_file = self.tree.attributes(stream.node)?;
        let len = content.len();
        Ok(Attributes { kind: NodeKind::File, len, allocated: len, links: 1, ..of_file })
    }

    pub(crate) fn attr(&self, node: NodeId) -> Result<FileAttr, Error> {
        Ok(file_attr(node, &self.attributes(node)?, &self.owners))
    }

    /// How long the kernel may keep what it was told of a node.
    pub(crate) fn keep(&self, node: NodeId) -> Duration {
        // What takes writes is asked for again: it also changes by other ways than this mount.
        if is_lock(node) || self.tree.writable(node).is_ok_and(|writable| writable.is_some()) {
            NOT_AT_ALL
        } else {
            FOR_LONG
        }
    }

    /// Finds a name, or `file:stream`.
    pub(crate) fn find(&self, folder: NodeId, name: &[u8]) -> Result<Option<NodeId>, Error> {
        if self.streams.find(folder).is_some() {
            return Ok(None);
        }
        if let Some(node) = self.locks.find(folder, name) {
            return Ok(Some(node));
        }
        if is_lock(folder) {
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

    fn open_file(&self, node: NodeId) -> Result<Opened, Error> {
        if is_lock(node) {
            return Ok(Opened::Lock(node));
        }
        if let Some(view) = self.tree.writable(node)? {
            return Ok(Opened::Writable(view));
        }
        let content = match self.streams.find(node) {
            Some(stream) => self.tree.open(stream.node, Some(&stream.name))?,
            None => self.tree.open(node, None)?,
        };
        Ok(Opened::Read(self.readahead.file(node.0, content)))
    }

    /// The answer to an open, and to a creation: what can change is not kept by the kernel.
    pub(crate) fn open_answer(&self, opened: Opened) -> (FileHandle, FopenFlags) {
        let flags = match opened {
            Opened::Read(_) => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
            Opened::Writable(_) | Opened::Lock(_) => {
                FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES | FopenFlags::FOPEN_NOFLUSH
            }
        };
        (self.handle(&self.files, opened), flags)
    }

    /// The file behind a handle.
    pub(crate) fn file(&self, handle: FileHandle) -> Answer<Opened> {
        Self::opened(&self.files, handle).ok_or(Errno::EBADF)
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
        if is_lock(node) || self.streams.find(node).is_some() {
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
        if is_lock(node) || self.streams.find(node).is_some() {
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
    fn seek(content: &dyn Content, offset: u64, whence: i32) -> Result<Option<u64>, Error> {
        let len = content.len();
        let mut at = offset;
        for _ in 0..SEEK_EXTENTS {
            if at >= len {
                break;
            }
            let extent = content.extent_at(at)?;
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
        if is_lock(node) || self.tree.has_writable_files(node)? {
            return self.list_with_locks(node, folder, offset, &mut add);
        }
        self.list_tree(node, folder, offset, &mut add).map(|_| ())
    }

    /// Lists the entries of the tree, and those that live in memory, whose numbers are behind all that the tree's entries have.
    fn list_with_locks(
        &self,
        node: NodeId,
        folder: &OpenFolder,
        offset: u64,
        add: &mut dyn FnMut(&Entry, u64) -> bool,
    ) -> Result<(), Error> {
        if !is_lock(node) && offset < LOCKS && self.list_tree(node, folder, offset, add)?.is_break() {
            return Ok(());
        }
        for entry in self.locks.list(node) {
            let place = LOCKS.saturating_add(lock_number(entry.node));
            if place >= offset && add(&entry, place.saturating_add(1)) {
                break;
            }
        }
        Ok(())
    }

    /// Lists the entries of the tree; breaks where there was no room for one.
    fn list_tree(
        &self,
        node: NodeId,
        folder: &OpenFolder,
        offset: u64,
        add: &mut dyn FnMut(&Entry, u64) -> bool,
    ) -> Result<ControlFlow<()>, Error> {
        let mut end = ControlFlow::Continue(());
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
            if add(entry, next.saturating_add(2)) {
                end = ControlFlow::Break(());
            }
            end
        })?;
        Ok(end)
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
            Ok(Some(attr)) => reply.entry(&self.keep(NodeId(attr.ino.0)), &attr, Generation(0)),
            // Number 0 lets the kernel remember that there is no such name.
            Ok(None) => reply.entry(&FOR_LONG, &unknown_attr(NodeId(0), NodeKind::File, &self.owners), Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.answer("look at", ino, |node| self.attr(node)) {
            Ok(attr) => reply.attr(&self.keep(NodeId(ino.0)), &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.answer("follow", ino, |node| self.tree.link_target(node)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.answer("open", ino, |node| self.open_file(node)) {
            // What programs take for a medium that cannot be written, so that they try again for reading.
            Ok(Opened::Read(_)) if wants_to_write(flags) => reply.error(Errno::EROFS),
            Ok(opened) => {
                let (handle, flags) = self.open_answer(opened);
                reply.opened(handle, flags);
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
        let action = format_args!("read {size} bytes at {offset:#x} of");
        let own = match self.file(fh) {
            Ok(Opened::Read(file)) => match self.answer(action, ino, |_| self.read_bytes(&file, offset, size)) {
                Ok(bytes) => return reply.data(bytes.as_ref().map_or(&[], Bytes::as_slice)),
                Err(error) => Err(error),
            },
            Ok(Opened::Writable(view)) => self.answer(action, ino, |_| writes::read(&*view, offset, size)),
            Ok(Opened::Lock(node)) => self.locks.read(node, offset, size),
            Err(error) => Err(error),
        };
        match own {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_bytes(ino, fh, offset, data, flags) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        writes::reply(self.flush_file(ino, fh), reply);
    }

    /// A folder is synced by who wants everything in it to be durable: all files are of one overlay.
    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        writes::reply(self.flush_all(ino), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        writes::reply(self.allocate(ino, fh, offset, length, mode), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let is_other_owner = mode.is_some() || uid.is_some() || gid.is_some();
        let changed = self.change(ino, size, is_other_owner);
        match changed.and_then(|()| self.answer("look at", ino, |node| self.attr(node))) {
            Ok(attr) => reply.attr(&NOT_AT_ALL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn access(&self, _: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if !self.tree.takes_writes() {
            // The kernel does not ask again.
            return reply.error(Errno::ENOSYS);
        }
        writes::reply(if mask.contains(AccessFlags::W_OK) { self.check_writable(ino) } else { Ok(()) }, reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        match self.make_lock(parent, name.as_bytes(), false) {
            Ok(attr) => reply.entry(&NOT_AT_ALL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.make_lock(parent, name.as_bytes(), true) {
            Ok(attr) => {
                let (handle, flags) = self.open_answer(Opened::Lock(NodeId(attr.ino.0)));
                reply.created(&NOT_AT_ALL, &attr, Generation(0), handle, flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        writes::reply(self.remove_lock(parent, name.as_bytes(), true), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        writes::reply(self.remove_lock(parent, name.as_bytes(), false), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = (NodeId(parent.0), name.as_bytes());
        writes::reply(self.rename_lock(from, (NodeId(newparent.0), newname.as_bytes()), flags), reply);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
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
        let (Ok(offset), SEEK_DATA | SEEK_HOLE) = (u64::try_from(offset), whence) else {
            return reply.error(Errno::EINVAL);
        };
        let found = self.file(fh).and_then(|opened| match opened {
            Opened::Read(file) => self.answer("read the map of", ino, |_| Self::seek(file.content(), offset, whence)),
            Opened::Writable(view) => {
                self.answer("read the map of", ino, |_| Self::seek(&RawFile(view), offset, whence))
            }
            Opened::Lock(_) => Err(Errno::EINVAL),
        });
        match found {
            Ok(Some(at)) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.handle(&self.folders, Arc::new(OpenFolder::new(NodeId(ino.0))));
        // Lock folders come and go.
        let node = NodeId(ino.0);
        let changes = is_lock(node) || self.tree.has_writable_files(node).unwrap_or(true);
        reply.opened(
            handle,
            if changes { FopenFlags::empty() } else { FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR },
        );
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
                    Ok(attr) => (attr, self.keep(entry.node)),
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
            let node = if is_lock(node) { self.tree.root() } else { node };
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
