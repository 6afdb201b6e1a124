//! Files on Windows.
#![expect(unsafe_code, reason = "calls of the Windows API")]

use std::fs::{File, FileType};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::os::windows::io::AsRawHandle;
use std::path::{Path, PathBuf};

use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_FLAG_OPEN_REPARSE_POINT, GetDiskFreeSpaceExW, GetFileInformationByHandle,
};
use windows_sys::Win32::System::IO::DeviceIoControl;
use windows_sys::Win32::System::Ioctl::{
    FILE_ALLOCATED_RANGE_BUFFER, FSCTL_QUERY_ALLOCATED_RANGES, FSCTL_SET_SPARSE, GET_LENGTH_INFORMATION,
    IOCTL_DISK_GET_LENGTH_INFO,
};

use super::{FileId, FileRun};

/// Fills all of `buf` from `offset`, or fails.
pub(crate) fn read_exact_at(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.seek_read(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buf = buf.get_mut(count..).unwrap_or_default();
                offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` at `offset`, or fails.
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.seek_write(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Calls a device control with plain structures. Returns the bytes of output.
fn control<In, Out>(file: &File, code: u32, input: Option<&In>, output: Option<&mut Out>) -> io::Result<u32> {
    let size = |len: usize| u32::try_from(len).expect("structures are small");
    let (in_ptr, in_len) =
        input.map_or((std::ptr::null(), 0), |input| (std::ptr::from_ref(input).cast(), size(size_of::<In>())));
    let (out_ptr, out_len) =
        output.map_or((std::ptr::null_mut(), 0), |output| (std::ptr::from_mut(output).cast(), size(size_of::<Out>())));
    let mut returned = 0;
    // SAFETY: the handle is open for the length of the call, the buffers are valid for the lengths given with them, and without
    // an OVERLAPPED structure the call is over when it returns.
    let done = unsafe {
        DeviceIoControl(
            file.as_raw_handle(),
            code,
            in_ptr,
            in_len,
            out_ptr,
            out_len,
            &raw mut returned,
            std::ptr::null_mut(),
        )
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// Length in bytes of a file or disk device.
pub(crate) fn device_len(file: &File) -> io::Result<u64> {
    let mut info = GET_LENGTH_INFORMATION::default();
    // A file does not know this call; a device has no length in its metadata.
    match control::<(), _>(file, IOCTL_DISK_GET_LENGTH_INFO, None, Some(&mut info)) {
        Ok(_) => u64::try_from(info.Length).map_err(|_| io::ErrorKind::InvalidData.into()),
        Err(_) => Ok(file.metadata()?.len()),
    }
}

/// What lies at `offset`, which must be below the length.
pub(crate) fn data_or_hole(file: &File, offset: u64) -> FileRun {
    let Ok(start) = i64::try_from(offset) else { return FileRun::Data(u64::MAX) };
    let query = FILE_ALLOCATED_RANGE_BUFFER { FileOffset: start, Length: i64::MAX.saturating_sub(start) };
    let mut first = FILE_ALLOCATED_RANGE_BUFFER::default();
    let returned = match control(file, FSCTL_QUERY_ALLOCATED_RANGES, Some(&query), Some(&mut first)) {
        Ok(returned) => returned,
        // More ranges than the one there is room for: the first is what is wanted.
        Err(error) if error.raw_os_error() == Some(234) => 1,
        Err(_) => return FileRun::Data(u64::MAX),
    };
    if returned == 0 {
        return FileRun::Hole(u64::MAX);
    }
    let data = u64::try_from(first.FileOffset).unwrap_or(offset);
    let end = data.saturating_add(u64::try_from(first.Length).unwrap_or(0));
    match () {
        () if data > offset => FileRun::Hole(data),
        () if end > offset => FileRun::Data(end),
        () => FileRun::Data(u64::MAX),
    }
}

/// Lets a new file have holes. Filesystems without sparse files (FAT) refuse, and the file is then written in full.
pub(crate) fn make_sparse(file: &File) -> io::Result<()> {
    let _ = control::<(), ()>(file, FSCTL_SET_SPARSE, None, None);
    Ok(())
}

/// Bytes that can still be written into a folder, where that is known.
pub(crate) fn free_space(folder: &Path) -> Option<u64> {
    let mut name: Vec<u16> = folder.as_os_str().encode_wide().collect();
    name.push(0);
    let mut free = 0;
    // SAFETY: the name ends with a zero and lives through the call, as does the one output asked for; null is allowed for the others.
    let done = unsafe { GetDiskFreeSpaceExW(name.as_ptr(), &raw mut free, std::ptr::null_mut(), std::ptr::null_mut()) };
    (done != 0).then_some(free)
}

/// Makes names in a folder durable. Windows has no such call for folders: NTFS orders its metadata by its journal.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::metadata(folder).map(|_| ())
}

/// Says whether two paths lead to one file.
pub(crate) fn same_file(a: &Path, b: &Path) -> io::Result<bool> {
    Ok(std::fs::canonicalize(a)? == std::fs::canonicalize(b)?)
}

/// What makes an open file itself.
pub(crate) fn file_id(file: &File) -> io::Result<FileId> {
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open for the length of the call, and the structure is there to be filled.
    let done = unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut info) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.dwVolumeSerialNumber.into(), (u64::from(info.nFileIndexHigh) << 32) | u64::from(info.nFileIndexLow)))
}

/// What something is that is no regular file, in words.
pub(crate) fn kind_name(kind: FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_symlink() => "a symbolic link",
        () => "a device",
    }
}

/// The path that bytes inside an image stand for, where they can stand for one.
pub(crate) fn path_of(name: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(name).ok().filter(|name| !name.contains('\0')).map(PathBuf::from)
}

/// Opens a path without links for reading, following no link at its end.
pub(crate) fn open_plain(real: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(FILE_FLAG_OPEN_REPARSE_POINT).open(real)
}
