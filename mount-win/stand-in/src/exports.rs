//! The functions of Dokan's library that a filesystem calls, of Dokan 2's `dokan.h`.
//!
//! What is to be run, and where the report goes, is said by two variables: `HIKAE_STAND_IN_REPORT`, a file that is written when all has run
//! (first as `.part`), and `HIKAE_STAND_IN_RANDOM`, for the folder below which random sequences are made (a path from the root of the drive). Where there is
//! `HIKAE_STAND_IN_DISK`, a file with the content of the disk, the files of the disk are written to instead. `HIKAE_STAND_IN_START` is a failure with which no drive is made,
//! and `HIKAE_STAND_IN_BYTES` a number of bytes that are written to the disk and not flushed, instead of all else.

use std::ffi::c_void;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use mount_win::layout::{Callbacks, FileInfo, Options};

use crate::calls::{Calls, units};
use crate::mixed::Mixed;
use crate::programs;
use crate::random::{Model, give_up};
use crate::raw::Raw;
use crate::walk::{Seen, walk};
use crate::writes;

/// Random sequences of each thread.
const SEQUENCES: u64 = 2_500;
/// Writes to a disk that takes them.
const WRITES: u64 = 2_000;
/// Steps of mixed sequences to such a disk: of one thread alone, then of as many threads together.
const STEPS: u64 = 4_000;
/// Threads with random sequences.
const THREADS: u64 = 4;

static IS_READY: AtomicBool = AtomicBool::new(false);
static RESETS: AtomicU32 = AtomicU32::new(0);
/// The drive that is there.
static DRIVE: Mutex<Option<Arc<Drive>>> = Mutex::new(None);

/// A drive.
struct Drive {
    raw: Raw,
    /// It was taken away.
    is_gone: Mutex<bool>,
    gone: Condvar,
    driver: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// `DokanInit`.
#[unsafe(no_mangle)]
extern "system" fn DokanInit() {
    assert!(!IS_READY.swap(true, Ordering::SeqCst));
}

/// `DokanShutdown`.
#[unsafe(no_mangle)]
extern "system" fn DokanShutdown() {
    assert!(IS_READY.swap(false, Ordering::SeqCst));
}

/// `DokanVersion`: 2.1.0, or what `HIKAE_STAND_IN_VERSION` says.
#[unsafe(no_mangle)]
extern "system" fn DokanVersion() -> u32 {
    std::env::var("HIKAE_STAND_IN_VERSION").map_or(210, |version| version.parse().unwrap())
}

/// `DokanDriverVersion`: that of 2.0.6, or what `HIKAE_STAND_IN_DRIVER` says.
#[unsafe(no_mangle)]
extern "system" fn DokanDriverVersion() -> u32 {
    std::env::var("HIKAE_STAND_IN_DRIVER").map_or(0x190, |version| version.parse().unwrap())
}

/// `DokanResetTimeout`.
///
/// # Safety
///
/// `info` is what a callback got.
#[unsafe(no_mangle)]
unsafe extern "system" fn DokanResetTimeout(timeout: u32, info: *mut FileInfo) -> i32 {
    // SAFETY: as the caller says.
    assert!(timeout > 0 && unsafe { (*info).dokan_context } == 1);
    RESETS.fetch_add(1, Ordering::Relaxed);
    1
}

/// `DokanCreateFileSystem`: makes the drive and starts to use it.
///
/// # Safety
///
/// The pointers are what Dokan's header demands, until [`DokanCloseHandle`].
#[unsafe(no_mangle)]
unsafe extern "system" fn DokanCreateFileSystem(
    options: *mut Options,
    callbacks: *const Callbacks,
    instance: *mut *mut c_void,
) -> i32 {
    assert!(IS_READY.load(Ordering::SeqCst));
    // SAFETY: as the caller says.
    let seen = unsafe { &*options };
    if seen.version < 200 {
        return -7;
    }
    if let Ok(code) = std::env::var("HIKAE_STAND_IN_START") {
        return code.parse().unwrap();
    }
    // Streams, and protection from writing where no file takes writes.
    let writes = ["HIKAE_STAND_IN_DISK", "HIKAE_STAND_IN_BYTES"];
    let protect = if writes.iter().any(|name| std::env::var_os(name).is_some()) { 0 } else { 8 };
    assert_eq!(seen.options & 0xc, 4 | protect);
    // SAFETY: a path with a NUL.
    let point = unsafe { std::slice::from_raw_parts(seen.mount_point, 4) };
    if point[..3] == [0x51, 0x3a, 0x5c] {
        // "Q:\" is taken.
        return -5;
    }
    let raw = Raw { options, callbacks };
    let drive = Arc::new(Drive { raw, is_gone: Mutex::new(false), gone: Condvar::new(), driver: Mutex::new(None) });
    drive.raw.tell_mounted(true);
    let used = Arc::clone(&drive);
    *drive.driver.lock().unwrap() = Some(std::thread::spawn(move || report(&used.raw)));
    // SAFETY: as the caller says. The address is only compared.
    unsafe { instance.write(Arc::as_ptr(&drive).cast_mut().cast()) };
    *DRIVE.lock().unwrap() = Some(drive);
    0
}

fn drive(instance: *mut c_void) -> Arc<Drive> {
    let drive = DRIVE.lock().unwrap().clone().unwrap();
    assert_eq!(Arc::as_ptr(&drive).cast_mut().cast(), instance);
    drive
}

/// `DokanWaitForFileSystemClosed`.
#[unsafe(no_mangle)]
extern "system" fn DokanWaitForFileSystemClosed(instance: *mut c_void, timeout: u32) -> u32 {
    assert_eq!(timeout, u32::MAX);
    let drive = drive(instance);
    let mut is_gone = drive.is_gone.lock().unwrap();
    while !*is_gone {
        is_gone = drive.gone.wait(is_gone).unwrap();
    }
    0
}

/// `DokanRemoveMountPoint`.
#[unsafe(no_mangle)]
extern "system" fn DokanRemoveMountPoint(_point: *const u16) -> i32 {
    let Some(drive) = DRIVE.lock().unwrap().clone() else { return 0 };
    *drive.is_gone.lock().unwrap() = true;
    drive.gone.notify_all();
    1
}

/// `DokanCloseHandle`: waits for the calls that run.
#[unsafe(no_mangle)]
extern "system" fn DokanCloseHandle(instance: *mut c_void) {
    let drive = drive(instance);
    DokanRemoveMountPoint(std::ptr::null());
    let driver = drive.driver.lock().unwrap().take().unwrap();
    driver.join().unwrap();
    drive.raw.tell_mounted(false);
    *DRIVE.lock().unwrap() = None;
}

/// Runs everything and writes what came of it.
fn report(raw: &Raw) {
    let Some(file) = std::env::var_os("HIKAE_STAND_IN_REPORT") else { return };
    let text = catch_unwind(AssertUnwindSafe(|| run(raw))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        format!("FAILED {}\n", said.unwrap_or_default())
    });
    let mut part = file.clone();
    part.push(".part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(part, file).unwrap();
}

fn run(raw: &Raw) -> String {
    if let Some(file) = std::env::var_os("HIKAE_STAND_IN_DISK") {
        return write(raw, std::path::Path::new(&file));
    }
    if let Ok(len) = std::env::var("HIKAE_STAND_IN_BYTES") {
        writes::write_and_leave(raw, &units("\\disk.raw"), len.parse().unwrap());
        return format!("DONE {len} bytes\n");
    }
    let below = std::env::var("HIKAE_STAND_IN_RANDOM").unwrap();
    let seen = walk(raw, |_| true);
    let mut text = String::new();
    for line in seen.iter().flat_map(Seen::lines) {
        writeln!(text, "{line}").unwrap();
    }
    programs::run(raw, &seen);
    let inside = |seen: &&Seen| String::from_utf16_lossy(&seen.path).starts_with(&below);
    let some: Vec<Seen> = seen.iter().filter(inside).cloned().collect();
    assert!(!some.is_empty(), "nothing lies below {below}");
    Model::learn(raw, &some).run(raw, THREADS, SEQUENCES);
    give_up(raw, &some, 300);
    writeln!(text, "DONE {} sequences", THREADS * SEQUENCES).unwrap();
    text
}

/// Writes to the disk whose content lies in a file, and leaves in the file what it is then.
fn write(raw: &Raw, file: &std::path::Path) -> String {
    let base = std::fs::read(file).unwrap();
    let (_, _, _, flags, _) = raw.volume().unwrap();
    // `FILE_READ_ONLY_VOLUME`.
    assert_eq!(flags & 0x0008_0000, 0);
    programs::virtualbox_writes(raw, &units("\\"));
    let mut mixed = Mixed::learn(raw, &walk(raw, |_| false), base);
    mixed.run(raw, 11, 1, STEPS);
    mixed.run(raw, 12, THREADS as usize, STEPS / THREADS);
    mixed.check(raw);
    let (root, mut model) = (units("\\"), mixed.disk().to_vec());
    writes::write_and_read(raw, &root, &mut model, 1, WRITES);
    writes::append_together(raw, &root);
    writes::refused_and_taken(raw, &root, model.len() as u64);
    let end = model.len() - 512;
    model[end..].fill(7);
    std::fs::write(file, model).unwrap();
    format!("DONE {} steps, {WRITES} writes\n", 2 * STEPS)
}
