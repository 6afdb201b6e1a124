//! A file in memory whose cache forgets: what was not synced may or may not survive the plug being pulled, sector by sector.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use imgfmt::overlay::Storage;

use crate::conformance::Random;

const SECTOR: usize = 512;

#[derive(Default)]
struct State {
    seen: Vec<u8>,
    medium: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// Operations that still succeed, where that is limited; then all fail.
    left: Option<u64>,
    /// Only syncs fail.
    sync_fails: bool,
    /// How often it was read.
    reads: u64,
    /// Bytes that it can hold, where that is limited.
    room: Option<usize>,
}

/// The file.
#[derive(Clone, Default)]
pub(crate) struct VolatileStorage(Arc<Mutex<State>>);

impl VolatileStorage {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let state = State { medium: bytes.clone(), seen: bytes, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Lets this many writes and syncs succeed, and none after them.
    pub(crate) fn pull_the_plug_after(&self, operations: u64) {
        self.0.lock().unwrap().left = Some(operations);
    }

    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.0.lock().unwrap().sync_fails = fail;
    }

    /// Lets it hold so many bytes more than it has, or as many as it likes.
    pub(crate) fn limit(&self, more: Option<usize>) {
        let mut state = self.0.lock().unwrap();
        state.room = more.map(|more| state.seen.len() + more);
    }

    /// What is left after the plug was pulled: what was synced, and of the rest a random part.
    pub(crate) fn after_the_plug(&self, random: &mut Random) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut left = state.medium.clone();
        if random.below(2) == 0 {
            left.resize(state.seen.len(), 0);
        }
        for sector in &state.dirty {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(state.seen.len());
            if random.below(2) == 0 {
                if left.len() < range.end {
                    left.resize(range.end, 0);
                }
                left[range.clone()].copy_from_slice(&state.seen[range]);
            }
        }
        left
    }

    pub(crate) fn reads(&self) -> u64 {
        self.0.lock().unwrap().reads
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().seen.clone()
    }

    fn step(state: &mut State) -> io::Result<()> {
        match &mut state.left {
            Some(0) => Err(io::Error::from_raw_os_error(imgfmt::error::UNREADABLE_SECTOR)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Storage for VolatileStorage {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.reads += 1;
        let offset = offset as usize;
        let from = state.seen.get(offset..offset + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        Self::step(&mut state)?;
        let offset = offset as usize;
        let end = offset + bytes.len();
        if state.room.is_some_and(|room| end > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.seen.len() < end {
            state.seen.resize(end, 0);
        }
        state.seen[offset..end].copy_from_slice(bytes);
        state.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        Self::step(&mut state)?;
        if state.sync_fails {
            return Err(io::Error::from_raw_os_error(imgfmt::error::UNREADABLE_SECTOR));
        }
        let State { seen, medium, dirty, .. } = &mut *state;
        medium.resize(seen.len(), 0);
        for sector in std::mem::take(dirty) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(seen.len());
            medium[range.clone()].copy_from_slice(&seen[range]);
        }
        Ok(())
    }

    fn name(&self) -> String {
        "a file made by a test".to_owned()
    }
}
