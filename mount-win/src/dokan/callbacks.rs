//! The functions that Dokan calls: raw pointers in, safe operations behind.
//!
//! Every one of them may be called by several threads at once. None lets a panic out: it becomes a status and a line in the log.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::dokan::library::Library;
use crate::information::Information;
use crate::keep_alive::KeepAlive;
use crate::layout::{Callbacks, FileInfo, FileInformation, FillFindData, FillStreamData, FindData, StreamData};
use crate::operations::Operations;
use crate::status::Status;

/// Milliseconds that a call may take before the driver gives it up.
pub(super) const TIMEOUT: u32 = 60_000;
/// Seconds after which, and every so often, a running call gets as many milliseconds again.
const EXTEND_SECONDS: u64 = 10;
/// Longest path of Windows, in units.
const MAX_PATH_UNITS: usize = 32_768;

/// A call that Dokan waits for.
#[derive(Debug)]
struct Call(*mut FileInfo);

// SAFETY: the pointer is only handed to `DokanResetTimeout`, which may be called by any thread.
unsafe impl Send for Call {}

/// What the callbacks need; its address is the drive's global context.
pub(super) struct Served {
    pub(super) operations: Operations,
    keep_alive: KeepAlive<Call>,
}

impl Served {
    pub(super) fn start(operations: Operations, library: Arc<Library>) -> std::io::Result<Self> {
        let interval = std::time::Duration::from_secs(EXTEND_SECONDS);
        let keep_alive = KeepAlive::start(interval, move |call: &Call| {
            // SAFETY: Dokan keeps the structure until the callback returns, and that waits until this call is off the list.
            unsafe { (library.reset_timeout)(TIMEOUT, call.0) };
        })?;
        Ok(Self { operations, keep_alive })
    }
}

/// The table that Dokan gets.
pub(super) const CALLBACKS: Callbacks = Callbacks {
    create: Some(create),
    cleanup: Some(cleanup),
    close: Some(close),
    read: Some(read),
    write: Some(write),
    flush: Some(flush),
    get_information: Some(get_information),
    find_files: Some(find_files),
    find_pattern: Some(find_pattern),
    set_attributes: Some(set_attributes),
    set_time: Some(set_time),
    delete_file: Some(change_path),
    delete_directory: Some(change_path),
    move_file: Some(move_file),
    set_end_of_file: Some(set_len),
    set_allocation_size: Some(set_room),
    lock: Some(lock),
    unlock: Some(lock),
    get_space: Some(get_space),
    get_volume: Some(get_volume),
    mounted: Some(mounted),
    unmounted: Some(unmounted),
    get_security: Some(get_security),
    set_security: Some(set_security),
    find_streams: Some(find_streams),
};

/// Runs what answers a call, on the list of calls that get more time, and without a panic getting out.
///
/// # Safety
///
/// `info` is what Dokan gave the callback, and [`Served`] lives until the drive is closed.
unsafe fn answer(info: *mut FileInfo, work: impl FnOnce(&Served) -> Result<(), Status>) -> i32 {
    // SAFETY: Dokan's structure names the options of the drive, and they name what serves it.
    let (served, has_driver) = unsafe {
        let found = info.as_ref().map(|info| (info.options.as_ref(), info.dokan_context != 0));
        found.unwrap_or((None, false))
    };
    let served: Option<*const Served> = served.map(|options| to_pointer(options.global_context));
    // SAFETY: as the caller says.
    let Some(served) = served.and_then(|served| unsafe { served.as_ref() }) else {
        return to_raw(Status::INVALID_PARAMETER);
    };
    // No driver waits for the answers to `Mounted` and `Unmounted`, and Dokan's library would look for its event at address 0.
    let running = has_driver.then(|| served.keep_alive.run(Call(info)));
    let answer = catch_unwind(AssertUnwindSafe(|| work(served))).unwrap_or_else(|_| {
        (served.operations.log())("a call failed: a bug in hikae, please report it");
        Err(Status::INTERNAL_ERROR)
    });
    drop(running);
    to_raw(answer.err().unwrap_or(Status::SUCCESS))
}

/// The number of a status as Windows has it: signed.
fn to_raw(status: Status) -> i32 {
    status.0.cast_signed()
}

fn to_pointer(address: u64) -> *const Served {
    std::ptr::with_exposed_provenance(usize::try_from(address).unwrap_or(0))
}

/// The number that [`create`] wrote.
///
/// # Safety
///
/// `info` is null or what Dokan gave the callback.
unsafe fn handle(info: *mut FileInfo) -> u64 {
    // SAFETY: as the caller says.
    unsafe { info.as_ref() }.map_or(0, |info| info.context)
}

/// The units of a string that ends with a NUL; none for a null pointer.
///
/// # Safety
///
/// `text` is null or ends with a NUL, and stays as it is.
unsafe fn units<'a>(text: *const u16) -> &'a [u16] {
    if text.is_null() {
        return &[];
    }
    let mut len = 0_usize;
    // SAFETY: the NUL was not reached yet, so the next unit is there.
    while len < MAX_PATH_UNITS && unsafe { *text.add(len) } != 0 {
        len = len.saturating_add(1);
    }
    // SAFETY: so many units were just read.
    unsafe { std::slice::from_raw_parts(text, len) }
}

/// Writes through a pointer that may be null.
///
/// # Safety
///
/// `place` is null or can be written.
unsafe fn put<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: as the caller says.
        unsafe { place.write(value) };
    }
}

/// Copies units and a NUL, as far as there is room.
///
/// # Safety
///
/// `place` is null or has room for `room` units.
unsafe fn put_units(place: *mut u16, room: u32, text: &[u16]) {
    let room = usize::try_from(room).unwrap_or(0);
    if place.is_null() || room == 0 {
        return;
    }
    // SAFETY: as the caller says.
    let place = unsafe { std::slice::from_raw_parts_mut(place, room) };
    copy_units(place, text);
}

/// Copies units and a NUL; what has no room is cut off.
fn copy_units(place: &mut [u16], text: &[u16]) {
    let len = text.len().min(place.len().saturating_sub(1));
    for (to, from) in place.iter_mut().zip(text.iter().take(len).copied().chain([0])) {
        *to = from;
    }
}

/// Low half, high half.
fn halves(number: u64) -> [u32; 2] {
    let low = u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0);
    [low, u32::try_from(number >> 32).unwrap_or(0)]
}

fn whole(halves: [u32; 2]) -> u64 {
    u64::from(halves[1]) << 32 | u64::from(halves[0])
}

unsafe extern "system" fn create(
    path: *const u16,
    _: *const c_void,
    access: u32,
    _: u32,
    _: u32,
    disposition: u32,
    options: u32,
    info: *mut FileInfo,
) -> i32 {
    let mut existed = false;
    // SAFETY: the arguments are Dokan's.
    let status = unsafe {
        answer(info, |served| {
            let opened = served.operations.create(units(path), access, disposition, options);
            if let Some(info) = info.as_mut() {
                info.context = opened.map_or(0, |opened| opened.handle);
                if let Ok(opened) = opened {
                    info.is_directory = u8::from(opened.is_folder);
                    existed = opened.might_have_created;
                }
            }
            opened.map(|_| ())
        })
    };
    // Dokan wants to hear so that the file was there already; it takes it for a success.
    if status == 0 && existed { to_raw(Status::OBJECT_NAME_COLLISION) } else { status }
}

unsafe extern "system" fn cleanup(_: *const u16, info: *mut FileInfo) {
    // SAFETY: the arguments are Dokan's. There is nobody to hear of a failure.
    unsafe { answer(info, |served| served.operations.cleanup(handle(info))) };
}

unsafe extern "system" fn close(_: *const u16, info: *mut FileInfo) {
    // SAFETY: the arguments are Dokan's. There is nobody to hear of a failure.
    unsafe {
        answer(info, |served| {
            let closed = served.operations.close(handle(info));
            if let Some(info) = info.as_mut() {
                info.context = 0;
            }
            closed
        })
    };
}

unsafe extern "system" fn read(
    _: *const u16,
    buffer: *mut c_void,
    len: u32,
    done: *mut u32,
    offset: i64,
    info: *mut FileInfo,
) -> i32 {
    // SAFETY: the arguments are Dokan's; the buffer has `len` bytes and is ours until we return.
    unsafe {
        answer(info, |served| {
            put(done, 0);
            let buffer = match usize::try_from(len) {
                Ok(0) => &mut [],
                Ok(len) if !buffer.is_null() => std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len),
                _ => return Err(Status::INVALID_PARAMETER),
            };
            let read = served.operations.read(handle(info), buffer, offset)?;
            put(done, u32::try_from(read).unwrap_or(0));
            Ok(())
        })
    }
}

unsafe extern "system" fn flush(_: *const u16, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { answer(info, |served| served.operations.flush(handle(info))) }
}

unsafe extern "system" fn lock(_: *const u16, _: i64, _: i64, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { answer(info, |served| served.operations.lock(handle(info))) }
}

unsafe extern "system" fn get_information(_: *const u16, place: *mut FileInformation, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe {
        answer(info, |served| {
            let found = served.operations.information(handle(info))?;
            let ([len_low, len_high], [index_low, index_high]) = (halves(found.len), halves(found.index));
            let information = FileInformation {
                attributes: found.attributes,
                created: halves(found.created),
                accessed: halves(found.accessed),
                written: halves(found.written),
                serial: served.operations.volume().serial,
                len_high,
                len_low,
                links: found.links,
                index_high,
                index_low,
            };
            put(place, information);
            Ok(())
        })
    }
}

fn find_data(name: &[u16], found: &Information) -> FindData {
    let [len_low, len_high] = halves(found.len);
    let mut data = FindData {
        attributes: found.attributes,
        created: halves(found.created),
        accessed: halves(found.accessed),
        written: halves(found.written),
        len_high,
        len_low,
        tag: found.tag,
        reserved: 0,
        name: [0; 260],
        short_name: [0; 14],
    };
    copy_units(&mut data.name, name);
    data
}

/// Lists a folder into `fill`.
///
/// # Safety
///
/// The arguments are those of a callback.
unsafe fn list(pattern: Option<&[u16]>, fill: FillFindData, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's; it copies what it is given.
    unsafe {
        answer(info, |served| {
            served.operations.find_files(handle(info), pattern, &mut |found| {
                let data = find_data(&found.name, &found.information);
                fill(&raw const data, info) == 0
            })
        })
    }
}

unsafe extern "system" fn find_files(_: *const u16, fill: FillFindData, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { list(None, fill, info) }
}

unsafe extern "system" fn find_pattern(
    _: *const u16,
    pattern: *const u16,
    fill: FillFindData,
    info: *mut FileInfo,
) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe {
        let pattern = units(pattern);
        list((!pattern.is_empty()).then_some(pattern), fill, info)
    }
}

unsafe extern "system" fn find_streams(
    _: *const u16,
    fill: FillStreamData,
    context: *mut c_void,
    info: *mut FileInfo,
) -> i32 {
    // SAFETY: the arguments are Dokan's; it copies what it is given.
    unsafe {
        answer(info, |served| {
            let mut has_room = true;
            served.operations.find_streams(handle(info), &mut |found| {
                let mut data = StreamData { len: i64::try_from(found.len).unwrap_or(i64::MAX), name: [0; 296] };
                copy_units(&mut data.name, &found.name);
                has_room = fill(&raw const data, context) != 0;
                has_room
            })?;
            if has_room { Ok(()) } else { Err(Status::BUFFER_OVERFLOW) }
        })
    }
}

unsafe extern "system" fn get_space(available: *mut u64, total: *mut u64, free: *mut u64, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe {
        answer(info, |served| {
            let [usable, all, unused] = served.operations.free_space()?;
            put(available, usable);
            put(total, all);
            put(free, unused);
            Ok(())
        })
    }
}

unsafe extern "system" fn get_volume(
    label: *mut u16,
    label_room: u32,
    serial: *mut u32,
    max_name: *mut u32,
    flags: *mut u32,
    filesystem: *mut u16,
    filesystem_room: u32,
    info: *mut FileInfo,
) -> i32 {
    // SAFETY: the arguments are Dokan's; the rooms are what it says.
    unsafe {
        answer(info, |served| {
            let volume = served.operations.volume();
            put_units(label, label_room, &volume.label);
            put_units(filesystem, filesystem_room, &volume.filesystem.encode_utf16().collect::<Vec<_>>());
            put(serial, volume.serial);
            put(max_name, volume.max_name);
            put(flags, volume.flags);
            Ok(())
        })
    }
}

unsafe extern "system" fn mounted(_: *const u16, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { answer(info, |_| Ok(())) }
}

unsafe extern "system" fn unmounted(info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { answer(info, |_| Ok(())) }
}

unsafe extern "system" fn get_security(
    _: *const u16,
    wanted: *const u32,
    buffer: *mut c_void,
    len: u32,
    needed: *mut u32,
    info: *mut FileInfo,
) -> i32 {
    // SAFETY: the arguments are Dokan's; the buffer has `len` bytes.
    unsafe {
        answer(info, |served| {
            let wanted = wanted.as_ref().copied().unwrap_or(0);
            let descriptor = served.operations.security(handle(info), wanted)?;
            put(needed, u32::try_from(descriptor.len()).unwrap_or(u32::MAX));
            let room = usize::try_from(len).unwrap_or(0);
            if buffer.is_null() || room < descriptor.len() {
                return Err(Status::BUFFER_OVERFLOW);
            }
            buffer.cast::<u8>().copy_from_nonoverlapping(descriptor.as_ptr(), descriptor.len());
            Ok(())
        })
    }
}

/// The answer to everything that would change a name or its rights.
///
/// # Safety
///
/// `info` is what Dokan gave the callback.
unsafe fn change(info: *mut FileInfo) -> i32 {
    // SAFETY: as the caller says.
    unsafe { answer(info, |served| Err(served.operations.change())) }
}

unsafe extern "system" fn write(
    _: *const u16,
    buffer: *const c_void,
    len: u32,
    done: *mut u32,
    offset: i64,
    info: *mut FileInfo,
) -> i32 {
    // SAFETY: the arguments are Dokan's; the buffer has `len` bytes and stays as it is until we return.
    unsafe {
        answer(info, |served| {
            put(done, 0);
            let bytes = match usize::try_from(len) {
                Ok(0) => &[],
                Ok(len) if !buffer.is_null() => std::slice::from_raw_parts(buffer.cast::<u8>(), len),
                _ => return Err(Status::INVALID_PARAMETER),
            };
            let how = info.as_ref().map_or((0, 0), |info| (info.write_to_end_of_file, info.paging_io));
            let offset = if how.0 == 0 { Some(offset) } else { None };
            let written = served.operations.write(handle(info), bytes, offset, how.1 != 0)?;
            put(done, u32::try_from(written).unwrap_or(0));
            Ok(())
        })
    }
}

unsafe extern "system" fn set_attributes(_: *const u16, attributes: u32, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { answer(info, |served| served.operations.set_attributes(handle(info), attributes)) }
}

unsafe extern "system" fn set_time(
    _: *const u16,
    created: *const [u32; 2],
    accessed: *const [u32; 2],
    written: *const [u32; 2],
    info: *mut FileInfo,
) -> i32 {
    // SAFETY: the arguments are Dokan's: times, or null for one that stays.
    unsafe {
        answer(info, |served| {
            let time = |time: *const [u32; 2]| time.as_ref().map_or(0, |halves| whole(*halves).cast_signed());
            served.operations.set_times(handle(info), [time(created), time(accessed), time(written)])
        })
    }
}

unsafe extern "system" fn change_path(_: *const u16, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { change(info) }
}

unsafe extern "system" fn move_file(_: *const u16, _: *const u16, _: i32, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { change(info) }
}

unsafe extern "system" fn set_len(_: *const u16, len: i64, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { answer(info, |served| served.operations.set_len(handle(info), len)) }
}

unsafe extern "system" fn set_room(_: *const u16, len: i64, info: *mut FileInfo) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { answer(info, |served| served.operations.set_room(handle(info), len)) }
}

unsafe extern "system" fn set_security(
    _: *const u16,
    _: *const u32,
    _: *mut c_void,
    _: u32,
    info: *mut FileInfo,
) -> i32 {
    // SAFETY: the arguments are Dokan's.
    unsafe { change(info) }
}
