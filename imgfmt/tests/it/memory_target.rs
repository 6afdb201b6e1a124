//! A target in memory that knows which of its bytes were written.

use std::sync::Mutex;

use imgfmt::Result;
use imgfmt::target::Target;

/// What lies on a target before anything is written to it.
pub(crate) const POISON: u8 = 0xa5;

/// Bytes, and for each whether it was written. No byte may be written twice.
#[derive(Debug)]
pub(crate) struct MemoryTarget {
    state: Mutex<(Vec<u8>, Vec<bool>)>,
}

impl MemoryTarget {
    pub(crate) fn new(len: u64) -> Self {
        Self { state: Mutex::new((vec![POISON; len as usize], vec![false; len as usize])) }
    }

    /// The bytes, and which of them were written.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<bool>) {
        self.state.into_inner().unwrap()
    }

    fn write(&self, offset: u64, len: usize, write: impl FnOnce(&mut [u8])) {
        let mut state = self.state.lock().unwrap();
        let range = offset as usize..offset as usize + len;
        assert!(!state.1[range.clone()].contains(&true), "bytes {range:?} are written twice");
        state.1[range.clone()].fill(true);
        write(&mut state.0[range]);
    }
}

impl Target for MemoryTarget {
    fn len(&self) -> u64 {
        self.state.lock().unwrap().0.len() as u64
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.write(offset, bytes.len(), |part| part.copy_from_slice(bytes));
        Ok(())
    }
    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.write(offset, len as usize, |part| part.fill(0));
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
