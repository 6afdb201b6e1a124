//! Packs in memory, with faults on request and with what a pulled plug leaves behind.

use std::collections::BTreeMap;
use std::io::{Error as IoError, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use imgfmt::image::PackStore;
use imgfmt::image::store::{NewPack, PackFile};
use imgfmt::{Error, Result};

#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    /// Bytes that were synced: what a pulled plug leaves at least.
    pub(crate) synced: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operation fails and does nothing.
    Error,
    /// A write does half of what it should, then fails.
    Short,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) finished: BTreeMap<u32, Content>,
    pub(crate) partial: BTreeMap<u32, Content>,
    /// Operations so far: append, sync, publish, create, resume.
    pub(crate) operations: u64,
    /// The operation that fails, and how.
    pub(crate) fault: Option<(u64, Fault)>,
}

impl State {
    /// Counts an operation; says whether it must fail.
    fn next(&mut self) -> Option<Fault> {
        self.operations += 1;
        self.fault.filter(|(at, _)| *at == self.operations).map(|(_, fault)| fault)
    }
}

/// An image in memory. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MemoryStore {
    pub(crate) state: Arc<Mutex<State>>,
    folder: PathBuf,
}

fn failed(action: &'static str) -> Error {
    Error::io(action, "memory", IoError::from(ErrorKind::StorageFull))
}

impl MemoryStore {
    /// Side files (lock, index) lie in `folder`.
    pub(crate) fn new(folder: &std::path::Path) -> Self {
        Self { state: Arc::default(), folder: folder.to_owned() }
    }

    pub(crate) fn pack(&self, number: u32) -> Vec<u8> {
        self.state.lock().unwrap().finished[&number].bytes.clone()
    }

    pub(crate) fn set_pack(&self, number: u32, bytes: Vec<u8>) {
        self.state.lock().unwrap().finished.insert(number, Content { bytes, synced: 0 });
    }
}

impl PackStore for MemoryStore {
    fn list(&self) -> Result<Vec<(u32, u64)>> {
        let state = self.state.lock().unwrap();
        Ok(state.finished.iter().map(|(number, content)| (*number, content.bytes.len() as u64)).collect())
    }
    fn list_partial(&self) -> Result<Vec<u32>> {
        Ok(self.state.lock().unwrap().partial.keys().copied().collect())
    }
    fn open(&self, number: u32) -> Result<Arc<dyn PackFile>> {
        if !self.state.lock().unwrap().finished.contains_key(&number) {
            return Err(Error::NotFound(format!("{} is missing", self.name(number))));
        }
        Ok(Arc::new(MemoryPack { store: self.clone(), number, partial: false }))
    }
    fn open_partial(&self, number: u32) -> Result<Arc<dyn PackFile>> {
        Ok(Arc::new(MemoryPack { store: self.clone(), number, partial: true }))
    }
    fn create(&self, number: u32) -> Result<Box<dyn NewPack>> {
        let mut state = self.state.lock().unwrap();
        if state.next().is_some() {
            return Err(failed("create"));
        }
        assert!(state.partial.insert(number, Content::default()).is_none(), "a partial pack is never overwritten");
        Ok(Box::new(MemoryNewPack { store: self.clone(), number }))
    }
    fn resume(&self, number: u32, len: u64) -> Result<Box<dyn NewPack>> {
        let mut state = self.state.lock().unwrap();
        if state.next().is_some() {
            return Err(failed("resume"));
        }
        state.partial.get_mut(&number).unwrap().bytes.truncate(len as usize);
        Ok(Box::new(MemoryNewPack { store: self.clone(), number }))
    }
    fn delete_partial(&self, number: u32) -> Result<()> {
        self.state.lock().unwrap().partial.remove(&number);
        Ok(())
    }
    fn name(&self, number: u32) -> String {
        if number == 0 { "m.hik".into() } else { format!("m.{number:05}.hik") }
    }
    fn side_file(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("m.hik.{suffix}"))
    }
    fn free_space(&self) -> Option<u64> {
        None
    }
}

#[derive(Debug)]
struct MemoryPack {
    store: MemoryStore,
    number: u32,
    partial: bool,
}

impl MemoryPack {
    fn with<T>(&self, work: impl FnOnce(&[u8]) -> T) -> T {
        let state = self.store.state.lock().unwrap();
        // An open file stays readable when it gets its final name.
        let content = if self.partial { state.partial.get(&self.number) } else { None };
        work(&content.or_else(|| state.finished.get(&self.number)).unwrap().bytes)
    }
}

impl PackFile for MemoryPack {
    fn len(&self) -> Result<u64> {
        Ok(self.with(|bytes| bytes.len() as u64))
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.with(|bytes| {
            let start = usize::try_from(offset).ok().filter(|start| *start <= bytes.len());
            let part = start.and_then(|start| bytes.get(start..start.checked_add(buf.len())?));
            match part {
                Some(part) => {
                    buf.copy_from_slice(part);
                    Ok(())
                }
                None => Err(Error::io("read", "memory", IoError::from(ErrorKind::UnexpectedEof))),
            }
        })
    }
}

#[derive(Debug)]
struct MemoryNewPack {
    store: MemoryStore,
    number: u32,
}

impl NewPack for MemoryNewPack {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut state = self.store.state.lock().unwrap();
        let fault = state.next();
        let content = state.partial.get_mut(&self.number).unwrap();
        match fault {
            None => content.bytes.extend_from_slice(bytes),
            Some(Fault::Error) => return Err(failed("write")),
            Some(Fault::Short) => {
                content.bytes.extend_from_slice(&bytes[..bytes.len() / 2]);
                return Err(failed("write"));
            }
        }
        Ok(())
    }
    fn sync(&mut self) -> Result<()> {
        let mut state = self.store.state.lock().unwrap();
        if state.next().is_some() {
            return Err(failed("sync"));
        }
        let content = state.partial.get_mut(&self.number).unwrap();
        content.synced = content.bytes.len();
        Ok(())
    }
    fn reader(&self) -> Arc<dyn PackFile> {
        Arc::new(MemoryPack { store: self.store.clone(), number: self.number, partial: true })
    }
    fn publish(self: Box<Self>) -> Result<()> {
        let mut state = self.store.state.lock().unwrap();
        if state.next().is_some() {
            return Err(failed("rename"));
        }
        let content = state.partial.remove(&self.number).unwrap();
        assert_eq!(content.synced, content.bytes.len(), "nothing is published before it is durable");
        assert!(state.finished.insert(self.number, content).is_none(), "a finished pack is never replaced");
        Ok(())
    }
}
