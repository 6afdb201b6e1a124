//! The volumes of this machine: where they lie, where they are mounted, and having one alone.
//!
//! Source: "Enumerating Volumes", "FSCTL_LOCK_VOLUME" and "FSCTL_DISMOUNT_VOLUME" in the Windows documentation.
#![expect(unsafe_code, reason = "calls of the Windows API that list volumes")]

use std::fs::File;
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_MORE_DATA, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_SHARE_READ, FILE_SHARE_WRITE, FindFirstVolumeW, FindNextVolumeW, FindVolumeClose, GetVolumeInformationW,
    GetVolumeNameForVolumeMountPointW, GetVolumePathNameW, GetVolumePathNamesForVolumeNameW, QueryDosDeviceW,
};
use windows_sys::Win32::System::Ioctl::{FSCTL_DISMOUNT_VOLUME, FSCTL_LOCK_VOLUME};

use crate::error::{Error, Result};
use crate::platform::windows::{allow_all_sectors, control_bytes, open_for_questions, wide};
use crate::platform::windows_names::written_place;
use crate::source::device::replies::{DiskRun, disk_runs, texts};

/// `IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS`: type 0x56, function 0, buffered, any access.
const GET_VOLUME_DISK_EXTENTS: u32 = 0x0056_0000;
/// Bytes of its answer that there is room for at first, and at the most: of a volume in 42 pieces, and of one in all that are taken.
const EXTENTS_ROOM: (usize, usize) = (1024, 128 << 10);
/// `FILE_READ_ONLY_VOLUME`, of `GetVolumeInformation`.
const FILE_READ_ONLY_VOLUME: u32 = 0x0008_0000;
/// UTF-16 code units of the longest path.
const PATH_ROOM: usize = 32_768;
/// How long a lock is waited for: Explorer and scanners of new volumes have files open for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    /// Its lasting path, `\\?\Volume{...}`, without a `\` at its end.
    pub(crate) path: PathBuf,
    /// Where it lies.
    pub(crate) runs: Vec<DiskRun>,
    /// Drive letters and folders that it is mounted at.
    pub(crate) places: Vec<PathBuf>,
}

impl Volume {
    /// Says whether it has bytes in one of these runs.
    pub(crate) fn meets(&self, runs: &[DiskRun]) -> bool {
        self.runs.iter().any(|mine| runs.iter().any(|run| mine.meets(run)))
    }

    /// What messages call it: where it is mounted.
    pub(crate) fn name(&self) -> String {
        self.places.first().unwrap_or(&self.path).display().to_string()
    }
}

fn text_of(units: &[u16]) -> String {
    String::from_utf16_lossy(units.split(|unit| *unit == 0).next().unwrap_or_default())
}

fn room_of(units: &[u16]) -> u32 {
    u32::try_from(units.len()).unwrap_or(u32::MAX)
}

/// Where an open volume lies; nothing where the system does not say.
pub(crate) fn runs_of(volume: &File) -> Vec<DiskRun> {
    let asked = |room: usize| {
        let mut reply = vec![0; room];
        let len = control_bytes(volume, GET_VOLUME_DISK_EXTENTS, &[], &mut reply)?;
        Ok(disk_runs(reply.get(..len).unwrap_or_default()))
    };
    let is_longer =
        |error: &io::Error| error.raw_os_error().is_some_and(|code| code.cast_unsigned() == ERROR_MORE_DATA);
    match asked(EXTENTS_ROOM.0) {
        Err(error) if is_longer(&error) => asked(EXTENTS_ROOM.1),
        runs => runs,
    }
    .unwrap_or_default()
}

/// The volumes of the machine that lie on disks.
pub(crate) fn volumes() -> Result<Vec<Volume>> {
    let failed = |error| Error::io("list", "the volumes of this machine", error);
    let mut name = [0_u16; 260];
    // SAFETY: the buffer is as long as is said.
    let search = unsafe { FindFirstVolumeW(name.as_mut_ptr(), room_of(&name)) };
    if search == INVALID_HANDLE_VALUE {
        return Err(failed(io::Error::last_os_error()));
    }
    let mut volumes = Vec::new();
    loop {
        let text = text_of(&name);
        let path = PathBuf::from(text.trim_end_matches('\\'));
        let runs = open_for_questions(&path).map_or(Vec::new(), |volume| runs_of(&volume));
        if !runs.is_empty() {
            volumes.push(Volume { path, runs, places: places_of(&text) });
        }
        // SAFETY: the search is open, and the buffer is as long as is said.
        if unsafe { FindNextVolumeW(search, name.as_mut_ptr(), room_of(&name)) } == 0 {
            break;
        }
    }
    // SAFETY: the search is open, and nothing uses it afterwards.
    unsafe { FindVolumeClose(search) };
    Ok(volumes)
}

/// Where a volume is mounted: a drive letter, `E:\`, is a place of its own.
pub(crate) fn places_at(volume: &str) -> Vec<PathBuf> {
    match volume.as_bytes() {
        [letter, b':', b'\\'] if letter.is_ascii_alphabetic() => vec![volume.into()],
        _ => places_of(volume),
    }
}

/// Says whether the volume that is mounted at a place, a `\` at its end, takes no writes at all.
pub(crate) fn is_read_only(place: &Path) -> bool {
    let (place, mut flags) = (wide(place.as_os_str()), 0);
    let (none, no_text) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the name ends with a zero and lives through the call; there is room for the one answer that is asked for, and null for the others.
    let done = unsafe { GetVolumeInformationW(place.as_ptr(), no_text, 0, none, none, &raw mut flags, no_text, 0) };
    done != 0 && flags & FILE_READ_ONLY_VOLUME != 0
}

/// Where the volume with this name, a `\` at its end, is mounted.
fn places_of(volume: &str) -> Vec<PathBuf> {
    let name = wide(volume.as_ref());
    let mut places = vec![0_u16; PATH_ROOM];
    let mut used = 0;
    // SAFETY: the name ends with a zero, the buffer is as long as is said, and both live through the call.
    let done = unsafe {
        GetVolumePathNamesForVolumeNameW(name.as_ptr(), places.as_mut_ptr(), room_of(&places), &raw mut used)
    };
    if done == 0 { Vec::new() } else { texts(&places).into_iter().map(PathBuf::from).collect() }
}

/// Where the volume lies that holds a file or folder; nothing for one on a network or on no disk.
pub(crate) fn runs_under(path: &Path) -> Vec<DiskRun> {
    // A volume without a letter has no path that the system gives for what lies there.
    let Ok(path) = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)) else { return Vec::new() };
    let (path, mut place, mut name) = (wide(path.as_os_str()), vec![0_u16; PATH_ROOM], [0_u16; 260]);
    // SAFETY: the path ends with a zero, the buffer is as long as is said, and both live through the call.
    if unsafe { GetVolumePathNameW(path.as_ptr(), place.as_mut_ptr(), room_of(&place)) } == 0 {
        return Vec::new();
    }
    let place = wide(written_place(&text_of(&place)).as_ref());
    // SAFETY: the name ends with a zero, the buffer is as long as is said, and both live through the call.
    if unsafe { GetVolumeNameForVolumeMountPointW(place.as_ptr(), name.as_mut_ptr(), room_of(&name)) } == 0 {
        return Vec::new();
    }
    let volume = text_of(&name);
    open_for_questions(Path::new(volume.trim_end_matches('\\'))).map_or(Vec::new(), |volume| runs_of(&volume))
}

/// The numbers of the disks of this machine.
pub(crate) fn disk_numbers() -> Result<Vec<u32>> {
    // The list of all names of devices: some hundred names of some tens of characters.
    let mut names = vec![0_u16; 1 << 20];
    // SAFETY: no name asks for all, and the buffer is as long as is said.
    let used = unsafe { QueryDosDeviceW(std::ptr::null(), names.as_mut_ptr(), room_of(&names)) };
    if used == 0 {
        return Err(Error::io("list", "the disks of this machine", io::Error::last_os_error()));
    }
    let mut numbers: Vec<u32> = texts(&names)
        .iter()
        .filter_map(|name| name.strip_prefix("PhysicalDrive").and_then(|number| number.parse().ok()))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a volume for having it alone.
fn open(path: &Path) -> io::Result<File> {
    let open =
        |write| File::options().read(true).write(write).share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE).open(path);
    // One that cannot be written can still be locked.
    open(true).or_else(|_| open(false))
}

/// Has an open volume alone: no file of it is open, and none can be opened until the handle is closed. `Ok(false)` where files of it are in use.
pub(crate) fn lock(volume: &File) -> io::Result<bool> {
    let started = Instant::now();
    loop {
        match control_bytes(volume, FSCTL_LOCK_VOLUME, &[], &mut []) {
            Ok(_) => return Ok(true),
            Err(error) if error.raw_os_error().is_some_and(|code| code.cast_unsigned() == ERROR_ACCESS_DENIED) => {
                if started.elapsed() >= LOCK_PATIENCE {
                    return Ok(false);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Has the filesystem of a locked volume forget it: what is written to the disk is not overwritten by what was cached.
pub(crate) fn dismount(volume: &File) -> io::Result<()> {
    control_bytes(volume, FSCTL_DISMOUNT_VOLUME, &[], &mut []).map(|_| ())
}

/// Locks every volume that lies in these runs; `for_writing` also dismounts them. `Err` with its name where one is in use.
pub(crate) fn lock_all(runs: &[DiskRun], for_writing: bool) -> Result<std::result::Result<Vec<File>, String>> {
    let mut locked = Vec::new();
    for volume in volumes()?.into_iter().filter(|volume| volume.meets(runs)) {
        let file = open(&volume.path).map_err(|error| Error::io("open", &volume.path, error))?;
        if !lock(&file).map_err(|error| Error::io("lock", &volume.path, error))? {
            return Ok(Err(volume.name()));
        }
        if for_writing {
            dismount(&file).map_err(|error| Error::io("dismount", &volume.path, error))?;
            allow_all_sectors(&file);
        }
        locked.push(file);
    }
    Ok(Ok(locked))
}
