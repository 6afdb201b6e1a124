//! Files on Windows.
//!
//! Disks and volumes are paths such as `\\.\PhysicalDrive0` and `\\.\E:`. They take reads and writes of whole sectors only, so that others go through
//! [`aligned`].
#![expect(unsafe_code, reason = "calls of the Windows API")]

mod locks;

use std::fs::{File, FileType};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::os::windows::io::AsRawHandle;
use std::path::{Path, PathBuf};

use windows_sys::Win32::Foundation::{ERROR_INVALID_PARAMETER, ERROR_MORE_DATA};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT, GetDiskFreeSpaceExW,
    GetFileInformationByHandle,
};
use windows_sys::Win32::System::IO::DeviceIoControl;
use windows_sys::Win32::System::Ioctl::{
    DISK_GEOMETRY, FILE_ALLOCATED_RANGE_BUFFER, FSCTL_ALLOW_EXTENDED_DASD_IO, FSCTL_QUERY_ALLOCATED_RANGES,
    FSCTL_SET_SPARSE, GET_LENGTH_INFORMATION, IOCTL_DISK_GET_DRIVE_GEOMETRY, IOCTL_DISK_GET_LENGTH_INFO,
    IOCTL_STORAGE_GET_DEVICE_NUMBER,
};

use super::windows_names::{DevicePath, device_path, without_prefix};
use super::windows_numbers::{device_number, number_in};
use super::{FileId, FileRun, Standing, aligned};

pub(crate) use locks::{try_lock, try_lock_shared, unlock};

/// The number of a volume that lies on no single disk or on none at all, or of which the system does not say where it lies.
pub(crate) const UNKNOWN_DEVICE: u64 = u64::MAX;

/// Says whether an error is what devices answer to a range that is not of whole sectors.
fn is_misaligned(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| code.cast_unsigned() == ERROR_INVALID_PARAMETER)
}

/// Bytes of a sector of an open device; none for a file.
pub(crate) fn sector_of(file: &File) -> Option<usize> {
    let mut geometry = DISK_GEOMETRY::default();
    control::<(), _>(file, IOCTL_DISK_GET_DRIVE_GEOMETRY, None, Some(&mut geometry)).ok()?;
    usize::try_from(geometry.BytesPerSector).ok().filter(|sector| sector.is_power_of_two())
}

/// Fills all of `buf` from `offset`, or fails.
pub(crate) fn read_exact_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    match read_directly(file, buf, offset) {
        Err(error) if is_misaligned(&error) => match sector_of(file) {
            Some(sector) => aligned::read(sector, buf, offset, |buf, offset| read_directly(file, buf, offset)),
            None => Err(error),
        },
        read => read,
    }
}

fn read_directly(file: &File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
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
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    match write_directly(file, bytes, offset) {
        Err(error) if is_misaligned(&error) => match sector_of(file) {
            Some(sector) => aligned::write(
                sector,
                bytes,
                offset,
                |buf, offset| read_directly(file, buf, offset),
                |bytes, offset| write_directly(file, bytes, offset),
            ),
            None => Err(error),
        },
        written => written,
    }
}

fn write_directly(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
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
    let input = input.map_or((std::ptr::null(), 0), |input| (std::ptr::from_ref(input).cast(), size_of::<In>()));
    let output =
        output.map_or((std::ptr::null_mut(), 0), |output| (std::ptr::from_mut(output).cast(), size_of::<Out>()));
    // SAFETY: both pointers are null with length 0, or lead to a structure of that length that lives through the call.
    unsafe { raw_control(file, code, input, output) }
}

/// Calls a device control with bytes, in the layouts of the Windows documentation. Returns the bytes of output.
pub(crate) fn control_bytes(file: &File, code: u32, input: &[u8], output: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the lengths are those of the slices.
    let returned = unsafe {
        raw_control(file, code, (input.as_ptr().cast(), input.len()), (output.as_mut_ptr().cast(), output.len()))
    };
    Ok(usize::try_from(returned?).unwrap_or(usize::MAX).min(output.len()))
}

/// # Safety
///
/// Each pointer must be valid for its length in bytes: the first for reading, the second for writing.
unsafe fn raw_control(
    file: &File,
    code: u32,
    input: (*const std::ffi::c_void, usize),
    output: (*mut std::ffi::c_void, usize),
) -> io::Result<u32> {
    let size = |len: usize| u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (in_len, out_len) = (size(input.1)?, size(output.1)?);
    let mut returned = 0;
    // SAFETY: the handle is open for the length of the call, the caller answers for the buffers, and without
    // an OVERLAPPED structure the call is over when it returns.
    let done = unsafe {
        DeviceIoControl(
            file.as_raw_handle(),
            code,
            input.0,
            in_len,
            output.0,
            out_len,
            &raw mut returned,
            std::ptr::null_mut(),
        )
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// Text for the system: UTF-16 with a zero behind it.
pub(crate) fn wide(text: &std::ffi::OsStr) -> Vec<u16> {
    text.encode_wide().chain(std::iter::once(0)).collect()
}

/// Opens a file, disk or volume for reading; of a volume all sectors, also those behind its filesystem.
pub(crate) fn open_disk(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if device_path(&path.to_string_lossy()).is_some() {
        allow_all_sectors(&file);
    }
    Ok(file)
}

/// Lets a handle of a volume reach the sectors behind its filesystem. A disk has no such limit and refuses.
pub(crate) fn allow_all_sectors(volume: &File) {
    let _ = control::<(), ()>(volume, FSCTL_ALLOW_EXTENDED_DASD_IO, None, None);
}

/// Opens a device only for questions, which needs no rights.
pub(crate) fn open_for_questions(path: &Path) -> io::Result<File> {
    File::options().access_mode(0).open(path)
}

/// The absolute path, links resolved, as people write it. A device's path is its own, and drives that are no volumes to the system, such as those of some
/// programs for disks in memory, have no links that it resolves.
pub(crate) fn real_path(path: &Path) -> io::Result<PathBuf> {
    if device_path(&path.to_string_lossy()).is_some() {
        return Ok(path.to_owned());
    }
    match std::fs::canonicalize(path) {
        Ok(real) => Ok(written_path(real)),
        Err(_) if std::fs::metadata(path).is_ok() => std::path::absolute(path),
        Err(error) => Err(error),
    }
}

/// An absolute path without links as people write it: without the `\\?\` that the system puts before it, where it means the same.
pub(crate) fn written_path(real: PathBuf) -> PathBuf {
    real.to_str().and_then(without_prefix).map_or(real, PathBuf::from)
}

/// Says what stands at a path, links followed.
pub(crate) fn standing(path: &Path) -> io::Result<Standing> {
    match device_path(&path.to_string_lossy()) {
        Some(DevicePath::Disk(number)) => {
            open_for_questions(path)?;
            return Ok(Standing::Device(device_number(number, 0)));
        }
        Some(DevicePath::Volume(_)) => return Ok(Standing::Device(number_of(&open_for_questions(path)?))),
        None => {}
    }
    let kind = std::fs::metadata(path)?.file_type();
    Ok(match () {
        () if kind.is_file() => Standing::File,
        () if kind.is_dir() => Standing::Folder,
        () => Standing::Other,
    })
}

/// The number of an open device.
fn number_of(device: &File) -> u64 {
    let mut reply = [0; 12];
    let answered = control_bytes(device, IOCTL_STORAGE_GET_DEVICE_NUMBER, &[], &mut reply);
    answered.ok().and_then(|len| number_in(reply.get(..len)?)).unwrap_or(UNKNOWN_DEVICE)
}

/// What makes a file or a device itself: the file, and the device that it stands for.
pub(crate) type Identity = (FileId, u64);

/// The identity of an open file or device.
pub(crate) fn identity(file: &File) -> io::Result<Identity> {
    Ok((file_id(file)?, 0))
}

/// The identity of what stands at a path, links followed.
pub(crate) fn identity_of_path(path: &Path) -> io::Result<Identity> {
    if device_path(&path.to_string_lossy()).is_some() {
        // A volume that is locked, by us too, opens for questions only.
        return Ok((device_id(&open_for_questions(path)?), 0));
    }
    identity(&File::options().access_mode(0).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(path)?)
}

/// Length in bytes of a file or disk device.
pub(crate) fn device_len(file: &File) -> io::Result<u64> {
    // A file does not know this call; a device has no length in its metadata.
    device_only_len(file).or_else(|_| Ok(file.metadata()?.len()))
}

/// Length in bytes of a device that is open for reading; fails for a file.
fn device_only_len(device: &File) -> io::Result<u64> {
    let mut info = GET_LENGTH_INFORMATION::default();
    control::<(), _>(device, IOCTL_DISK_GET_LENGTH_INFO, None, Some(&mut info))?;
    u64::try_from(info.Length).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What lies at `offset`, which must be below the length.
pub(crate) fn data_or_hole(file: &File, offset: u64) -> FileRun {
    let Ok(start) = i64::try_from(offset) else { return FileRun::Data(u64::MAX) };
    let query = FILE_ALLOCATED_RANGE_BUFFER { FileOffset: start, Length: i64::MAX.saturating_sub(start) };
    let mut first = FILE_ALLOCATED_RANGE_BUFFER::default();
    let returned = match control(file, FSCTL_QUERY_ALLOCATED_RANGES, Some(&query), Some(&mut first)) {
        Ok(returned) => returned,
        // More ranges than the one there is room for: the first is what is wanted.
        Err(error) if error.raw_os_error().is_some_and(|code| code.cast_unsigned() == ERROR_MORE_DATA) => 1,
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
    let name = wide(folder.as_os_str());
    let mut free = 0;
    // SAFETY: the name ends with a zero and lives through the call, as does the one output asked for; null is allowed for the others.
    let done = unsafe { GetDiskFreeSpaceExW(name.as_ptr(), &raw mut free, std::ptr::null_mut(), std::ptr::null_mut()) };
    (done != 0).then_some(free)
}

/// Makes names in a folder durable. Windows has no such call for folders: NTFS orders its metadata by its journal.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::metadata(folder).map(|_| ())
}

/// Says whether two paths lead to one file, which may have several names.
pub(crate) fn same_file(a: &Path, b: &Path) -> io::Result<bool> {
    Ok(identity_of_path(a)? == identity_of_path(b)?)
}

/// What makes an open file itself; of a device, its number.
pub(crate) fn file_id(file: &File) -> io::Result<FileId> {
    // A file does not know this call. The other way round, some filesystems answer for a volume as for one of their files.
    if device_only_len(file).is_ok() {
        return Ok(device_id(file));
    }
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open for the length of the call, and the structure is there to be filled.
    let done = unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut info) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.dwVolumeSerialNumber.into(), (u64::from(info.nFileIndexHigh) << 32) | u64::from(info.nFileIndexLow)))
}

fn device_id(device: &File) -> FileId {
    (u64::MAX, number_of(device))
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
