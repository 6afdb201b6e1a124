//! `dokan2.dll`, found and asked for its version.

use std::ffi::{CStr, c_void};
use std::os::windows::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use windows_sys::Win32::Foundation::{FreeLibrary, HMODULE};
use windows_sys::Win32::System::LibraryLoader::{
    GetProcAddress, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR, LOAD_LIBRARY_SEARCH_SYSTEM32, LoadLibraryExW,
};

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
    module: HMODULE,
    /// What `DokanVersion` says: 230 is 2.3.0.
    pub(super) version: u32,
    pub(super) create_file_system: CreateFileSystem,
    pub(super) wait_for_file_system_closed: WaitForFileSystemClosed,
    pub(super) close_handle: CloseHandle,
    pub(super) remove_mount_point: RemoveMountPoint,
    pub(super) reset_timeout: ResetTimeout,
    shutdown: Notice,
}

// SAFETY: a module's handle and its functions are the process's, not a thread's.
unsafe impl Send for Library {}
// SAFETY: as above; Dokan's functions may be called by any thread.
unsafe impl Sync for Library {}

impl Library {
    /// Finds the library and checks its version and the driver's.
    pub(super) fn load() -> Result<Self, MountError> {
        let module = find().ok_or(MountError::NoLibrary)?;
        // The module is freed wherever this fails.
        let module = Module(module);
        // SAFETY: both names are functions of this type in every version of Dokan 2.
        let (version, driver_version): (Option<Version>, Option<Version>) =
            unsafe { (function(module.0, c"DokanVersion"), function(module.0, c"DokanDriverVersion")) };
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
            let init: Notice = function(module.0, c"DokanInit").ok_or_else(missing)?;
            let library = Self {
                module: module.0,
                version: found,
                create_file_system: function(module.0, c"DokanCreateFileSystem").ok_or_else(missing)?,
                wait_for_file_system_closed: function(module.0, c"DokanWaitForFileSystemClosed").ok_or_else(missing)?,
                close_handle: function(module.0, c"DokanCloseHandle").ok_or_else(missing)?,
                remove_mount_point: function(module.0, c"DokanRemoveMountPoint").ok_or_else(missing)?,
                reset_timeout: function(module.0, c"DokanResetTimeout").ok_or_else(missing)?,
                shutdown: function(module.0, c"DokanShutdown").ok_or_else(missing)?,
            };
            (init, library)
        };
        std::mem::forget(module);
        // SAFETY: once before anything else; `Drop` has the call that belongs to it.
        unsafe { init() };
        Ok(library)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: `init` was called once, every drive was closed before the library goes, and nothing of the library is used behind this.
        unsafe {
            (self.shutdown)();
            FreeLibrary(self.module);
        }
    }
}

/// A loaded module that is freed if nobody keeps it.
struct Module(HMODULE);

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: it was loaded by us and nothing of it is in use.
        unsafe { FreeLibrary(self.0) };
    }
}

/// Loads the library from where Dokan's installer puts it.
fn find() -> Option<HMODULE> {
    let system = load(Path::new(NAME), LOAD_LIBRARY_SEARCH_SYSTEM32);
    system.or_else(|| {
        let folder = PathBuf::from(std::env::var_os(FOLDER_VARIABLE)?);
        let place = LOAD_LIBRARY_SEARCH_SYSTEM32 | LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR;
        folder.is_absolute().then(|| load(&folder.join(NAME), place)).flatten()
    })
}

fn load(path: &Path, flags: u32) -> Option<HMODULE> {
    let path: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
    // SAFETY: the path ends with a NUL. Running the code of Dokan's library is what the user asked for.
    let module = unsafe { LoadLibraryExW(path.as_ptr(), std::ptr::null_mut(), flags) };
    (!module.is_null()).then_some(module)
}

/// A function of a module.
///
/// # Safety
///
/// `F` must be the type of the function with this name.
unsafe fn function<F: Copy>(module: HMODULE, name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<usize>()) };
    // SAFETY: the name ends with a NUL.
    let found = unsafe { GetProcAddress(module, name.as_ptr().cast()) }?;
    // SAFETY: a function pointer, of the type that the caller vouches for and of its size.
    Some(unsafe { std::mem::transmute_copy(&found) })
}
