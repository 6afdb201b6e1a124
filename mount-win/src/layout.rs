//! Structures that pass between a program and `dokan2.dll`, on 64-bit Windows.
//!
//! Source: `dokan.h` of Dokan 2.0 to 2.2 (`DOKAN_OPTIONS`, `DOKAN_FILE_INFO`, `DOKAN_OPERATIONS`), `minwinbase.h` (`WIN32_FIND_DATAW`),
//! `fileapi.h` (`WIN32_FIND_STREAM_DATA`, `BY_HANDLE_FILE_INFORMATION`). Sizes and places are those that mingw-w64's compiler gives for these headers.

use std::ffi::c_void;
use std::mem::{offset_of, size_of};

/// The version of Dokan whose interface this is: 2.0.0.
pub const VERSION: u16 = 200;
/// Versions of `dokan2.dll` that have this interface.
pub const VERSIONS: std::ops::Range<u32> = 200..300;

/// `DOKAN_OPTION_ALT_STREAM`: paths may name streams.
pub const OPTION_ALT_STREAM: u32 = 1 << 2;
/// `DOKAN_OPTION_WRITE_PROTECT`: the driver refuses what would write.
pub const OPTION_WRITE_PROTECT: u32 = 1 << 3;
/// `DOKAN_OPTION_MOUNT_MANAGER`: the system's mount manager knows the drive.
pub const OPTION_MOUNT_MANAGER: u32 = 1 << 6;
/// `DOKAN_OPTION_CURRENT_SESSION`: only the session of the caller sees the drive.
pub const OPTION_CURRENT_SESSION: u32 = 1 << 7;
/// `DOKAN_OPTION_CASE_SENSITIVE`: the driver keeps files apart whose names differ by case; who finds which is our affair.
pub const OPTION_CASE_SENSITIVE: u32 = 1 << 9;

/// `DOKAN_OPTIONS`.
#[repr(C)]
#[derive(Debug)]
pub struct Options {
    /// [`VERSION`].
    pub version: u16,
    /// 1: one thread alone calls.
    pub single_thread: u8,
    /// `OPTION_*`.
    pub options: u32,
    /// For the filesystem.
    pub global_context: u64,
    /// `X:\` or a folder, with a NUL.
    pub mount_point: *const u16,
    /// For network drives.
    pub unc_name: *const u16,
    /// Milliseconds until the driver gives a call up, and the drive with it; 0 for 15 seconds.
    pub timeout: u32,
    /// Bytes of an allocation unit.
    pub allocation_unit_size: u32,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Bytes of the volume's security descriptor; 0 for none.
    pub volume_security_descriptor_len: u32,
    /// The volume's security descriptor.
    pub volume_security_descriptor: [u8; 16_384],
}

/// `DOKAN_FILE_INFO`.
#[repr(C)]
#[derive(Debug)]
pub struct FileInfo {
    /// For the filesystem: what it wrote here when the file was opened.
    pub context: u64,
    /// Dokan's own.
    pub dokan_context: u64,
    /// The options that the drive was made with.
    pub options: *const Options,
    /// Dokan's own.
    pub processing_context: *mut c_void,
    /// The process that asks.
    pub process_id: u32,
    /// It is a folder, or (on opening) must be one.
    pub is_directory: u8,
    /// It is to be deleted.
    pub delete_pending: u8,
    /// The memory manager asks.
    pub paging_io: u8,
    /// The caller waits.
    pub synchronous_io: u8,
    /// Not through the cache.
    pub nocache: u8,
    /// A write goes to the end.
    pub write_to_end_of_file: u8,
}

/// `WIN32_FIND_DATAW`.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct FindData {
    /// `FILE_ATTRIBUTE_*`.
    pub attributes: u32,
    /// Creation: low half, high half.
    pub created: [u32; 2],
    /// Last access.
    pub accessed: [u32; 2],
    /// Last change.
    pub written: [u32; 2],
    /// High half of the length.
    pub len_high: u32,
    /// Low half of the length.
    pub len_low: u32,
    /// Tag of a reparse point.
    pub tag: u32,
    /// Nothing.
    pub reserved: u32,
    /// Name, with a NUL.
    pub name: [u16; 260],
    /// 8.3 name.
    pub short_name: [u16; 14],
}

/// `WIN32_FIND_STREAM_DATA`.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct StreamData {
    /// Bytes.
    pub len: i64,
    /// `:name:$DATA`, with a NUL.
    pub name: [u16; 296],
}

/// `BY_HANDLE_FILE_INFORMATION`.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct FileInformation {
    /// `FILE_ATTRIBUTE_*`.
    pub attributes: u32,
    /// Creation: low half, high half.
    pub created: [u32; 2],
    /// Last access.
    pub accessed: [u32; 2],
    /// Last change.
    pub written: [u32; 2],
    /// The drive's serial number.
    pub serial: u32,
    /// High half of the length.
    pub len_high: u32,
    /// Low half of the length.
    pub len_low: u32,
    /// Hard links.
    pub links: u32,
    /// High half of the file's number.
    pub index_high: u32,
    /// Low half of the file's number.
    pub index_low: u32,
}

/// `PFillFindData`: takes an entry of a folder.
pub type FillFindData = unsafe extern "system" fn(*const FindData, *mut FileInfo) -> i32;
/// `PFillFindStreamData`: takes a stream; 0 where there is no more room.
pub type FillStreamData = unsafe extern "system" fn(*const StreamData, *mut c_void) -> i32;

/// A call with a path.
pub type PathCall = unsafe extern "system" fn(*const u16, *mut FileInfo) -> i32;
/// A call with a path that has no answer.
pub type PathNotice = unsafe extern "system" fn(*const u16, *mut FileInfo);
/// `ZwCreateFile`: path, security context, access, attributes, sharing, disposition, options.
pub type Create = unsafe extern "system" fn(*const u16, *const c_void, u32, u32, u32, u32, u32, *mut FileInfo) -> i32;
/// `ReadFile`: path, buffer, its length, bytes read, offset.
pub type Read = unsafe extern "system" fn(*const u16, *mut c_void, u32, *mut u32, i64, *mut FileInfo) -> i32;
/// `WriteFile`: path, buffer, its length, bytes written, offset.
pub type Write = unsafe extern "system" fn(*const u16, *const c_void, u32, *mut u32, i64, *mut FileInfo) -> i32;
/// `GetFileInformation`.
pub type GetInformation = unsafe extern "system" fn(*const u16, *mut FileInformation, *mut FileInfo) -> i32;
/// `FindFiles`.
pub type FindFiles = unsafe extern "system" fn(*const u16, FillFindData, *mut FileInfo) -> i32;
/// `FindFilesWithPattern`: path, pattern.
pub type FindPattern = unsafe extern "system" fn(*const u16, *const u16, FillFindData, *mut FileInfo) -> i32;
/// `SetFileAttributes`.
pub type SetAttributes = unsafe extern "system" fn(*const u16, u32, *mut FileInfo) -> i32;
/// `SetFileTime`: creation, access, change, as pointers to two halves.
pub type SetTime =
    unsafe extern "system" fn(*const u16, *const [u32; 2], *const [u32; 2], *const [u32; 2], *mut FileInfo) -> i32;
/// `MoveFile`: old path, new path, whether to replace.
pub type Move = unsafe extern "system" fn(*const u16, *const u16, i32, *mut FileInfo) -> i32;
/// `SetEndOfFile`, `SetAllocationSize`.
pub type SetLen = unsafe extern "system" fn(*const u16, i64, *mut FileInfo) -> i32;
/// `LockFile`, `UnlockFile`: offset, length.
pub type Lock = unsafe extern "system" fn(*const u16, i64, i64, *mut FileInfo) -> i32;
/// `GetDiskFreeSpace`: available, total, free.
pub type GetSpace = unsafe extern "system" fn(*mut u64, *mut u64, *mut u64, *mut FileInfo) -> i32;
/// `GetVolumeInformation`: label, its room; serial; longest name; flags; filesystem, its room. Rooms are in units, with the NUL.
pub type GetVolume =
    unsafe extern "system" fn(*mut u16, u32, *mut u32, *mut u32, *mut u32, *mut u16, u32, *mut FileInfo) -> i32;
/// `Unmounted`.
pub type Unmounted = unsafe extern "system" fn(*mut FileInfo) -> i32;
/// `GetFileSecurity`: path, parts, buffer, its length, bytes needed.
pub type GetSecurity =
    unsafe extern "system" fn(*const u16, *const u32, *mut c_void, u32, *mut u32, *mut FileInfo) -> i32;
/// `SetFileSecurity`: path, parts, descriptor, its length.
pub type SetSecurity = unsafe extern "system" fn(*const u16, *const u32, *mut c_void, u32, *mut FileInfo) -> i32;
/// `FindStreams`: path, what takes a stream, what that needs.
pub type FindStreams = unsafe extern "system" fn(*const u16, FillStreamData, *mut c_void, *mut FileInfo) -> i32;

/// `DOKAN_OPERATIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Callbacks {
    /// `ZwCreateFile`.
    pub create: Option<Create>,
    /// `Cleanup`.
    pub cleanup: Option<PathNotice>,
    /// `CloseFile`.
    pub close: Option<PathNotice>,
    /// `ReadFile`.
    pub read: Option<Read>,
    /// `WriteFile`.
    pub write: Option<Write>,
    /// `FlushFileBuffers`.
    pub flush: Option<PathCall>,
    /// `GetFileInformation`.
    pub get_information: Option<GetInformation>,
    /// `FindFiles`.
    pub find_files: Option<FindFiles>,
    /// `FindFilesWithPattern`.
    pub find_pattern: Option<FindPattern>,
    /// `SetFileAttributes`.
    pub set_attributes: Option<SetAttributes>,
    /// `SetFileTime`.
    pub set_time: Option<SetTime>,
    /// `DeleteFile`.
    pub delete_file: Option<PathCall>,
    /// `DeleteDirectory`.
    pub delete_directory: Option<PathCall>,
    /// `MoveFile`.
    pub move_file: Option<Move>,
    /// `SetEndOfFile`.
    pub set_end_of_file: Option<SetLen>,
    /// `SetAllocationSize`.
    pub set_allocation_size: Option<SetLen>,
    /// `LockFile`.
    pub lock: Option<Lock>,
    /// `UnlockFile`.
    pub unlock: Option<Lock>,
    /// `GetDiskFreeSpace`.
    pub get_space: Option<GetSpace>,
    /// `GetVolumeInformation`.
    pub get_volume: Option<GetVolume>,
    /// `Mounted`.
    pub mounted: Option<PathCall>,
    /// `Unmounted`.
    pub unmounted: Option<Unmounted>,
    /// `GetFileSecurity`.
    pub get_security: Option<GetSecurity>,
    /// `SetFileSecurity`.
    pub set_security: Option<SetSecurity>,
    /// `FindStreams`.
    pub find_streams: Option<FindStreams>,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<Options>() == 16_432);
    assert!(offset_of!(Options, single_thread) == 2 && offset_of!(Options, options) == 4);
    assert!(offset_of!(Options, global_context) == 8 && offset_of!(Options, mount_point) == 16);
    assert!(offset_of!(Options, unc_name) == 24 && offset_of!(Options, timeout) == 32);
    assert!(offset_of!(Options, allocation_unit_size) == 36 && offset_of!(Options, sector_size) == 40);
    assert!(offset_of!(Options, volume_security_descriptor_len) == 44);
    assert!(offset_of!(Options, volume_security_descriptor) == 48);
    assert!(size_of::<FileInfo>() == 48);
    assert!(offset_of!(FileInfo, dokan_context) == 8 && offset_of!(FileInfo, options) == 16);
    assert!(offset_of!(FileInfo, processing_context) == 24 && offset_of!(FileInfo, process_id) == 32);
    assert!(offset_of!(FileInfo, is_directory) == 36 && offset_of!(FileInfo, delete_pending) == 37);
    assert!(offset_of!(FileInfo, paging_io) == 38 && offset_of!(FileInfo, write_to_end_of_file) == 41);
    assert!(size_of::<Callbacks>() == 200);
    assert!(offset_of!(Callbacks, get_information) == 48 && offset_of!(Callbacks, lock) == 128);
    assert!(offset_of!(Callbacks, get_volume) == 152 && offset_of!(Callbacks, mounted) == 160);
    assert!(offset_of!(Callbacks, find_streams) == 192);
    assert!(size_of::<FindData>() == 592 && size_of::<StreamData>() == 600 && size_of::<FileInformation>() == 52);
};
