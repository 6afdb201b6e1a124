//! Folders to extract into, on Unix: every step is relative to an open folder and follows no link, so that nothing that lies in the target, and
//! nothing that moves there meanwhile, can lead outside of it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, futimens, linkat, mkdirat, mknodat, openat, renameat, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::extract::metadata::{Metadata, is_foreign};
use crate::filesystem::files::{NodeKind, Time, Xattr};

/// Longest name that a folder takes, in bytes.
const MAX_NAME: usize = 255;
/// Longest value of an extended attribute and longest list of names on Linux, in bytes.
const XATTR_MAX: usize = 65_536;

/// Says which names this system can have as they are: all that are not too long.
pub(crate) fn representable(name: &[u8]) -> bool {
    name.len() <= MAX_NAME
}

/// The name without what this system cannot have in one: there is nothing.
pub(crate) fn plain_part(name: &str) -> String {
    name.to_owned()
}

/// What two names have in common that are one name here: everything.
pub(crate) fn key(name: &OsStr) -> OsString {
    name.to_owned()
}

/// The time as this system keeps it.
pub(crate) fn as_kept(time: Time) -> Time {
    time
}

/// What lies under a name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Existing {
    /// What it is; a socket for whatever has no word here.
    pub(crate) kind: NodeKind,
    /// Its bytes.
    pub(crate) len: u64,
    /// Its last change.
    pub(crate) modified: Time,
    permissions: u16,
    uid: u32,
    gid: u32,
}

/// How much of what a file should have it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// All of it and nothing else that counts.
    All,
    /// Something is missing or different.
    NotAll,
    /// It has extended attributes of users beyond what it should.
    More,
}

/// A folder that is open.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// A file that takes its name when it is finished.
#[derive(Debug)]
pub(crate) struct NewFile {
    folder: Arc<Folder>,
    /// Where the bytes go.
    pub(crate) file: File,
    temporary: PathBuf,
    finished: bool,
}

/// Tells the temporary names of one process apart.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

fn temporary_name() -> PathBuf {
    let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!(".hikae-{}-{number}", std::process::id()))
}

fn timespec(time: Option<Time>) -> Timespec {
    match time {
        Some(time) => Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) },
        // Leave it as it is.
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
    }
}

fn timestamps(metadata: &Metadata) -> Timestamps {
    Timestamps { last_access: timespec(metadata.accessed), last_modification: timespec(metadata.modified) }
}

fn mode(permissions: u16) -> Mode {
    Mode::from_raw_mode(u32::from(permissions))
}

impl Folder {
    fn error(&self, action: &'static str, name: &OsStr, error: Errno) -> Error {
        Error::io(action, self.path.join(name), error.into())
    }

    /// Opens the target itself, which may be reached through links; makes it (but not its parents) where it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        match mkdirat(CWD, path, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::io("make the folder", path, error.into())),
        }
        let fd = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { fd: fd.map_err(|error| Error::io("open", path, error.into()))?, path: path.to_owned() })
    }

    /// Its path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a folder in this one. Fails where the name is a link or no folder.
    pub(crate) fn subfolder(&self, name: &OsStr) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path: self.path.join(name) }),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(Error::Refused(format!(
                "{} is in the way: it is no folder, and links are not followed",
                self.path.join(name).display()
            ))),
            Err(error) => Err(self.error("open", name, error)),
        }
    }

    /// Opens a folder in this one, and makes it where it is not there. Says whether it was made.
    pub(crate) fn make_subfolder(&self, name: &OsStr) -> Result<(Self, bool)> {
        let made = match mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(self.error("make the folder", name, error)),
        };
        Ok((self.subfolder(name)?, made))
    }

    /// What lies under a name.
    pub(crate) fn existing(&self, name: &OsStr) -> Result<Option<Existing>> {
        let stat = match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.error("examine", name, error)),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Folder,
            FileType::Symlink => NodeKind::Symlink,
            FileType::Fifo => NodeKind::Fifo,
            _ => NodeKind::Socket,
        };
        Ok(Some(Existing {
            kind,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: Time { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
            permissions: u16::try_from(stat.st_mode & 0o7777).expect("twelve bits"),
            uid: stat.st_uid,
            gid: stat.st_gid,
        }))
    }

    /// Opens a regular file for reading; follows no link.
    pub(crate) fn read_file(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty()).map_err(|error| self.error("open", name, error))?;
        Ok(File::from(fd))
    }

    /// Says how much of `metadata` the file `name` has, whose own is `existing`. Extended attributes are looked at only where `keeps_xattrs`.
    pub(crate) fn holds_metadata(
        &self,
        name: &OsStr,
        existing: &Existing,
        metadata: &Metadata,
        keeps_xattrs: bool,
    ) -> Result<Held> {
        let is_same = metadata.permissions.is_none_or(|permissions| permissions == existing.permissions)
            && metadata.uid.is_none_or(|uid| uid == existing.uid)
            && metadata.gid.is_none_or(|gid| gid == existing.gid)
            && metadata.modified.is_none_or(|modified| modified == existing.modified);
        let held = if is_same { Held::All } else { Held::NotAll };
        if !keeps_xattrs {
            return Ok(held);
        }
        // Where its user may not even read it, a new file is simpler.
        let Ok(file) = self.read_file(name) else { return Ok(Held::More) };
        Ok(match xattrs_held(&file, &metadata.xattrs) {
            Ok(Held::All) => held,
            Ok(other) => other,
            // Setting them will say what is wrong.
            Err(_) => Held::NotAll,
        })
    }

    /// Starts a file.
    pub(crate) fn new_file(self: &Arc<Self>) -> Result<NewFile> {
        let temporary = temporary_name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.fd, &temporary, flags, Mode::from_raw_mode(0o600));
        let fd = fd.map_err(|error| self.error("create", temporary.as_os_str(), error))?;
        Ok(NewFile { folder: Arc::clone(self), file: File::from(fd), temporary, finished: false })
    }

    /// Makes a symbolic link, in place of whatever is no folder under the name.
    pub(crate) fn symlink(&self, name: &OsStr, target: &[u8], _to_folder: bool) -> Result<()> {
        let temporary = temporary_name();
        symlinkat(OsStr::from_bytes(target), &self.fd, &temporary)
            .map_err(|error| self.error("make the link", name, error))?;
        self.rename(&temporary, name)
    }

    /// Makes another name for a file of `folder`, in place of whatever is no folder under it.
    pub(crate) fn hard_link(&self, folder: &Self, first: &OsStr, name: &OsStr) -> Result<()> {
        let temporary = temporary_name();
        linkat(&folder.fd, first, &self.fd, &temporary, AtFlags::empty())
            .map_err(|error| self.error("make the hard link", name, error))?;
        self.rename(&temporary, name)?;
        // Where both names are one file already, the rename did nothing and left the temporary name.
        match unlinkat(&self.fd, &temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error("remove", temporary.as_os_str(), error)),
        }
    }

    /// Makes a device node, pipe or socket, in place of whatever is no folder under the name.
    pub(crate) fn special(&self, name: &OsStr, kind: NodeKind) -> Result<()> {
        let (file_type, device) = match kind {
            NodeKind::CharacterDevice { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            NodeKind::BlockDevice { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            NodeKind::Fifo => (FileType::Fifo, 0),
            _ => (FileType::Socket, 0),
        };
        let temporary = temporary_name();
        mknodat(&self.fd, &temporary, file_type, Mode::from_raw_mode(0o600), device)
            .map_err(|error| self.error("make the node", name, error))?;
        self.rename(&temporary, name)
    }

    fn rename(&self, temporary: &Path, name: &OsStr) -> Result<()> {
        renameat(&self.fd, temporary, &self.fd, name).map_err(|error| {
            // Best effort: the temporary name is of no use to anybody.
            let _ = unlinkat(&self.fd, temporary, AtFlags::empty());
            match error {
                Errno::ISDIR => {
                    Error::Refused(format!("{} is in the way: it is a folder", self.path.join(name).display()))
                }
                error => self.error("rename", name, error),
            }
        })
    }

    /// Gives owner, permissions, extended attributes and times to this folder. Returns what could not be kept.
    pub(crate) fn apply(&self, metadata: &Metadata) -> Vec<String> {
        apply(&self.fd, metadata)
    }

    /// Gives owner and times to what lies under a name without following it: links, pipes, devices.
    pub(crate) fn apply_to_name(&self, name: &OsStr, kind: NodeKind, metadata: &Metadata) -> Vec<String> {
        let mut lost = Vec::new();
        let mut note = |what: &str, result: std::result::Result<(), Errno>| {
            if let Err(error) = result {
                lost.push(format!("{what}: {error}"));
            }
        };
        if metadata.uid.is_some() || metadata.gid.is_some() {
            let owner = chownat(&self.fd, name, uid(metadata), gid(metadata), AtFlags::SYMLINK_NOFOLLOW);
            note("owner", owner);
        }
        if let (Some(permissions), false) = (metadata.permissions, kind == NodeKind::Symlink) {
            note("permissions", rustix::fs::chmodat(&self.fd, name, mode(permissions), AtFlags::empty()));
        }
        note("times", utimensat(&self.fd, name, &timestamps(metadata), AtFlags::SYMLINK_NOFOLLOW));
        lost
    }

    /// Names in this folder, with whether each is a folder.
    pub(crate) fn entries(&self) -> Result<Vec<(OsString, bool)>> {
        let failed = |error: Errno| Error::io("list", &self.path, error.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        let mut entries = Vec::new();
        for name in names {
            let is_folder = self.existing(&name)?.is_some_and(|existing| existing.kind == NodeKind::Folder);
            entries.push((name, is_folder));
        }
        Ok(entries)
    }

    /// Removes a file or link, or an empty folder.
    pub(crate) fn remove(&self, name: &OsStr, is_folder: bool) -> Result<()> {
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(&self.fd, name, flags).map_err(|error| self.error("remove", name, error))
    }
}

impl NewFile {
    /// Files have no named streams here.
    pub(crate) fn new_stream(&self, _stream: &[u8]) -> Result<File> {
        Err(Error::unsupported(self.folder.path.display(), "named streams of files, which only Windows has"))
    }

    /// Gives owner, permissions, extended attributes and times. Returns what could not be kept.
    pub(crate) fn apply(&self, metadata: &Metadata) -> Vec<String> {
        apply(&self.file, metadata)
    }

    /// Gives the file its name, in place of whatever is no folder under it.
    pub(crate) fn finish(mut self, name: &OsStr) -> Result<()> {
        self.finished = true;
        self.folder.rename(&self.temporary, name)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: what was not finished is of no use.
            let _ = unlinkat(&self.folder.fd, &self.temporary, AtFlags::empty());
        }
    }
}

fn uid(metadata: &Metadata) -> Option<Uid> {
    metadata.uid.map(Uid::from_raw)
}

fn gid(metadata: &Metadata) -> Option<Gid> {
    metadata.gid.map(Gid::from_raw)
}

/// Gives owner, permissions, extended attributes and times to an open file. Returns what could not be kept.
pub(crate) fn apply_to_file(file: &File, metadata: &Metadata) -> Vec<String> {
    apply(file, metadata)
}

fn xattrs_held(file: &File, wanted: &[Xattr]) -> std::result::Result<Held, Errno> {
    let mut names = vec![0_u8; XATTR_MAX];
    let len = match flistxattr(file, names.as_mut_slice()) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error),
    };
    let names = names.get(..len).unwrap_or_default().split(|byte| *byte == 0);
    let is_extra = |name: &[u8]| name.starts_with(b"user.") && !wanted.iter().any(|xattr| xattr.name == name);
    if names.into_iter().any(is_extra) {
        return Ok(Held::More);
    }
    let mut value = vec![0_u8; XATTR_MAX];
    for xattr in wanted {
        match fgetxattr(file, OsStr::from_bytes(&xattr.name), value.as_mut_slice()) {
            Ok(len) if value.get(..len) == Some(xattr.value.as_slice()) => {}
            Err(Errno::OPNOTSUPP) if is_foreign(&xattr.name) => {}
            Ok(_) | Err(Errno::NODATA) => return Ok(Held::NotAll),
            Err(error) => return Err(error),
        }
    }
    Ok(Held::All)
}

/// A name as the system has it.
pub(crate) fn to_os(name: &[u8]) -> OsString {
    OsStr::from_bytes(name).to_owned()
}

fn apply(fd: &impl std::os::fd::AsFd, metadata: &Metadata) -> Vec<String> {
    let mut lost = Vec::new();
    let mut note = |what: &str, result: std::result::Result<(), Errno>| {
        if let Err(error) = result {
            lost.push(format!("{what}: {error}"));
        }
    };
    // A change of owner clears set-uid bits and capabilities, so it comes first; the times last.
    if metadata.uid.is_some() || metadata.gid.is_some() {
        note("owner", fchown(fd, uid(metadata), gid(metadata)));
    }
    for xattr in &metadata.xattrs {
        let set = fsetxattr(fd, OsStr::from_bytes(&xattr.name), &xattr.value, XattrFlags::empty());
        if set != Err(Errno::OPNOTSUPP) || !is_foreign(&xattr.name) {
            note(&String::from_utf8_lossy(&xattr.name), set);
        }
    }
    if let Some(permissions) = metadata.permissions {
        note("permissions", fchmod(fd, mode(permissions)));
    }
    note("times", futimens(fd, &timestamps(metadata)));
    lost
}
