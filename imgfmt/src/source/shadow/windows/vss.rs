//! The Volume Shadow Copy Service: its functions and objects, as far as a backup of whole volumes calls them. What is done with them is next door.
//!
//! `vssapi.dll` and COM's libraries are loaded when shadow copies are asked for and not before, always from the system's folder, and stay loaded: threads of
//! theirs may still be on their way out when the last object has gone. The objects are called
//! through their tables of functions: the interface is a C++ class, in the order in which its header declares it.
//!
//! Source: vsbackup.h, vss.h and "Overview of Processing a Backup Under VSS" in the Windows documentation.
#![expect(unsafe_code, reason = "calls through tables of functions of the Windows API")]

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use libloading::os::windows::{LOAD_LIBRARY_SEARCH_SYSTEM32, Library};
use windows_sys::core::GUID;

use crate::source::shadow::codes::{self, FINISHED, OK, PENDING};

/// Longest that one step is waited for: programs may take a minute to bring their files into order, and the system ends a step after ten.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long one call waits before the time is looked at.
const WAIT_MILLISECONDS: u32 = 1000;
/// `VSS_CTX_BACKUP`: a copy that is removed with the object, made with the help of the programs whose files are in it.
const CONTEXT_BACKUP: i32 = 0;
/// `VSS_BT_COPY`: it does not count as a backup for programs that remove their logs after one.
const BACKUP_TYPE_COPY: i32 = 5;
/// `CLSCTX`-free start of COM for a thread of a process with many.
const COINIT_MULTITHREADED: u32 = 0;
/// `RPC_C_AUTHN_LEVEL_PKT_PRIVACY`.
const AUTHENTICATION_PRIVACY: u32 = 6;
/// `RPC_C_IMP_LEVEL_IMPERSONATE`.
const IMPERSONATE: u32 = 3;
/// `EOAC_DYNAMIC_CLOAKING`.
const DYNAMIC_CLOAKING: u32 = 0x40;
const NO_PROVIDER: GUID = GUID::from_u128(0);

/// A call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// Its name in the documentation.
    pub(super) call: &'static str,
    /// Its `HRESULT`.
    pub(super) code: i32,
}

type Called<T = ()> = Result<T, Failed>;

fn check(call: &'static str, code: i32) -> Called {
    if codes::is_failure(code) { Err(Failed { call, code }) } else { Ok(()) }
}

/// A function of a table that is not called.
type Unused = *const c_void;

/// `IVssAsync`.
#[repr(C)]
struct AsyncTable {
    query_interface: Unused,
    add_ref: Unused,
    release: unsafe extern "system" fn(*mut AsyncObject) -> u32,
    cancel: unsafe extern "system" fn(*mut AsyncObject) -> i32,
    wait: unsafe extern "system" fn(*mut AsyncObject, milliseconds: u32) -> i32,
    query_status: unsafe extern "system" fn(*mut AsyncObject, code: *mut i32, reserved: *mut i32) -> i32,
}

#[repr(C)]
struct AsyncObject {
    table: *const AsyncTable,
}

type Begin = unsafe extern "system" fn(*mut Object, *mut *mut AsyncObject) -> i32;
type GetCount = unsafe extern "system" fn(*mut Object, *mut u32) -> i32;

/// `IVssBackupComponents`, up to the last function that is called.
#[repr(C)]
struct Table {
    query_interface: Unused,
    add_ref: Unused,
    release: unsafe extern "system" fn(*mut Object) -> u32,
    get_writer_components_count: Unused,
    get_writer_components: Unused,
    initialize_for_backup: unsafe extern "system" fn(*mut Object, xml: *const u16) -> i32,
    set_backup_state:
        unsafe extern "system" fn(*mut Object, select: u8, bootable: u8, backup_type: i32, partial_files: u8) -> i32,
    initialize_for_restore: Unused,
    set_restore_state: Unused,
    gather_writer_metadata: Begin,
    get_writer_metadata_count: Unused,
    get_writer_metadata: Unused,
    free_writer_metadata: unsafe extern "system" fn(*mut Object) -> i32,
    add_component: Unused,
    prepare_for_backup: Begin,
    abort_backup: unsafe extern "system" fn(*mut Object) -> i32,
    gather_writer_status: Begin,
    get_writer_status_count: GetCount,
    free_writer_status: unsafe extern "system" fn(*mut Object) -> i32,
    get_writer_status: unsafe extern "system" fn(
        *mut Object,
        index: u32,
        instance: *mut GUID,
        writer: *mut GUID,
        name: *mut *mut u16,
        state: *mut i32,
        failure: *mut i32,
    ) -> i32,
    set_backup_succeeded: Unused,
    set_backup_options: Unused,
    set_selected_for_restore: Unused,
    set_restore_options: Unused,
    set_additional_restores: Unused,
    set_previous_backup_stamp: Unused,
    save_as_xml: Unused,
    backup_complete: Begin,
    add_alternative_location_mapping: Unused,
    add_restore_subcomponent: Unused,
    set_file_restore_status: Unused,
    add_new_target: Unused,
    set_ranges_file_path: Unused,
    pre_restore: Unused,
    post_restore: Unused,
    set_context: unsafe extern "system" fn(*mut Object, context: i32) -> i32,
    start_snapshot_set: unsafe extern "system" fn(*mut Object, set: *mut GUID) -> i32,
    add_to_snapshot_set:
        unsafe extern "system" fn(*mut Object, volume: *const u16, provider: GUID, snapshot: *mut GUID) -> i32,
    do_snapshot_set: Begin,
    delete_snapshots: Unused,
    import_snapshots: Unused,
    break_snapshot_set: Unused,
    get_snapshot_properties: unsafe extern "system" fn(*mut Object, snapshot: GUID, *mut SnapshotProperties) -> i32,
    query: Unused,
    is_volume_supported:
        unsafe extern "system" fn(*mut Object, provider: GUID, volume: *const u16, supported: *mut i32) -> i32,
}

#[repr(C)]
struct Object {
    table: *const Table,
}

/// `VSS_SNAPSHOT_PROP`.
#[repr(C)]
struct SnapshotProperties {
    snapshot: GUID,
    set: GUID,
    snapshots_count: i32,
    device_object: *mut u16,
    original_volume: *mut u16,
    originating_machine: *mut u16,
    service_machine: *mut u16,
    exposed_name: *mut u16,
    exposed_path: *mut u16,
    provider: GUID,
    attributes: i32,
    created: i64,
    state: i32,
}

/// The functions of the libraries.
struct Api {
    create: unsafe extern "system" fn(*mut *mut Object) -> i32,
    free_properties: unsafe extern "system" fn(*mut SnapshotProperties),
    start_com: unsafe extern "system" fn(reserved: *const c_void, mode: u32) -> i32,
    end_com: unsafe extern "system" fn(),
    secure_com: SecureCom,
    free_text: unsafe extern "system" fn(*mut u16),
}

/// `CoInitializeSecurity`.
type SecureCom = unsafe extern "system" fn(
    descriptor: *const c_void,
    services_count: i32,
    services: *const c_void,
    reserved: *const c_void,
    authentication: u32,
    impersonation: u32,
    list: *const c_void,
    capabilities: u32,
    reserved: *const c_void,
) -> i32;

/// What loading a library or finding a function fails with: `HRESULT_FROM_WIN32(ERROR_MOD_NOT_FOUND)`.
const NOT_THERE: i32 = codes::hresult(0x8007_007e);

/// Loads a library for as long as the process lives.
fn load(name: &'static str) -> Called<ManuallyDrop<Library>> {
    // SAFETY: a library of the system, from the system's folder and nowhere else.
    let library = unsafe { Library::load_with_flags(name, LOAD_LIBRARY_SEARCH_SYSTEM32) };
    library.map(ManuallyDrop::new).map_err(|_| Failed { call: name, code: NOT_THERE })
}

/// A function of a library.
///
/// # Safety
///
/// `F` must be the type of the function with this name.
unsafe fn function<F: Copy>(library: &Library, name: &'static str) -> Called<F> {
    // SAFETY: the caller vouches for the type.
    let found = unsafe { library.get::<F>(name.as_bytes()) };
    found.map(|function| *function).map_err(|_| Failed { call: name, code: NOT_THERE })
}

impl Api {
    fn load() -> Called<Self> {
        let (vss, com, text) = (load("vssapi.dll")?, load("ole32.dll")?, load("oleaut32.dll")?);
        // SAFETY: the types are those of the functions in vsbackup.h, combaseapi.h and oleauto.h.
        unsafe {
            Ok(Self {
                create: function(&vss, "CreateVssBackupComponentsInternal")?,
                free_properties: function(&vss, "VssFreeSnapshotPropertiesInternal")?,
                start_com: function(&com, "CoInitializeEx")?,
                end_com: function(&com, "CoUninitialize")?,
                secure_com: function(&com, "CoInitializeSecurity")?,
                free_text: function(&text, "SysFreeString")?,
            })
        }
    }
}

/// COM in this thread, for as long as this lives.
struct Com {
    api: Api,
    /// Whether it was started here, and not by somebody else in another way.
    started: bool,
}

impl Com {
    fn start() -> Called<Self> {
        let api = Api::load()?;
        // SAFETY: nothing is handed over.
        let code = unsafe { (api.start_com)(ptr::null(), COINIT_MULTITHREADED) };
        let started = !codes::is_failure(code);
        let com = Self { api, started };
        // Programs whose files are copied call back, so they must be let in; one of the two that may have been set before is as good.
        // SAFETY: null stands for what is not given; -1 services are those that the system chooses.
        unsafe {
            (com.api.secure_com)(
                ptr::null(),
                -1,
                ptr::null(),
                ptr::null(),
                AUTHENTICATION_PRIVACY,
                IMPERSONATE,
                ptr::null(),
                DYNAMIC_CLOAKING,
                ptr::null(),
            );
        }
        Ok(com)
    }
}

impl Drop for Com {
    fn drop(&mut self) {
        if self.started {
            // SAFETY: it was started in this thread: nothing that holds this can be sent to another one.
            unsafe { (self.api.end_com)() };
        }
    }
}

/// Whether a program brought its files into order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    /// Its name.
    pub(super) name: String,
    /// `VSS_WRITER_STATE`.
    pub(super) state: i32,
    /// Why not.
    pub(super) failure: i32,
}

/// `IVssBackupComponents`: one backup. The shadow copies that it makes go with it.
pub(super) struct Backup {
    object: NonNull<Object>,
    /// Whether the service knows that the backup has ended.
    ended: bool,
    com: Com,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup").field("ended", &self.ended).finish_non_exhaustive()
    }
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// Text of the service, with a zero behind it.
///
/// # Safety
///
/// `text` must be null, or lead to code units with a zero behind them.
unsafe fn text_at(text: *const u16) -> String {
    if text.is_null() {
        return String::new();
    }
    let mut len = 0;
    // SAFETY: none behind the zero is looked at.
    while unsafe { *text.add(len) } != 0 {
        len = len.saturating_add(1);
    }
    // SAFETY: all of these were just looked at.
    String::from_utf16_lossy(unsafe { std::slice::from_raw_parts(text, len) })
}

impl Backup {
    /// Begins a backup of whole volumes: asks all programs that want to bring their files into order.
    pub(super) fn begin() -> Called<Self> {
        let com = Com::start()?;
        let mut object = ptr::null_mut();
        // SAFETY: COM is started in this thread, and there is room for the answer.
        check("CreateVssBackupComponents", unsafe { (com.api.create)(&raw mut object) })?;
        let object = NonNull::new(object).ok_or(Failed { call: "CreateVssBackupComponents", code: NOT_THERE })?;
        let backup = Self { object, ended: false, com };
        let (this, table) = (backup.this(), backup.table());
        // SAFETY: the object lives; no document is handed over.
        check("InitializeForBackup", unsafe { (table.initialize_for_backup)(this, ptr::null()) })?;
        // SAFETY: the object lives.
        check("SetContext", unsafe { (table.set_context)(this, CONTEXT_BACKUP) })?;
        // Whole volumes: nothing is selected, and what the system boots from is among them.
        // SAFETY: the object lives.
        check("SetBackupState", unsafe { (table.set_backup_state)(this, 0, 1, BACKUP_TYPE_COPY, 0) })?;
        backup.run("GatherWriterMetadata", table.gather_writer_metadata)?;
        // SAFETY: the object lives. What the programs told is not needed, and freed or not it goes with the object.
        unsafe { (table.free_writer_metadata)(this) };
        Ok(backup)
    }

    fn this(&self) -> *mut Object {
        self.object.as_ptr()
    }

    fn table(&self) -> &Table {
        // SAFETY: the object lives for as long as this does, and its table for as long as the process.
        unsafe { &*self.object.as_ref().table }
    }

    /// Makes a call that begins something, and waits until that is done.
    fn run(&self, call: &'static str, begin: Begin) -> Called {
        let mut running = ptr::null_mut();
        // SAFETY: the object lives, and there is room for the answer.
        check(call, unsafe { begin(self.this(), &raw mut running) })?;
        let Some(running) = NonNull::new(running) else { return Ok(()) };
        let done = wait(call, running);
        // SAFETY: it is ours, and not used afterwards.
        unsafe { ((*running.as_ref().table).release)(running.as_ptr()) };
        done
    }

    /// Says whether the service can copy a volume; its name ends with a `\`.
    pub(super) fn supports(&self, volume: &str) -> Called<bool> {
        let (name, mut supported) = (wide(volume), 0);
        // SAFETY: the name ends with a zero and lives through the call, and there is room for the answer.
        let code =
            unsafe { (self.table().is_volume_supported)(self.this(), NO_PROVIDER, name.as_ptr(), &raw mut supported) };
        check("IsVolumeSupported", code).map(|()| supported != 0)
    }

    /// Begins a set of copies of one moment.
    pub(super) fn start_set(&self) -> Called {
        let mut set = NO_PROVIDER;
        // SAFETY: the object lives, and there is room for the answer.
        check("StartSnapshotSet", unsafe { (self.table().start_snapshot_set)(self.this(), &raw mut set) })
    }

    /// Adds a volume to the set; its name ends with a `\`. Returns the id of its copy.
    pub(super) fn add(&self, volume: &str) -> Called<GUID> {
        let (name, mut id) = (wide(volume), NO_PROVIDER);
        // SAFETY: the name ends with a zero and lives through the call, and there is room for the answer.
        let code = unsafe { (self.table().add_to_snapshot_set)(self.this(), name.as_ptr(), NO_PROVIDER, &raw mut id) };
        check("AddToSnapshotSet", code).map(|()| id)
    }

    /// Has programs bring their files into order, and makes the copies.
    pub(super) fn make(&self) -> Called {
        self.run("PrepareForBackup", self.table().prepare_for_backup)?;
        self.run("DoSnapshotSet", self.table().do_snapshot_set)
    }

    /// How it went with each program.
    pub(super) fn writers(&self) -> Called<Vec<Writer>> {
        let (this, table) = (self.this(), self.table());
        self.run("GatherWriterStatus", table.gather_writer_status)?;
        let mut count = 0;
        // SAFETY: the object lives, and there is room for the answer.
        check("GetWriterStatusCount", unsafe { (table.get_writer_status_count)(this, &raw mut count) })?;
        let mut writers = Vec::new();
        for index in 0..count {
            let (mut instance, mut writer, mut name) = (NO_PROVIDER, NO_PROVIDER, ptr::null_mut());
            let (mut state, mut failure) = (0, 0);
            // SAFETY: the object lives, and there is room for each answer.
            let code = unsafe {
                (table.get_writer_status)(
                    this,
                    index,
                    &raw mut instance,
                    &raw mut writer,
                    &raw mut name,
                    &raw mut state,
                    &raw mut failure,
                )
            };
            check("GetWriterStatus", code)?;
            // SAFETY: the service's text has a zero behind it.
            writers.push(Writer { name: unsafe { text_at(name) }, state, failure });
            // SAFETY: the text is ours, and not used afterwards; null is allowed.
            unsafe { (self.com.api.free_text)(name) };
        }
        // SAFETY: the object lives.
        unsafe { (table.free_writer_status)(this) };
        Ok(writers)
    }

    /// The device that is the copy with this id.
    pub(super) fn device(&self, copy: GUID) -> Called<PathBuf> {
        // SAFETY: zeros are null pointers and numbers.
        let mut properties = unsafe { std::mem::zeroed::<SnapshotProperties>() };
        // SAFETY: the object lives, and there is room for the answer.
        let code = unsafe { (self.table().get_snapshot_properties)(self.this(), copy, &raw mut properties) };
        check("GetSnapshotProperties", code)?;
        // SAFETY: the service's text has a zero behind it.
        let device = unsafe { text_at(properties.device_object) };
        // SAFETY: the service filled it, and it is not used afterwards.
        unsafe { (self.com.api.free_properties)(&raw mut properties) };
        if device.is_empty() {
            return Err(Failed { call: "GetSnapshotProperties", code: NOT_THERE });
        }
        Ok(device.into())
    }

    /// Tells the programs that their files were kept.
    pub(super) fn complete(mut self) -> Called {
        self.ended = true;
        self.run("BackupComplete", self.table().backup_complete)
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        let (this, table) = (self.this(), self.table());
        // SAFETY: the object lives; it is not used after it was released, which removes its copies. A backup that has not begun cannot be
        // given up, which the service says and does no harm.
        unsafe {
            if !self.ended {
                (table.abort_backup)(this);
            }
            (table.release)(this);
        }
    }
}

/// Waits until what was begun is done.
fn wait(call: &'static str, running: NonNull<AsyncObject>) -> Called {
    let this = running.as_ptr();
    // SAFETY: the object lives until it is released, and its table for as long as the process.
    let table = unsafe { &*running.as_ref().table };
    let started = Instant::now();
    loop {
        // SAFETY: the object lives.
        check(call, unsafe { (table.wait)(this, WAIT_MILLISECONDS) })?;
        let mut code = OK;
        // SAFETY: the object lives, and there is room for the answer.
        check(call, unsafe { (table.query_status)(this, &raw mut code, ptr::null_mut()) })?;
        match code {
            FINISHED => return Ok(()),
            PENDING if started.elapsed() < PATIENCE => {}
            PENDING => {
                // SAFETY: the object lives.
                unsafe { (table.cancel)(this) };
                return Err(Failed { call, code });
            }
            code => {
                check(call, code)?;
                // Cancelled, by whom we do not know.
                return Err(Failed { call, code });
            }
        }
    }
}
