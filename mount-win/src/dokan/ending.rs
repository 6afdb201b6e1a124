//! Asking a drive to end, from another process: events of the system with names that belong to the place of the drive.
//!
//! Dokan itself would take any drive away, also those of other programs, and whatever was not durable with it.

use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{ERROR_ALREADY_EXISTS, ERROR_FILE_NOT_FOUND, WAIT_OBJECT_0};
use windows_sys::Win32::System::Threading::{
    CreateEventW, EVENT_MODIFY_STATE, INFINITE, OpenEventW, ResetEvent, SYNCHRONIZATION_SYNCHRONIZE, SetEvent,
    WaitForSingleObject,
};

use crate::dokan::mount::MountError;
use crate::place::Place;

/// How long the process of a drive may take to end it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Milliseconds between two looks at whether a drive is gone.
const PAUSE: u32 = 20;
/// What is behind the name of an event.
const ASKED: &str = "";
const ANYWAY: &str = "-anyway";
const REFUSED: &str = "-refused";

/// The events of a drive.
#[derive(Debug)]
pub(super) struct Ending {
    /// It is to end.
    asked: OwnedHandle,
    /// It is to end, whatever is lost by that.
    anyway: OwnedHandle,
    /// It does not end, since something would be lost.
    refused: OwnedHandle,
}

impl Ending {
    /// Makes the events; fails where there is a drive of ours in this place already.
    pub(super) fn new(place: &Place) -> Result<Self, MountError> {
        let (anyway, _) = create(place, ANYWAY)?;
        let (refused, _) = create(place, REFUSED)?;
        // The last one, so that who finds it finds the others.
        let (asked, is_new) = create(place, ASKED)?;
        if is_new { Ok(Self { asked, anyway, refused }) } else { Err(MountError::Mounted(place.clone())) }
    }

    /// Asks for the end, whatever is lost by it.
    pub(super) fn ask(&self) {
        set(&self.anyway);
        set(&self.asked);
    }

    /// Waits until somebody asks for the end. Returns whether it is to come whatever is lost by it.
    pub(super) fn wait(&self) -> bool {
        while !is_set(&self.asked, INFINITE) {}
        is_set(&self.anyway, 0)
    }

    /// Says no to who asked, and waits for the next one.
    pub(super) fn refuse(&self) {
        reset(&self.asked);
        set(&self.refused);
    }
}

/// Ends the drive of ours at `place`, and waits until it is gone; with `anyway` also where what was written last would be lost.
pub fn unmount(place: &Place, anyway: bool) -> Result<(), MountError> {
    let not_mounted = || MountError::NotMounted(place.clone());
    let asked = open(place, ASKED)?.ok_or_else(not_mounted)?;
    let refused = open(place, REFUSED)?.ok_or_else(not_mounted)?;
    reset(&refused);
    if anyway {
        set(&open(place, ANYWAY)?.ok_or_else(not_mounted)?);
    }
    if !set(&asked) {
        return Err(MountError::System { place: place.clone(), source: std::io::Error::last_os_error() });
    }
    // The name is there for as long as anybody has a handle.
    drop(asked);
    let started = Instant::now();
    while open(place, ASKED)?.is_some() {
        if is_set(&refused, PAUSE) {
            return Err(MountError::NotDurable(place.clone()));
        }
        if started.elapsed() > PATIENCE {
            return Err(MountError::NotEnded(place.clone()));
        }
    }
    Ok(())
}

/// Makes an event, or opens it where it is there already. Returns whether it is new.
fn create(place: &Place, suffix: &str) -> Result<(OwnedHandle, bool), MountError> {
    let name = name(place, suffix);
    // SAFETY: the name ends with a NUL; the event is reset by hand and not set.
    let event = unsafe { CreateEventW(std::ptr::null(), 1, 0, name.as_ptr()) };
    let error = std::io::Error::last_os_error();
    if event.is_null() {
        return Err(MountError::System { place: place.clone(), source: error });
    }
    // SAFETY: a handle that is ours alone.
    Ok((unsafe { OwnedHandle::from_raw_handle(event) }, !is(&error, ERROR_ALREADY_EXISTS)))
}

fn open(place: &Place, suffix: &str) -> Result<Option<OwnedHandle>, MountError> {
    let name = name(place, suffix);
    // SAFETY: the name ends with a NUL.
    let event = unsafe { OpenEventW(EVENT_MODIFY_STATE | SYNCHRONIZATION_SYNCHRONIZE, 0, name.as_ptr()) };
    if event.is_null() {
        let error = std::io::Error::last_os_error();
        return match is(&error, ERROR_FILE_NOT_FOUND) {
            true => Ok(None),
            false => Err(MountError::System { place: place.clone(), source: error }),
        };
    }
    // SAFETY: a handle that is ours alone.
    Ok(Some(unsafe { OwnedHandle::from_raw_handle(event) }))
}

fn set(event: &OwnedHandle) -> bool {
    // SAFETY: the handle is open.
    unsafe { SetEvent(event.as_raw_handle()) != 0 }
}

fn reset(event: &OwnedHandle) {
    // SAFETY: the handle is open.
    unsafe { ResetEvent(event.as_raw_handle()) };
}

/// Whether an event is set, or is within so many milliseconds.
fn is_set(event: &OwnedHandle, milliseconds: u32) -> bool {
    // SAFETY: the handle is open.
    unsafe { WaitForSingleObject(event.as_raw_handle(), milliseconds) == WAIT_OBJECT_0 }
}

fn is(error: &std::io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}

fn name(place: &Place, suffix: &str) -> Vec<u16> {
    place.object_name().encode_utf16().chain(suffix.encode_utf16()).chain([0]).collect()
}
