//! Asking a drive to end, from another process: an event of the system with a name that belongs to the place of the drive.
//!
//! Dokan itself would take any drive away, also those of other programs.

use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{ERROR_ALREADY_EXISTS, ERROR_FILE_NOT_FOUND, WAIT_OBJECT_0};
use windows_sys::Win32::System::Threading::{
    CreateEventW, EVENT_MODIFY_STATE, INFINITE, OpenEventW, SetEvent, WaitForSingleObject,
};

use crate::dokan::mount::MountError;
use crate::place::Place;

/// How long the process of a drive may take to end it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The event of a drive.
#[derive(Debug)]
pub(super) struct Ending(OwnedHandle);

impl Ending {
    /// Makes the event; fails where there is a drive of ours in this place already.
    pub(super) fn new(place: &Place) -> Result<Self, MountError> {
        let name = name(place);
        // SAFETY: the name ends with a NUL; the event is reset by hand and not set.
        let event = unsafe { CreateEventW(std::ptr::null(), 1, 0, name.as_ptr()) };
        let error = std::io::Error::last_os_error();
        if event.is_null() {
            return Err(MountError::System { place: place.clone(), source: error });
        }
        // SAFETY: a handle that is ours alone.
        let event = unsafe { OwnedHandle::from_raw_handle(event) };
        if is(&error, ERROR_ALREADY_EXISTS) {
            return Err(MountError::Mounted(place.clone()));
        }
        Ok(Self(event))
    }

    /// Asks for the end.
    pub(super) fn ask(&self) {
        // SAFETY: the handle is open.
        unsafe { SetEvent(self.0.as_raw_handle()) };
    }

    /// Waits until somebody asks for the end.
    pub(super) fn wait(&self) {
        // SAFETY: the handle is open.
        while unsafe { WaitForSingleObject(self.0.as_raw_handle(), INFINITE) } != WAIT_OBJECT_0 {}
    }
}

/// Ends the drive of ours at `place`, and waits until it is gone.
pub fn unmount(place: &Place) -> Result<(), MountError> {
    let Some(event) = open(place)? else { return Err(MountError::NotMounted(place.clone())) };
    // SAFETY: the handle is open.
    if unsafe { SetEvent(event.as_raw_handle()) } == 0 {
        return Err(MountError::System { place: place.clone(), source: std::io::Error::last_os_error() });
    }
    // The name is there for as long as anybody has a handle.
    drop(event);
    let asked = Instant::now();
    while open(place)?.is_some() {
        if asked.elapsed() > PATIENCE {
            return Err(MountError::NotEnded(place.clone()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn open(place: &Place) -> Result<Option<OwnedHandle>, MountError> {
    let name = name(place);
    // SAFETY: the name ends with a NUL.
    let event = unsafe { OpenEventW(EVENT_MODIFY_STATE, 0, name.as_ptr()) };
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

fn is(error: &std::io::Error, code: u32) -> bool {
    error.raw_os_error() == Some(code.cast_signed())
}

fn name(place: &Place) -> Vec<u16> {
    place.object_name().encode_utf16().chain([0]).collect()
}
