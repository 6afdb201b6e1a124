//! `dokan2.dll`, found and asked for its version.

use std::ffi::c_void;
use std::path::PathBuf;

use libloading::os::windows::{LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR, LOAD_LIBRARY_SEARCH_SYSTEM32, Library as Module};

use crate::dokan::mount::MountError;
use crate::layout::{Callbacks, FileInfo, Options, VERSIONS};

/// The library's name.
const NAME: &str = "dokan2.dll";
/// The variable in which Dokan's installer names its folder.
const FOLDER_VARIABLE: &str = "DokanLibrary2";

type Version = unsafe extern "system" fn() -> u32;
type Notice = unsafe extern "system" fn();
type CreateFileSystem = unsafe extern "system" fn(*mut Options, *const Callbacks, *mut *mut c_void) -> i32;
type WaitForFileSystemClosed = unsafe extern "system" fn(*mut c_void, u32) -> u32;
type CloseHandle = unsafe extern "system" fn(*mut c_void);
type RemoveMountPoint = unsafe extern "system" fn(*const u16) -> i32;
type ResetTimeout = unsafe extern "system" fn(u32, *mut FileInfo) -> i32;

/// The library and its functions, as long as this lives.
#[derive(Debug)]
pub(super) struct Library {
    /// What `DokanVersion` says: 230 is 2.3.0.
    pub(super) version: u32,
    pub(super) create_file_system: CreateFileSystem,
    pub(super) wait_for_file_system_closed: WaitForFileSystemClosed,
    pub(super) close_handle: CloseHandle,
    pub(super) remove_mount_point: RemoveMountPoint,
    pub(super) reset_timeout: ResetTimeout,
    shutdown: Notice,
    /// Goes last: everything above is in it.
    _module: Module,
}

impl Library {
    /// Finds the library and checks its version and the driver's.
    pub(super) fn load() -> Result<Self, MountError> {
        let module = find().ok_or(MountError::NoLibrary)?;
        // SAFETY: both names are functions of this type in every version of Dokan 2.
        let (version, driver_version): (Option<Version>, Option<Version>) =
            unsafe { (function(&module, "DokanVersion"), function(&module, "DokanDriverVersion")) };
        let (Some(version), Some(driver_version)) = (version, driver_version) else {
            return Err(MountError::WrongVersion(0));
        };
        // SAFETY: a function without arguments that can be called at any time.
        let found = unsafe { version() };
        if !VERSIONS.contains(&found) {
            return Err(MountError::WrongVersion(found));
        }
        // SAFETY: as above. It is 0 where no driver answers.
        if unsafe { driver_version() } == 0 {
            return Err(MountError::NoDriver);
        }
        let missing = || MountError::WrongVersion(found);
        // SAFETY: the functions have these types in all versions that `VERSIONS` has.
        let (init, library) = unsafe {
            let init: Notice = function(&module, "DokanInit").ok_or_else(missing)?;
            let library = Self {
                version: found,
                create_file_system: function(&module, "DokanCreateFileSystem").ok_or_else(missing)?,
                wait_for_file_system_closed: function(&module, "DokanWaitForFileSystemClosed").ok_or_else(missing)?,
                close_handle: function(&module, "DokanCloseHandle").ok_or_else(missing)?,
                remove_mount_point: function(&module, "DokanRemoveMountPoint").ok_or_else(missing)?,
                reset_timeout: function(&module, "DokanResetTimeout").ok_or_else(missing)?,
                shutdown: function(&module, "DokanShutdown").ok_or_else(missing)?,
                _module: module,
            };
            (init, library)
        };
        // SAFETY: once before anything else; `Drop` has the call that belongs to it.
        unsafe { init() };
        Ok(library)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: `init` was called once, every drive was closed before the library goes, and nothing of the library is used behind this.
        unsafe { (self.shutdown)() };
    }
}

/// Loads the library from where Dokan's installer puts it.
fn find() -> Option<Module> {
    let system = load(NAME.into(), LOAD_LIBRARY_SEARCH_SYSTEM32);
    system.or_else(|| {
        let folder = PathBuf::from(std::env::var_os(FOLDER_VARIABLE)?);
        let place = LOAD_LIBRARY_SEARCH_SYSTEM32 | LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR;
        folder.is_absolute().then(|| load(folder.join(NAME), place)).flatten()
    })
}

fn load(path: PathBuf, flags: u32) -> Option<Module> {
    // SAFETY: running the code of Dokan's library is what the user asked for.
    unsafe { Module::load_with_flags(path, flags) }.ok()
}

/// A function of a module.
///
/// # Safety
///
/// `F` must be the type of the function with this name.
unsafe fn function<F: Copy>(module: &Module, name: &str) -> Option<F> {
    // SAFETY: the caller vouches for the type.
    unsafe { module.get::<F>(name.as_bytes()) }.ok().map(|function| *function)
}
