//! A drive: making it, serving it, ending it.

use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

use imgfmt::error::full_message;
use imgfmt::readahead::Readahead;
use imgfmt::tree::Tree;

use crate::dokan::callbacks::{CALLBACKS, Served, TIMEOUT};
use crate::dokan::ending::Ending;
use crate::dokan::library::Library;
use crate::layout::{
    Callbacks, OPTION_ALT_STREAM, OPTION_CASE_SENSITIVE, OPTION_CURRENT_SESSION, OPTION_MOUNT_MANAGER,
    OPTION_WRITE_PROTECT, Options, VERSION,
};
use crate::operations::{Log, Operations};
use crate::place::Place;
use crate::volume::VolumeInformation;

/// Bytes of a sector, as the drive says.
const SECTOR: u32 = 512;
/// Bytes of an allocation unit, as the drive says.
const ALLOCATION_UNIT: u32 = 4096;

/// How a drive is made.
#[derive(Clone)]
pub struct MountOptions {
    /// Its label.
    pub label: String,
    /// Its serial number.
    pub serial: u32,
    /// All users of the machine see it, and not only the session that makes it.
    pub allow_other: bool,
    /// Most bytes that are kept of what was read ahead.
    pub readahead_bytes: u64,
    /// Hears what goes wrong.
    pub log: Log,
}

impl std::fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountOptions").field("label", &self.label).finish_non_exhaustive()
    }
}

/// Why a drive was not made or not ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is no `dokan2.dll`.
    #[error(
        "Dokan 2 is not installed, and only mount needs it: install version 2 from https://github.com/dokan-dev/dokany/releases \
         (DokanSetup.exe), or copy files with hikae cp, which needs nothing"
    )]
    NoLibrary,
    /// `dokan2.dll` is of another version.
    #[error(
        "dokan2.dll has version {0}, and this program needs one from 200 to 299: install version 2 from \
         https://github.com/dokan-dev/dokany/releases (DokanSetup.exe)"
    )]
    WrongVersion(u32),
    /// `dokan2.dll` has given up the interface that is used here.
    #[error(
        "dokan2.dll has version {0}, which does not serve programs made for version 200: install another version 2 from \
         https://github.com/dokan-dev/dokany/releases (DokanSetup.exe)"
    )]
    Incompatible(u32),
    /// The driver does not start a drive, as where it is not of the library's version.
    #[error(
        "Dokan's driver does not start the drive: it may not be of the version of dokan2.dll ({0}). Install version 2 again from \
         https://github.com/dokan-dev/dokany/releases (DokanSetup.exe) and restart the computer"
    )]
    NotStarted(u32),
    /// The library is there and the driver does not answer.
    #[error(
        "Dokan's driver does not answer: restart the computer if Dokan was installed just now, else install it again \
         (https://github.com/dokan-dev/dokany/releases)"
    )]
    NoDriver,
    /// There is a drive of ours.
    #[error("there is a mount of hikae on {0} already. Take it away with: hikae umount {0}")]
    Mounted(Place),
    /// There is no drive of ours.
    #[error("{0} is no mount of hikae")]
    NotMounted(Place),
    /// Something else has the letter or the folder.
    #[error("cannot mount on {0}: it is in use; choose a letter that is free, or an empty folder on NTFS")]
    Taken(Place),
    /// The folder cannot serve.
    #[error("cannot mount on {place}")]
    Place {
        /// The folder.
        place: Place,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Dokan refused.
    #[error("cannot mount on {place}: Dokan says {code} ({words})")]
    Dokan {
        /// The place.
        place: Place,
        /// Its number for the failure.
        code: i32,
        /// What its header says that this number means.
        words: &'static str,
    },
    /// The system refused.
    #[error("cannot mount on or unmount {place}")]
    System {
        /// The place.
        place: Place,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What was written into it cannot be made durable.
    #[error(
        "what was written into {0} is not all on the disk yet and would be lost: make that possible and try again, or say --lazy to take it away all the same"
    )]
    NotDurable(Place),
    /// The process of a drive did not end it.
    #[error("{0} was asked to end and is still there: close the files and folders that are open in it, and try again")]
    NotEnded(Place),
}

/// A drive that is there, and is served by Dokan's threads.
#[derive(Debug)]
pub struct Mount {
    instance: Instance,
    unmounter: Unmounter,
    waiter: std::thread::JoinHandle<()>,
}

/// What Dokan uses for as long as the drive is there.
struct Instance {
    library: Arc<Library>,
    handle: *mut c_void,
    served: *mut Served,
    options: *mut Options,
    callbacks: *mut Callbacks,
    _point: Vec<u16>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Ends a drive, from any thread.
#[derive(Clone, Debug)]
pub struct Unmounter(Arc<Ending>);

impl Unmounter {
    /// Asks for the end of the drive, whatever was written last; [`Mount::serve`] returns when it is gone.
    pub fn unmount(&self) {
        self.0.ask();
    }
}

impl Mount {
    /// Shows `tree` on a drive letter or an empty folder: read only but for the files that take writes, and to nobody but the session of its maker unless
    /// [`MountOptions::allow_other`] is set.
    pub fn new(tree: Arc<Tree>, place: &Path, options: &MountOptions) -> Result<Self, MountError> {
        let place = check_place(Place::parse(place))?;
        let ending = Arc::new(Ending::new(&place)?);
        let library = Arc::new(Library::load()?);
        let volume = VolumeInformation::new(&options.label, options.serial, tree.takes_writes());
        let protect = if tree.takes_writes() { 0 } else { OPTION_WRITE_PROTECT };
        let system = |source| MountError::System { place: place.clone(), source };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let readahead = Readahead::start(cores, options.readahead_bytes).map_err(system)?;
        let (shown, log) = (Arc::clone(&tree), Arc::clone(&options.log));
        let operations = Operations::new(tree, volume, readahead, Arc::clone(&options.log));
        let served = Served::start(operations, Arc::clone(&library)).map_err(system)?;
        let instance = Instance::create(Arc::clone(&library), served, &place, protect, options.allow_other)?;
        let seen = Arc::clone(&ending);
        let point = wide(&place);
        let waiter = std::thread::Builder::new().name("unmount".into()).spawn(move || {
            // Nobody hears of what cannot be made durable once the drive is gone.
            let is_durable = || match shown.flush() {
                Ok(()) => true,
                Err(error) => {
                    log(&format!("cannot write to the disk what was written: {}", full_message(&error)));
                    false
                }
            };
            while !seen.wait() && !is_durable() {
                seen.refuse();
            }
            // SAFETY: the place ends with a NUL. A drive that is gone already is no harm.
            unsafe { (library.remove_mount_point)(point.as_ptr()) };
        });
        Ok(Self { instance, unmounter: Unmounter(ending), waiter: waiter.map_err(system)? })
    }

    /// What ends the drive.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Waits until the drive is taken away. Returns how many files were open then.
    pub fn serve(self) -> usize {
        const FOR_EVER: u32 = u32::MAX;
        let Self { instance, unmounter, waiter } = self;
        // SAFETY: the handle is that of the drive.
        unsafe { (instance.library.wait_for_file_system_closed)(instance.handle, FOR_EVER) };
        unmounter.unmount();
        let _ = waiter.join();
        instance.close()
    }
}

impl Instance {
    fn create(
        library: Arc<Library>,
        served: Served,
        place: &Place,
        protect: u32,
        allow_other: bool,
    ) -> Result<Self, MountError> {
        let point = wide(place);
        let served = Box::into_raw(Box::new(served));
        let seen = if allow_other { OPTION_MOUNT_MANAGER } else { OPTION_CURRENT_SESSION };
        let options = Box::into_raw(Box::new(Options {
            version: VERSION,
            single_thread: 0,
            options: OPTION_ALT_STREAM | protect | OPTION_CASE_SENSITIVE | seen,
            global_context: u64::try_from(served.expose_provenance()).unwrap_or(0),
            mount_point: point.as_ptr(),
            unc_name: std::ptr::null(),
            timeout: TIMEOUT,
            allocation_unit_size: ALLOCATION_UNIT,
            sector_size: SECTOR,
            volume_security_descriptor_len: 0,
            volume_security_descriptor: [0; 16_384],
        }));
        let callbacks = Box::into_raw(Box::new(CALLBACKS));
        let mut instance = Self { library, handle: std::ptr::null_mut(), served, options, callbacks, _point: point };
        // SAFETY: all three live until `drop`, which closes the drive first.
        let code = unsafe { (instance.library.create_file_system)(options, callbacks, &raw mut instance.handle) };
        if code == 0 {
            return Ok(instance);
        }
        instance.handle = std::ptr::null_mut();
        Err(explain(place, code, instance.library.version))
    }

    /// Closes the drive. Returns how many files are open.
    fn close(self) -> usize {
        // SAFETY: it lives until `drop`.
        unsafe { self.served.as_ref() }.map_or(0, |served| served.operations.open_files())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: closing waits for the callbacks that run, and none comes behind it; so nobody uses what is freed then.
        unsafe {
            if !self.handle.is_null() {
                (self.library.close_handle)(self.handle);
            }
            drop(Box::from_raw(self.served));
            drop(Box::from_raw(self.options));
            drop(Box::from_raw(self.callbacks));
        }
    }
}

/// Checks a folder before Dokan does, which says less.
fn check_place(place: Place) -> Result<Place, MountError> {
    let Place::Folder(folder) = &place else { return Ok(place) };
    let failed = |source| MountError::Place { place: place.clone(), source };
    let absolute = std::path::absolute(folder).map_err(failed)?;
    let mut entries = std::fs::read_dir(&absolute).map_err(failed)?;
    if entries.next().is_some() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty)));
    }
    Ok(Place::Folder(absolute))
}

fn wide(place: &Place) -> Vec<u16> {
    place.mount_point().encode_utf16().chain([0]).collect()
}

/// What the results of `DokanCreateFileSystem` of a library of this version mean.
fn explain(place: &Place, code: i32, version: u32) -> MountError {
    let place = place.clone();
    let words = match code {
        -2 | -5 => return MountError::Taken(place),
        -3 => return MountError::NoDriver,
        -4 => return MountError::NotStarted(version),
        -7 => return MountError::Incompatible(version),
        -6 => "the mount point is invalid",
        _ => "an error",
    };
    MountError::Dokan { place, code, words }
}
