//! Calls through the table of functions that a filesystem gave, as Dokan makes them.

use std::ffi::c_void;

use mount_win::layout::{Callbacks, FileInfo, FileInformation, FindData, Options, StreamData};

use crate::calls::{Answer, Calls, Change, Entry, Known, Open, Volume, status};

/// A filesystem as Dokan has it.
pub(crate) struct Raw {
    pub(crate) options: *const Options,
    pub(crate) callbacks: *const Callbacks,
}

// SAFETY: both structures stay as they are until the drive is closed, and callbacks may be called by any thread.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

fn wide(units: &[u16]) -> Vec<u16> {
    units.iter().copied().chain([0]).collect()
}

fn answer(status: i32) -> Answer<()> {
    if status == 0 { Ok(()) } else { Err(status.cast_unsigned()) }
}

fn text(units: &[u16]) -> Vec<u16> {
    units.iter().copied().take_while(|unit| *unit != 0).collect()
}

fn number(halves: [u32; 2]) -> u64 {
    u64::from(halves[1]) << 32 | u64::from(halves[0])
}

fn times(created: [u32; 2], accessed: [u32; 2], written: [u32; 2]) -> [u64; 3] {
    [number(created), number(accessed), number(written)]
}

/// Takes an entry of a folder: Dokan's own keeps them in what `processing_context` points to.
unsafe extern "system" fn fill(data: *const FindData, info: *mut FileInfo) -> i32 {
    // SAFETY: `list` put a vector there, and the callback got its own structure.
    let (entries, data) = unsafe { (&mut *(*info).processing_context.cast::<Vec<Entry>>(), &*data) };
    entries.push(Entry {
        name: text(&data.name),
        attributes: data.attributes,
        len: number([data.len_low, data.len_high]),
        times: times(data.created, data.accessed, data.written),
    });
    0
}

/// Takes a stream.
unsafe extern "system" fn fill_stream(data: *const StreamData, context: *mut c_void) -> i32 {
    // SAFETY: `streams` gave a vector, and the callback its own structure.
    let (streams, data) = unsafe { (&mut *context.cast::<Vec<(Vec<u16>, u64)>>(), &*data) };
    streams.push((text(&data.name), data.len as u64));
    1
}

impl Raw {
    fn info(&self, open: Option<&Open>) -> FileInfo {
        FileInfo {
            context: open.map_or(0, |open| open.context),
            dokan_context: 1,
            options: self.options,
            processing_context: std::ptr::null_mut(),
            process_id: std::process::id(),
            is_directory: open.map_or(0, |open| u8::from(open.is_folder)),
            delete_pending: 0,
            paging_io: 0,
            synchronous_io: 1,
            nocache: 0,
            write_to_end_of_file: 0,
        }
    }

    pub(crate) fn callbacks(&self) -> &Callbacks {
        // SAFETY: it stays until the drive is closed.
        unsafe { &*self.callbacks }
    }

    /// Tells the filesystem that its drive is there, or gone.
    pub(crate) fn tell_mounted(&self, is_there: bool) {
        // The library makes these calls by itself, for no event of the driver.
        let mut info = FileInfo { dokan_context: 0, ..self.info(None) };
        let point = [0x58, 0x3a, 0x5c, 0];
        // SAFETY: what a driver gives.
        let status = unsafe {
            match is_there {
                true => self.callbacks().mounted.unwrap()(point.as_ptr(), &raw mut info),
                false => self.callbacks().unmounted.unwrap()(&raw mut info),
            }
        };
        assert_eq!(status, 0);
    }
}

// SAFETY of all calls below: the arguments are what Dokan's driver gives: paths and patterns with a NUL, buffers of the length that is told, and a
// structure that stays until the call returns.
impl Calls for Raw {
    fn create(&self, path: &[u16], access: u32, disposition: u32, options: u32) -> Answer<Open> {
        let mut info = self.info(None);
        info.is_directory = u8::from(options & 1 != 0);
        let path = wide(path);
        let create = self.callbacks().create.unwrap();
        // SAFETY: see above; a security context is not looked at.
        let status =
            unsafe { create(path.as_ptr(), std::ptr::null(), access, 0x80, 7, disposition, options, &raw mut info) };
        // As Dokan's library takes it: success where the disposition would have created (supersede, open if, overwrite if).
        let existed = status.cast_unsigned() == status::OBJECT_NAME_COLLISION && matches!(disposition, 0 | 3 | 5);
        if !existed {
            let opened = answer(status);
            assert_eq!(opened.is_ok(), info.context != 0, "a failed call leaves no context, and any other one does");
            opened?;
        }
        Ok(Open { context: info.context, is_folder: info.is_directory != 0, existed })
    }

    fn cleanup(&self, open: &Open) {
        let mut info = self.info(Some(open));
        // SAFETY: see above.
        unsafe { self.callbacks().cleanup.unwrap()([0x5c, 0].as_ptr(), &raw mut info) };
    }

    fn close(&self, open: &Open) {
        let mut info = self.info(Some(open));
        // SAFETY: see above.
        unsafe { self.callbacks().close.unwrap()([0x5c, 0].as_ptr(), &raw mut info) };
        assert_eq!(info.context, 0, "a closed file leaves no context");
    }

    fn read(&self, open: &Open, len: usize, offset: i64) -> Answer<Vec<u8>> {
        let mut info = self.info(Some(open));
        let mut bytes = vec![0xa5; len];
        let mut done = u32::MAX;
        let (buffer, room) = (bytes.as_mut_ptr().cast(), len as u32);
        // SAFETY: see above.
        answer(unsafe {
            self.callbacks().read.unwrap()([0x5c, 0].as_ptr(), buffer, room, &raw mut done, offset, &raw mut info)
        })?;
        assert!(done as usize <= len);
        bytes.truncate(done as usize);
        Ok(bytes)
    }

    fn flush(&self, open: &Open) -> Answer<()> {
        let mut info = self.info(Some(open));
        // SAFETY: see above.
        answer(unsafe { self.callbacks().flush.unwrap()([0x5c, 0].as_ptr(), &raw mut info) })
    }

    fn information(&self, open: &Open) -> Answer<Known> {
        let mut info = self.info(Some(open));
        let mut found = FileInformation::default();
        // SAFETY: see above.
        answer(unsafe {
            self.callbacks().get_information.unwrap()([0x5c, 0].as_ptr(), &raw mut found, &raw mut info)
        })?;
        Ok(Known {
            attributes: found.attributes,
            len: number([found.len_low, found.len_high]),
            times: times(found.created, found.accessed, found.written),
            index: number([found.index_low, found.index_high]),
            links: found.links,
        })
    }

    fn list(&self, open: &Open, pattern: Option<&[u16]>) -> Answer<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut info = self.info(Some(open));
        info.processing_context = (&raw mut entries).cast();
        let path = [0x5c, 0];
        // SAFETY: see above.
        let status = unsafe {
            match pattern {
                Some(pattern) => {
                    let pattern = wide(pattern);
                    self.callbacks().find_pattern.unwrap()(path.as_ptr(), pattern.as_ptr(), fill, &raw mut info)
                }
                None => self.callbacks().find_files.unwrap()(path.as_ptr(), fill, &raw mut info),
            }
        };
        answer(status).map(|()| entries)
    }

    fn streams(&self, open: &Open) -> Answer<Vec<(Vec<u16>, u64)>> {
        let mut streams: Vec<(Vec<u16>, u64)> = Vec::new();
        let mut info = self.info(Some(open));
        let context = (&raw mut streams).cast();
        // SAFETY: see above.
        answer(unsafe {
            self.callbacks().find_streams.unwrap()([0x5c, 0].as_ptr(), fill_stream, context, &raw mut info)
        })?;
        Ok(streams)
    }

    fn security(&self, open: &Open, wanted: u32) -> Answer<Vec<u8>> {
        let get = self.callbacks().get_security.unwrap();
        let mut info = self.info(Some(open));
        let mut needed = 0;
        // A program asks with a buffer that is too small first.
        // SAFETY: see above.
        let status = unsafe {
            get([0x5c, 0].as_ptr(), &raw const wanted, std::ptr::null_mut(), 0, &raw mut needed, &raw mut info)
        };
        if status.cast_unsigned() != 0x8000_0005 {
            answer(status)?;
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; needed as usize];
        let buffer = bytes.as_mut_ptr().cast();
        // SAFETY: see above.
        answer(unsafe { get([0x5c, 0].as_ptr(), &raw const wanted, buffer, needed, &raw mut needed, &raw mut info) })?;
        assert_eq!(needed as usize, bytes.len());
        Ok(bytes)
    }

    fn write(&self, open: &Open, bytes: &[u8], offset: Option<i64>, paging: bool) -> Answer<usize> {
        let mut info = self.info(Some(open));
        info.paging_io = u8::from(paging);
        info.write_to_end_of_file = u8::from(offset.is_none());
        let mut done = u32::MAX;
        let len = u32::try_from(bytes.len()).unwrap();
        let (path, buffer) = ([0x5c, 0x78, 0].as_ptr(), bytes.as_ptr().cast());
        // SAFETY: see above.
        answer(unsafe {
            self.callbacks().write.unwrap()(path, buffer, len, &raw mut done, offset.unwrap_or(-1), &raw mut info)
        })?;
        Ok(usize::try_from(done).unwrap())
    }

    fn set_len(&self, open: &Open, len: i64, is_allocation: bool) -> Answer<()> {
        let mut info = self.info(Some(open));
        let calls = self.callbacks();
        let set = if is_allocation { calls.set_allocation_size } else { calls.set_end_of_file };
        // SAFETY: see above.
        answer(unsafe { set.unwrap()([0x5c, 0x78, 0].as_ptr(), len, &raw mut info) })
    }

    fn change(&self, open: &Open, change: Change) -> Answer<()> {
        let mut info = self.info(Some(open));
        let info = &raw mut info;
        let calls = self.callbacks();
        let path = [0x5c, 0x78, 0].as_ptr();
        let mut done = 7;
        let parts = 4;
        let mut descriptor = [1_u8; 32];
        // SAFETY: see above.
        answer(unsafe {
            match change {
                Change::Write => calls.write.unwrap()(path, b"data".as_ptr().cast(), 4, &raw mut done, 0, info),
                Change::Attributes(attributes) => calls.set_attributes.unwrap()(path, attributes, info),
                Change::Times(times) => {
                    let [created, accessed, written] = times.map(|time| [time as u32, (time >> 32) as u32]);
                    calls.set_time.unwrap()(path, &raw const created, &raw const accessed, &raw const written, info)
                }
                Change::Delete if open.is_folder => calls.delete_directory.unwrap()(path, info),
                Change::Delete => calls.delete_file.unwrap()(path, info),
                Change::Move => calls.move_file.unwrap()(path, path, 1, info),
                Change::End => calls.set_end_of_file.unwrap()(path, 1, info),
                Change::Allocation => calls.set_allocation_size.unwrap()(path, 1, info),
                Change::Security => {
                    let descriptor = descriptor.as_mut_ptr().cast();
                    calls.set_security.unwrap()(path, &raw const parts, descriptor, 32, info)
                }
            }
        })
    }

    fn lock(&self, open: &Open, offset: i64, len: i64, is_end: bool) -> Answer<()> {
        let mut info = self.info(Some(open));
        let calls = self.callbacks();
        let call = if is_end { calls.unlock } else { calls.lock };
        // SAFETY: see above.
        answer(unsafe { call.unwrap()([0x5c, 0x78, 0].as_ptr(), offset, len, &raw mut info) })
    }

    fn space(&self) -> Answer<[u64; 3]> {
        let mut info = self.info(None);
        let [mut available, mut total, mut free] = [u64::MAX; 3];
        // SAFETY: see above.
        answer(unsafe {
            self.callbacks().get_space.unwrap()(&raw mut available, &raw mut total, &raw mut free, &raw mut info)
        })?;
        Ok([available, total, free])
    }

    fn volume(&self) -> Answer<Volume> {
        let mut info = self.info(None);
        let (mut label, mut filesystem) = ([0xffff_u16; 261], [0xffff_u16; 261]);
        let (mut serial, mut max_name, mut flags) = (0, 0, 0);
        // SAFETY: see above.
        answer(unsafe {
            self.callbacks().get_volume.unwrap()(
                label.as_mut_ptr(),
                261,
                &raw mut serial,
                &raw mut max_name,
                &raw mut flags,
                filesystem.as_mut_ptr(),
                261,
                &raw mut info,
            )
        })?;
        let string = |units: &[u16]| String::from_utf16(&text(units)).unwrap();
        Ok((string(&label), serial, max_name, flags, string(&filesystem)))
    }
}
