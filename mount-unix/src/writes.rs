//! Calls that change something: files that take writes, into an overlay, and lock folders. Everything else is read only.

use std::sync::Arc;

use fuser::{Errno, FileAttr, FileHandle, INodeNo, OpenAccMode, OpenFlags, RenameFlags, ReplyEmpty};
use imgfmt::filesystem::files::NodeId;
use imgfmt::overlay::ResizableDisk;
use imgfmt::readahead::OpenFile;
use imgfmt::view::writable::WritableView;
use imgfmt::{Disk, Error, WritableDisk};

use crate::lock_folders::{is_lock, is_lock_name};
use crate::translate::{Answer, Translate};

/// `O_DSYNC`, which `O_SYNC` holds too: the same on all machines that Linux's FUSE is used on but MIPS, PA-RISC, Alpha and SPARC.
const O_DSYNC: i32 = 0o10000;
/// `fallocate`: the length of the file stays.
const KEEP_SIZE: i32 = 0x1;
/// `fallocate`: the range is given back and reads as zero. Comes with [`KEEP_SIZE`].
const PUNCH_HOLE: i32 = 0x2;
/// `fallocate`: the range reads as zero.
const ZERO_RANGE: i32 = 0x10;

/// An open file.
#[derive(Clone)]
pub(crate) enum Opened {
    /// One that never changes.
    Read(Arc<OpenFile>),
    /// One that takes writes.
    Writable(Arc<WritableView>),
    /// One in a lock folder.
    Lock(NodeId),
}

/// Says whether a file is opened for writing.
pub(crate) fn wants_to_write(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY
}

/// Reads at most `size` bytes; fewer at the end of the file.
pub(crate) fn read(file: &dyn Disk, offset: u64, size: u32) -> Result<Vec<u8>, Error> {
    let rest = file.len().saturating_sub(offset).min(size.into());
    let mut bytes = vec![0; usize::try_from(rest).unwrap_or(0)];
    if !bytes.is_empty() {
        file.read_at(&mut bytes, offset)?;
    }
    Ok(bytes)
}

/// Sends an answer without content.
pub(crate) fn reply(answer: Answer<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Translate {
    pub(crate) fn write_bytes(
        &self,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        bytes: &[u8],
        flags: OpenFlags,
    ) -> Answer<()> {
        let action = format_args!("write {} bytes at {offset:#x} of", bytes.len());
        match self.file(fh)? {
            Opened::Read(_) => Err(Errno::EBADF),
            Opened::Lock(node) => self.locks.write(node, offset, bytes),
            Opened::Writable(view) => self.answer(action, ino, |_| {
                view.write_at(bytes, offset)?;
                // Nobody calls for a flush of what was opened this way.
                if flags.0 & O_DSYNC != 0 { view.flush() } else { Ok(()) }
            }),
        }
    }

    pub(crate) fn flush_file(&self, ino: INodeNo, fh: FileHandle) -> Answer<()> {
        match self.file(fh)? {
            Opened::Read(_) | Opened::Lock(_) => Ok(()),
            Opened::Writable(view) => self.answer("write to the disk what was written to", ino, |_| view.flush()),
        }
    }

    /// Makes what was written to any file durable.
    pub(crate) fn flush_all(&self, ino: INodeNo) -> Answer<()> {
        self.answer("write to the disk what was written into", ino, |_| self.tree.flush())
    }

    /// Gives back or zeroes a range, or lets the file reach its end.
    pub(crate) fn allocate(&self, ino: INodeNo, fh: FileHandle, offset: u64, len: u64, mode: i32) -> Answer<()> {
        let Opened::Writable(view) = self.file(fh)? else { return Err(Errno::EOPNOTSUPP) };
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        self.answer(format_args!("zero {len} bytes at {offset:#x} of"), ino, |_| {
            let is_zero = match mode & !KEEP_SIZE {
                0 => false,
                ZERO_RANGE => true,
                PUNCH_HOLE if mode & KEEP_SIZE != 0 => true,
                _ => return Err(Error::unsupported("file", format!("fallocate with mode {mode:#x}"))),
            };
            if mode & KEEP_SIZE == 0 && end > view.len() {
                view.set_len(end)?;
            }
            let end = end.min(view.len());
            if is_zero && offset < end { view.zero_at(offset, end.saturating_sub(offset)) } else { Ok(()) }
        })
    }

    /// Changes the length of a file; owners, modes and times stay what they are.
    pub(crate) fn change(&self, ino: INodeNo, len: Option<u64>, is_other_owner: bool) -> Answer<()> {
        let node = NodeId(ino.0);
        if is_lock(node) {
            return len.map_or(Ok(()), |len| self.locks.set_len(node, len));
        }
        let Some(view) = self.answer("look at", ino, |node| self.tree.writable(node))? else {
            return Err(Errno::EROFS);
        };
        match len {
            Some(len) => self.answer(format_args!("make {len} bytes long"), ino, |_| view.set_len(len)),
            None if is_other_owner => Err(Errno::EPERM),
            // Programs set times on what they have written; these files have none of their own.
            None => Ok(()),
        }
    }

    pub(crate) fn check_writable(&self, ino: INodeNo) -> Answer<()> {
        let node = NodeId(ino.0);
        let is_writable = is_lock(node)
            || self.answer("look at", ino, |node| {
                Ok(self.tree.writable(node)?.is_some() || self.tree.has_writable_files(node)?)
            })?;
        if is_writable { Ok(()) } else { Err(Errno::EROFS) }
    }

    /// Makes a lock folder beside files that take writes, or something in one.
    pub(crate) fn make_lock(&self, parent: INodeNo, name: &[u8], is_file: bool) -> Answer<FileAttr> {
        let folder = NodeId(parent.0);
        if !is_lock(folder) {
            self.check_writable(parent)?;
            if is_file || !is_lock_name(name) {
                return Err(Errno::EPERM);
            }
            if self.answer("look into", parent, |folder| self.find(folder, name))?.is_some() {
                return Err(Errno::EEXIST);
            }
        }
        let made = self.locks.make(folder, name, is_file)?;
        self.answer("look at", INodeNo(made.0), |node| self.attr(node))
    }

    pub(crate) fn remove_lock(&self, parent: INodeNo, name: &[u8], is_file: bool) -> Answer<()> {
        match self.locks.remove(NodeId(parent.0), name, is_file) {
            Err(error) if error.code() == Errno::ENOENT.code() => Err(Errno::EROFS),
            removed => removed,
        }
    }

    pub(crate) fn rename_lock(&self, from: (NodeId, &[u8]), to: (NodeId, &[u8]), flags: RenameFlags) -> Answer<()> {
        if self.locks.find(from.0, from.1).is_none() {
            return Err(Errno::EROFS);
        }
        if !(flags & !RenameFlags::RENAME_NOREPLACE).is_empty() {
            return Err(Errno::EINVAL);
        }
        self.locks.rename(from, to, flags.is_empty())
    }
}
