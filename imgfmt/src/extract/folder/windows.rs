//! Folders to extract into, on Windows: every step opens one name relative to an open folder (`NtCreateFile` with a root directory) and with
//! `FILE_OPEN_REPARSE_POINT`, so that no link, junction or other reparse point is followed. A name never holds a `\`, and a folder that is open cannot be renamed or replaced
//! by others, since it is not shared for deletion.
//!
//! Source: "NtCreateFile", "FILE_RENAME_INFORMATION" and "FILE_LINK_INFORMATION" in the documentation of Windows drivers.
#![expect(unsafe_code, reason = "calls of the Windows API that are relative to an open folder")]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::os::windows::io::{AsRawHandle, FromRawHandle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use windows_sys::Wdk::Foundation::OBJECT_ATTRIBUTES;
use windows_sys::Wdk::Storage::FileSystem::{
    FILE_CREATE, FILE_DIRECTORY_FILE, FILE_INFORMATION_CLASS, FILE_NON_DIRECTORY_FILE, FILE_OPEN,
    FILE_OPEN_REPARSE_POINT, FILE_SYNCHRONOUS_IO_NONALERT, FileLinkInformation, FileRenameInformation, NtCreateFile,
    NtSetInformationFile,
};
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, ERROR_DIRECTORY, ERROR_FILE_NOT_FOUND, ERROR_NO_MORE_FILES,
    ERROR_PRIVILEGE_NOT_HELD, OBJ_CASE_INSENSITIVE, RtlNtStatusToDosError, UNICODE_STRING,
};
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_ATTRIBUTE_ARCHIVE, FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_HIDDEN, FILE_ATTRIBUTE_NORMAL,
    FILE_ATTRIBUTE_NOT_CONTENT_INDEXED, FILE_ATTRIBUTE_READONLY, FILE_ATTRIBUTE_REPARSE_POINT, FILE_ATTRIBUTE_SYSTEM,
    FILE_BASIC_INFO, FILE_DISPOSITION_INFO, FILE_FLAG_BACKUP_SEMANTICS, FILE_GENERIC_READ, FILE_GENERIC_WRITE,
    FILE_READ_ATTRIBUTES, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE, FILE_TRAVERSE, FILE_WRITE_ATTRIBUTES,
    FileBasicInfo, FileDispositionInfo, FileIdBothDirectoryInfo, FileIdBothDirectoryRestartInfo,
    GetFileInformationByHandleEx, SYNCHRONIZE, SetFileInformationByHandle,
};
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
use windows_sys::Win32::System::Ioctl::FSCTL_SET_REPARSE_POINT;
use zerocopy::IntoBytes;

use crate::bytes::le32;
use crate::error::{Error, Result};
use crate::extract::metadata::{Metadata, is_foreign};
use crate::extract::reparse;
use crate::filesystem::files::{NodeKind, Time};
use crate::filesystem::utf16::{from_wtf8, simple_upper_case};
use crate::platform::windows::control_bytes;
use crate::platform::windows_names;

/// Seconds from 1601 to 1970.
const EPOCH: i64 = 11_644_473_600;
/// What a time is counted in: 100 nanoseconds.
const TICKS_A_SECOND: i64 = 10_000_000;
/// The attributes that a file takes from its source.
const KEPT_ATTRIBUTES: u32 = FILE_ATTRIBUTE_READONLY
    | FILE_ATTRIBUTE_HIDDEN
    | FILE_ATTRIBUTE_SYSTEM
    | FILE_ATTRIBUTE_ARCHIVE
    | FILE_ATTRIBUTE_NOT_CONTENT_INDEXED;

/// Says which names this system can have as they are.
pub(crate) fn representable(name: &[u8]) -> bool {
    // A name with a lone surrogate is none that other programs can be trusted with.
    std::str::from_utf8(name).is_ok_and(windows_names::is_plain)
}

/// The name without what this system cannot have in one.
pub(crate) fn plain_part(name: &str) -> String {
    windows_names::plain_part(name)
}

/// What two names have in common that are one name here: case does not count.
pub(crate) fn key(name: &OsStr) -> OsString {
    OsString::from_wide(&simple_upper_case(&name.encode_wide().collect::<Vec<_>>()))
}

/// The time as this system keeps it: in units of 100 nanoseconds.
pub(crate) fn as_kept(time: Time) -> Time {
    Time { nanoseconds: time.nanoseconds / 100 * 100, ..time }
}

/// A name as the system has it.
pub(crate) fn to_os(name: &[u8]) -> OsString {
    from_wtf8(name)
        .map_or_else(|| String::from_utf8_lossy(name).into_owned().into(), |units| OsString::from_wide(&units))
}

/// What lies under a name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Existing {
    /// What it is; a link for every reparse point.
    pub(crate) kind: NodeKind,
    /// Its bytes.
    pub(crate) len: u64,
    /// Its last change.
    pub(crate) modified: Time,
    attributes: u32,
}

/// How much of what a file should have it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// All of it and nothing else that counts.
    All,
    /// Something is missing or different.
    NotAll,
    /// It has extended attributes of users beyond what it should.
    #[expect(dead_code, reason = "other systems have them")]
    More,
}

/// A folder that is open.
#[derive(Debug)]
pub(crate) struct Folder {
    handle: File,
    path: PathBuf,
}

/// A file that takes its name when it is finished.
#[derive(Debug)]
pub(crate) struct NewFile {
    folder: Arc<Folder>,
    /// Where the bytes go.
    pub(crate) file: File,
    temporary: OsString,
    finished: bool,
}

/// Tells the temporary names of one process apart.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

fn temporary_name() -> OsString {
    let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
    format!(".hikae-{}-{number}", std::process::id()).into()
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error().is_some_and(|found| found.cast_unsigned() == code)
}

fn from_status(status: i32) -> io::Result<()> {
    if status >= 0 {
        return Ok(());
    }
    // SAFETY: the function takes any number.
    Err(io::Error::from_raw_os_error(unsafe { RtlNtStatusToDosError(status) }.cast_signed()))
}

/// What is opened, and for what.
#[derive(Clone, Copy)]
struct How {
    access: u32,
    share: u32,
    create: bool,
    options: u32,
}

const ANYTHING: u32 = 0;
const SHARED: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

/// Opens `name`, one name and perhaps `:STREAM`, in an open folder; follows no reparse point.
fn open_in(folder: &File, name: &OsStr, how: How) -> io::Result<File> {
    let mut units: Vec<u16> = name.encode_wide().collect();
    if units.is_empty() || units.iter().any(|unit| [u16::from(b'\\'), u16::from(b'/'), 0].contains(unit)) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let len =
        units.len().checked_mul(2).and_then(|len| u16::try_from(len).ok()).ok_or(io::ErrorKind::InvalidFilename)?;
    let object_name = UNICODE_STRING { Length: len, MaximumLength: len, Buffer: units.as_mut_ptr() };
    let attributes = OBJECT_ATTRIBUTES {
        Length: u32::try_from(size_of::<OBJECT_ATTRIBUTES>()).expect("a small structure"),
        RootDirectory: folder.as_raw_handle(),
        ObjectName: &raw const object_name,
        Attributes: OBJ_CASE_INSENSITIVE,
        SecurityDescriptor: std::ptr::null(),
        SecurityQualityOfService: std::ptr::null(),
    };
    let mut handle = std::ptr::null_mut();
    let mut done = IO_STATUS_BLOCK::default();
    // SAFETY: the structures and the name they lead to live through the call; the handle of the folder is open; the answer is written to the two outputs.
    let status = unsafe {
        NtCreateFile(
            &raw mut handle,
            how.access | SYNCHRONIZE,
            &raw const attributes,
            &raw mut done,
            std::ptr::null(),
            FILE_ATTRIBUTE_NORMAL,
            how.share,
            if how.create { FILE_CREATE } else { FILE_OPEN },
            how.options | FILE_OPEN_REPARSE_POINT | FILE_SYNCHRONOUS_IO_NONALERT,
            std::ptr::null(),
            0,
        )
    };
    from_status(status)?;
    // SAFETY: the call gave an open handle that nobody else owns.
    Ok(unsafe { File::from_raw_handle(handle) })
}

/// Gives an open file the name `name` in `folder`, as its only one or as a further one, in place of whatever is no folder under it.
fn set_name(file: &File, class: FILE_INFORMATION_CLASS, folder: &File, name: &OsStr) -> io::Result<()> {
    let units: Vec<u8> = name.encode_wide().flat_map(u16::to_le_bytes).collect();
    let len = u32::try_from(units.len()).map_err(|_| io::ErrorKind::InvalidFilename)?;
    // Replace: 1, seven bytes of padding, the folder, the length of the name, the name.
    let root = u64::try_from(folder.as_raw_handle().addr()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut info = Vec::from(1_u64.to_le_bytes());
    info.extend(root.to_le_bytes());
    info.extend(len.to_le_bytes());
    info.extend(units);
    // The structure has its alignment, and room for one character more.
    let mut aligned = vec![0_u64; info.len().div_ceil(8).max(3)];
    if let Some(part) = aligned.as_mut_bytes().get_mut(..info.len()) {
        part.copy_from_slice(&info);
    }
    let aligned_len = u32::try_from(size_of_val(aligned.as_slice())).map_err(|_| io::ErrorKind::InvalidFilename)?;
    let mut done = IO_STATUS_BLOCK::default();
    // SAFETY: both handles are open, and the structure is as long as is said and laid out as the class wants it.
    let status = unsafe {
        NtSetInformationFile(file.as_raw_handle(), &raw mut done, aligned.as_ptr().cast(), aligned_len, class)
    };
    from_status(status)
}

/// Times and attributes of an open file; 0 leaves one as it is.
fn set_basic(file: &File, info: FILE_BASIC_INFO) -> io::Result<()> {
    let len = u32::try_from(size_of::<FILE_BASIC_INFO>()).expect("a small structure");
    // SAFETY: the handle is open, and the structure lives through the call and is as long as is said.
    let done = unsafe {
        SetFileInformationByHandle(file.as_raw_handle(), FileBasicInfo, std::ptr::from_ref(&info).cast(), len)
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has a file vanish when its handle is closed.
fn set_deleted(file: &File) -> io::Result<()> {
    let info = FILE_DISPOSITION_INFO { DeleteFile: true };
    let len = u32::try_from(size_of::<FILE_DISPOSITION_INFO>()).expect("a small structure");
    // SAFETY: the handle is open, and the structure lives through the call and is as long as is said.
    let done = unsafe {
        SetFileInformationByHandle(file.as_raw_handle(), FileDispositionInfo, std::ptr::from_ref(&info).cast(), len)
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn clear_read_only(file: &File) -> io::Result<()> {
    set_basic(file, FILE_BASIC_INFO { FileAttributes: FILE_ATTRIBUTE_NORMAL, ..FILE_BASIC_INFO::default() })
}

/// A time as the system has it; 0, which leaves what is there, where there is none or it is before 1601.
fn ticks(time: Option<Time>) -> i64 {
    let ticks = |time: Time| {
        let seconds = time.seconds.checked_add(EPOCH)?.checked_mul(TICKS_A_SECOND)?;
        seconds.checked_add(i64::from(time.nanoseconds / 100))
    };
    time.and_then(ticks).unwrap_or(0).max(0)
}

fn from_ticks(ticks: u64) -> Time {
    let ticks = i64::try_from(ticks).unwrap_or(i64::MAX);
    let nanoseconds = u32::try_from((ticks % TICKS_A_SECOND).saturating_mul(100)).unwrap_or(0);
    Time { seconds: (ticks / TICKS_A_SECOND).saturating_sub(EPOCH), nanoseconds }
}

impl Folder {
    fn error(&self, action: &'static str, name: &OsStr, error: io::Error) -> Error {
        Error::io(action, self.path.join(name), error)
    }

    /// Opens the target itself, which may be reached through links; makes it (but not its parents) where it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.is_dir() => {
                return Err(Error::io("make the folder", path, error));
            }
            _ => {}
        }
        let handle = File::options()
            .access_mode(FILE_GENERIC_READ | FILE_TRAVERSE)
            .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE)
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
            .open(path);
        let handle = handle.map_err(|error| Error::io("open", path, error))?;
        if !handle.metadata().map_err(|error| Error::io("examine", path, error))?.is_dir() {
            return Err(Error::Refused(format!("{} is no folder", path.display())));
        }
        Ok(Self { handle, path: path.to_owned() })
    }

    /// Its path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn in_the_way(&self, name: &OsStr) -> Error {
        Error::Refused(format!(
            "{} is in the way: it is no folder, and links are not followed",
            self.path.join(name).display()
        ))
    }

    fn open_folder(&self, name: &OsStr, create: bool) -> io::Result<File> {
        let access = FILE_GENERIC_READ | FILE_TRAVERSE;
        let share = FILE_SHARE_READ | FILE_SHARE_WRITE;
        let how = |access| How { access, share, create, options: FILE_DIRECTORY_FILE };
        match open_in(&self.handle, name, how(access | FILE_WRITE_ATTRIBUTES)) {
            // One that is there already may be somebody else's: files can be made in it, and that its times cannot be set is told then.
            Err(error) if !create && is(&error, ERROR_ACCESS_DENIED) => open_in(&self.handle, name, how(access)),
            opened => opened,
        }
    }

    /// Opens a folder in this one. Fails where the name is a link or no folder.
    pub(crate) fn subfolder(&self, name: &OsStr) -> Result<Self> {
        let handle = match self.open_folder(name, false) {
            Err(error) if is(&error, ERROR_DIRECTORY) => return Err(self.in_the_way(name)),
            handle => handle.map_err(|error| self.error("open", name, error))?,
        };
        let attributes = handle.metadata().map_err(|error| self.error("examine", name, error))?.file_attributes();
        if attributes & FILE_ATTRIBUTE_REPARSE_POINT != 0 || attributes & FILE_ATTRIBUTE_DIRECTORY == 0 {
            return Err(self.in_the_way(name));
        }
        Ok(Self { handle, path: self.path.join(name) })
    }

    /// Opens a folder in this one, and makes it where it is not there. Says whether it was made.
    pub(crate) fn make_subfolder(&self, name: &OsStr) -> Result<(Self, bool)> {
        match self.open_folder(name, true) {
            Ok(handle) => Ok((Self { handle, path: self.path.join(name) }, true)),
            Err(error) if is(&error, ERROR_ALREADY_EXISTS) || error.kind() == io::ErrorKind::AlreadyExists => {
                Ok((self.subfolder(name)?, false))
            }
            Err(error) => Err(self.error("make the folder", name, error)),
        }
    }

    /// What lies under a name.
    pub(crate) fn existing(&self, name: &OsStr) -> Result<Option<Existing>> {
        let how = How { access: FILE_READ_ATTRIBUTES, share: SHARED, create: false, options: ANYTHING };
        let file = match open_in(&self.handle, name, how) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| self.error("examine", name, error))?,
        };
        let metadata = file.metadata().map_err(|error| self.error("examine", name, error))?;
        let attributes = metadata.file_attributes();
        let kind = match () {
            () if attributes & FILE_ATTRIBUTE_REPARSE_POINT != 0 => NodeKind::Symlink,
            () if attributes & FILE_ATTRIBUTE_DIRECTORY != 0 => NodeKind::Folder,
            () => NodeKind::File,
        };
        Ok(Some(Existing {
            kind,
            len: metadata.file_size(),
            modified: from_ticks(metadata.last_write_time()),
            attributes: attributes & KEPT_ATTRIBUTES,
        }))
    }

    /// Opens a regular file for reading and for its times; follows no link.
    pub(crate) fn read_file(&self, name: &OsStr) -> Result<File> {
        let how = |access| How { access, share: SHARED, create: false, options: FILE_NON_DIRECTORY_FILE };
        open_in(&self.handle, name, how(FILE_GENERIC_READ | FILE_WRITE_ATTRIBUTES))
            .or_else(|_| open_in(&self.handle, name, how(FILE_GENERIC_READ)))
            .map_err(|error| self.error("open", name, error))
    }

    /// Says how much of `metadata` the file `name` has, whose own is `existing`. There are no extended attributes here.
    pub(crate) fn holds_metadata(
        &self,
        _name: &OsStr,
        existing: &Existing,
        metadata: &Metadata,
        _keeps_xattrs: bool,
    ) -> Result<Held> {
        let is_same = metadata.modified.is_none_or(|modified| as_kept(modified) == existing.modified)
            && metadata.dos_attributes.is_none_or(|wanted| wanted & KEPT_ATTRIBUTES == existing.attributes);
        Ok(if is_same { Held::All } else { Held::NotAll })
    }

    /// Starts a file.
    pub(crate) fn new_file(self: &Arc<Self>) -> Result<NewFile> {
        let temporary = temporary_name();
        let how = How {
            access: FILE_GENERIC_READ | FILE_GENERIC_WRITE | DELETE,
            share: FILE_SHARE_READ,
            create: true,
            options: FILE_NON_DIRECTORY_FILE,
        };
        let file = open_in(&self.handle, &temporary, how).map_err(|error| self.error("create", &temporary, error))?;
        Ok(NewFile { folder: Arc::clone(self), file, temporary, finished: false })
    }

    /// Makes a symbolic link, in place of whatever is no folder under the name. A link says whether it leads to a folder.
    pub(crate) fn symlink(&self, name: &OsStr, target: &[u8], to_folder: bool) -> Result<()> {
        let data = reparse::symlink(target)
            .ok_or_else(|| Error::unsupported(self.path.join(name).display(), "a link to what has no name here"))?;
        let temporary = temporary_name();
        let how = How {
            access: FILE_GENERIC_WRITE | FILE_READ_ATTRIBUTES | DELETE,
            share: FILE_SHARE_READ,
            create: true,
            options: if to_folder { FILE_DIRECTORY_FILE } else { FILE_NON_DIRECTORY_FILE },
        };
        let link = open_in(&self.handle, &temporary, how).map_err(|error| self.error("create", &temporary, error))?;
        let made = control_bytes(&link, FSCTL_SET_REPARSE_POINT, &data, &mut []).map_err(|error| {
            if is(&error, ERROR_PRIVILEGE_NOT_HELD) {
                let path = self.path.join(name);
                Error::Refused(format!("{}: links are made only by an administrator", path.display()))
            } else {
                self.error("make the link", name, error)
            }
        });
        made.and_then(|_| self.rename(&link, name)).inspect_err(|_| {
            // Best effort: the temporary name is of no use to anybody.
            let _ = set_deleted(&link);
        })
    }

    /// Makes another name for a file of `folder`, in place of whatever is no folder under it.
    pub(crate) fn hard_link(&self, folder: &Self, first: &OsStr, name: &OsStr) -> Result<()> {
        let how = How { access: FILE_WRITE_ATTRIBUTES, share: SHARED, create: false, options: FILE_NON_DIRECTORY_FILE };
        open_in(&folder.handle, first, how)
            .and_then(|file| set_name(&file, FileLinkInformation, &self.handle, name))
            .map_err(|error| self.error("make the hard link", name, error))
    }

    /// Windows has no device nodes, pipes and sockets among files.
    pub(crate) fn special(&self, name: &OsStr, kind: NodeKind) -> Result<()> {
        let what = match kind {
            NodeKind::CharacterDevice { .. } | NodeKind::BlockDevice { .. } => "a device node",
            NodeKind::Fifo => "a named pipe",
            _ => "a socket",
        };
        Err(Error::unsupported(
            self.path.join(name).display(),
            format_args!("{what}, which Windows has not among files"),
        ))
    }

    fn rename(&self, file: &File, name: &OsStr) -> Result<()> {
        let mut renamed = set_name(file, FileRenameInformation, &self.handle, name);
        if renamed.as_ref().is_err_and(|error| is(error, ERROR_ACCESS_DENIED)) {
            match self.existing(name)? {
                Some(existing) if existing.kind == NodeKind::Folder => {
                    return Err(Error::Refused(format!(
                        "{} is in the way: it is a folder",
                        self.path.join(name).display()
                    )));
                }
                // What is read-only is not replaced.
                Some(existing) if existing.attributes & FILE_ATTRIBUTE_READONLY != 0 => {
                    let how = How { access: FILE_WRITE_ATTRIBUTES, share: SHARED, create: false, options: ANYTHING };
                    renamed = open_in(&self.handle, name, how)
                        .and_then(|old| clear_read_only(&old))
                        .and_then(|()| set_name(file, FileRenameInformation, &self.handle, name));
                }
                _ => {}
            }
        }
        renamed.map_err(|error| self.error("rename", name, error))
    }

    /// Gives times and attributes to this folder. Returns what could not be kept.
    pub(crate) fn apply(&self, metadata: &Metadata) -> Vec<String> {
        apply_to_file(&self.handle, metadata)
    }

    /// Gives times to what lies under a name without following it.
    pub(crate) fn apply_to_name(&self, name: &OsStr, _kind: NodeKind, metadata: &Metadata) -> Vec<String> {
        let how = How { access: FILE_WRITE_ATTRIBUTES, share: SHARED, create: false, options: ANYTHING };
        match open_in(&self.handle, name, how) {
            Ok(file) => apply_to_file(&file, metadata),
            Err(error) => vec![format!("times: {error}")],
        }
    }

    /// Names in this folder, with whether each is a folder. What is a link is none.
    pub(crate) fn entries(&self) -> Result<Vec<(OsString, bool)>> {
        let mut entries = Vec::new();
        let mut room = vec![0_u64; 8192];
        let room_len = u32::try_from(size_of_val(room.as_slice())).expect("64 KiB");
        let mut class = FileIdBothDirectoryRestartInfo;
        loop {
            // SAFETY: the handle is open, and the buffer is as long as is said.
            let done = unsafe {
                GetFileInformationByHandleEx(self.handle.as_raw_handle(), class, room.as_mut_ptr().cast(), room_len)
            };
            if done == 0 {
                let error = io::Error::last_os_error();
                // FAT says of an empty root that there is no such file.
                let ended = is(&error, ERROR_NO_MORE_FILES) || is(&error, ERROR_FILE_NOT_FOUND);
                return if ended { Ok(entries) } else { Err(Error::io("list", &self.path, error)) };
            }
            class = FileIdBothDirectoryInfo;
            entries.extend(entries_of(room.as_bytes()));
        }
    }

    /// Removes a file or link, or an empty folder.
    pub(crate) fn remove(&self, name: &OsStr, is_folder: bool) -> Result<()> {
        let options = if is_folder { FILE_DIRECTORY_FILE } else { ANYTHING };
        let how = How { access: DELETE | FILE_WRITE_ATTRIBUTES, share: SHARED, create: false, options };
        let removed = open_in(&self.handle, name, how)
            .and_then(|file| set_deleted(&file).or_else(|_| clear_read_only(&file).and_then(|()| set_deleted(&file))));
        removed.map_err(|error| self.error("remove", name, error))
    }
}

/// The entries of one answer, `FILE_ID_BOTH_DIR_INFO` each.
fn entries_of(mut answer: &[u8]) -> Vec<(OsString, bool)> {
    let number = |bytes: &[u8], at| le32(bytes, at).and_then(|number| usize::try_from(number).ok());
    let mut entries = Vec::new();
    while let (Some(next), Some(attributes), Some(len)) = (number(answer, 0), le32(answer, 56), number(answer, 60)) {
        let name = answer.get(104..104_usize.saturating_add(len)).unwrap_or_default();
        let name = OsString::from_wide(&crate::filesystem::utf16::units(name));
        let is_folder = attributes & FILE_ATTRIBUTE_DIRECTORY != 0 && attributes & FILE_ATTRIBUTE_REPARSE_POINT == 0;
        if name != "." && name != ".." {
            entries.push((name, is_folder));
        }
        match answer.get(next..) {
            Some(rest) if next != 0 => answer = rest,
            _ => break,
        }
    }
    entries
}

impl NewFile {
    /// Starts a named stream of the file.
    pub(crate) fn new_stream(&self, stream: &[u8]) -> Result<File> {
        let mut name = self.temporary.clone();
        name.push(":");
        name.push(to_os(stream));
        let how = How {
            access: FILE_GENERIC_READ | FILE_GENERIC_WRITE,
            share: SHARED,
            create: true,
            options: FILE_NON_DIRECTORY_FILE,
        };
        open_in(&self.folder.handle, &name, how).map_err(|error| self.folder.error("create", &name, error))
    }

    /// Gives times and attributes. Returns what could not be kept.
    pub(crate) fn apply(&self, metadata: &Metadata) -> Vec<String> {
        apply_to_file(&self.file, metadata)
    }

    /// Gives the file its name, in place of whatever is no folder under it.
    pub(crate) fn finish(mut self, name: &OsStr) -> Result<()> {
        self.folder.rename(&self.file, name)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: what was not finished is of no use.
            let _ =
                set_deleted(&self.file).or_else(|_| clear_read_only(&self.file).and_then(|()| set_deleted(&self.file)));
        }
    }
}

/// Gives times and attributes to an open file. Returns what could not be kept.
pub(crate) fn apply_to_file(file: &File, metadata: &Metadata) -> Vec<String> {
    let mut lost: Vec<_> = metadata
        .xattrs
        .iter()
        .filter(|xattr| !is_foreign(&xattr.name))
        .map(|xattr| format!("{}: Windows has no such attributes", String::from_utf8_lossy(&xattr.name)))
        .collect();
    // 0 leaves the attributes as they are, so that a file without any has a bit of its own.
    let attributes = metadata.dos_attributes.map_or(0, |wanted| match wanted & KEPT_ATTRIBUTES {
        0 => FILE_ATTRIBUTE_NORMAL,
        kept => kept,
    });
    let info = FILE_BASIC_INFO {
        CreationTime: ticks(metadata.created),
        LastAccessTime: ticks(metadata.accessed),
        LastWriteTime: ticks(metadata.modified),
        ChangeTime: 0,
        FileAttributes: attributes,
    };
    if let Err(error) = set_basic(file, info) {
        lost.push(format!("times and attributes: {error}"));
    }
    lost
}
