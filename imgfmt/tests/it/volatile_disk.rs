//! A target in memory with a cache that forgets: what was not flushed may or may not survive the plug being pulled, sector by sector.

use std::collections::BTreeSet;
use std::sync::Mutex;

use imgfmt::disk::check_range;
use imgfmt::target::InPlace;
use imgfmt::{Disk, Error, Extent, ExtentKind, Result, WritableDisk};

use crate::conformance::Random;

const SECTOR: usize = 512;

/// What happens at the operation that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and nothing of it is done.
    Error,
    /// It fails, and a part of it is done.
    Torn,
    /// The plug is pulled: it and everything after it fails.
    Plug,
}

#[derive(Default)]
struct State {
    /// What reads see.
    seen: Vec<u8>,
    /// What is on the medium for certain.
    medium: Vec<u8>,
    /// Sectors that were written and not flushed.
    dirty: BTreeSet<usize>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    unplugged: bool,
    written: u64,
}

/// The disk.
pub(crate) struct VolatileDisk {
    state: Mutex<State>,
    len: u64,
    /// Sectors whose writes are lost without an error: a failing medium.
    pub(crate) lossy: Mutex<BTreeSet<usize>>,
}

impl VolatileDisk {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        let state = State { medium: bytes.clone(), seen: bytes, ..State::default() };
        Self { state: Mutex::new(state), len, lossy: Mutex::default() }
    }

    /// Lets the operation with this number (from 1) fail.
    pub(crate) fn fail_at(&self, operation: u64, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.fault = Some((operation, fault));
        state.operations = 0;
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state.lock().unwrap().operations
    }

    /// Bytes written or made zero so far.
    pub(crate) fn written(&self) -> u64 {
        self.state.lock().unwrap().written
    }

    /// What is left after the plug was pulled: what was flushed, and of the rest a random part.
    pub(crate) fn after_the_plug(&self, random: &mut Random) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let mut left = state.medium.clone();
        for sector in &state.dirty {
            if random.below(2) == 0 {
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(left.len());
                left[range.clone()].copy_from_slice(&state.seen[range]);
            }
        }
        left
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().seen.clone()
    }

    fn failure() -> Error {
        Error::io("write", "a disk made by a test", std::io::Error::from_raw_os_error(imgfmt::error::UNREADABLE_SECTOR))
    }

    fn change(&self, offset: u64, len: u64, byte: impl Fn(usize) -> u8) -> Result<()> {
        check_range(offset, len, self.len)?;
        let mut state = self.state.lock().unwrap();
        let mut part = len as usize;
        let fault = Self::next(&mut state)?;
        if let Some(fault) = fault {
            // A disk writes a sector whole or not at all.
            part = if fault == Fault::Error { 0 } else { part / 2 / SECTOR * SECTOR };
        }
        let offset = offset as usize;
        for at in 0..part {
            state.seen[offset + at] = byte(at);
        }
        if part > 0 {
            state.dirty.extend(offset / SECTOR..=(offset + part - 1) / SECTOR);
            state.written += part as u64;
        }
        if fault.is_some() { Err(Self::failure()) } else { Ok(()) }
    }

    /// Counts an operation. The fault that hits it, if any.
    fn next(state: &mut State) -> Result<Option<Fault>> {
        if state.unplugged {
            return Err(Self::failure());
        }
        state.operations += 1;
        let fault = state.fault.filter(|(at, _)| *at == state.operations).map(|(_, fault)| fault);
        state.unplugged |= fault == Some(Fault::Plug);
        Ok(fault)
    }
}

impl Disk for VolatileDisk {
    fn len(&self) -> u64 {
        self.len
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len() as u64, self.len)?;
        let state = self.state.lock().unwrap();
        buf.copy_from_slice(&state.seen[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        Ok(Extent { offset, len: self.len - offset, kind: ExtentKind::Data })
    }
}

impl WritableDisk for VolatileDisk {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.change(offset, bytes.len() as u64, |at| bytes[at])
    }
    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.change(offset, len, |_| 0)
    }
    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        if Self::next(&mut state)?.is_some() {
            return Err(Self::failure());
        }
        let State { seen, medium, dirty, .. } = &mut *state;
        let lossy = self.lossy.lock().unwrap();
        for sector in std::mem::take(dirty) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(seen.len());
            if !lossy.contains(&sector) {
                medium[range.clone()].copy_from_slice(&seen[range]);
            }
        }
        Ok(())
    }
}

/// What is on the medium.
struct Medium(Vec<u8>);

impl Disk for Medium {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len() as u64, self.len())?;
        buf.copy_from_slice(&self.0[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent { offset, len: self.len() - offset, kind: ExtentKind::Data })
    }
}

impl InPlace for VolatileDisk {
    fn read_back(&self) -> Result<Box<dyn Disk + '_>> {
        self.flush()?;
        Ok(Box::new(Medium(self.state.lock().unwrap().medium.clone())))
    }
}
