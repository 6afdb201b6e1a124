//! The slots of an overlay's file as bytes, each under its checksum.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::overlay::file::Storage;
use crate::overlay::layout::{Place, SLOT, SLOT_LEN, checksum};

/// The storage of an overlay, and how it is spoken of.
pub(super) struct Medium {
    storage: Arc<dyn Storage>,
    name: String,
}

impl Medium {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        let name = storage.name();
        Self { storage, name }
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> Result<u64> {
        self.storage.len().map_err(|error| Error::io("examine", &self.name, error))
    }

    /// The bytes of a slot, whatever they are.
    pub(super) fn raw(&self, slot: u64) -> Result<[u8; SLOT]> {
        let mut bytes = [0; SLOT];
        self.read(slot, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of slots that follow each other, unchecked.
    pub(super) fn read(&self, slot: u64, buf: &mut [u8]) -> Result<()> {
        self.storage.read_at(buf, byte_of(slot)).map_err(|error| self.failed("read", slot, error))
    }

    /// The bytes of a slot, proved. `structure` is what it holds.
    pub(super) fn read_slot(&self, place: Place, structure: &str) -> Result<[u8; SLOT]> {
        let bytes = self.raw(place.slot)?;
        self.prove(&bytes, place, structure)?;
        Ok(bytes)
    }

    /// Fails unless bytes have the checksum of the place they come from.
    pub(super) fn prove(&self, bytes: &[u8], place: Place, structure: &str) -> Result<()> {
        if checksum(bytes) == place.checksum {
            return Ok(());
        }
        Err(self.corrupt(structure, place.slot, "its checksum is wrong"))
    }

    /// Writes a slot and returns its checksum.
    pub(super) fn write_slot(&self, slot: u64, bytes: &[u8; SLOT]) -> Result<u32> {
        self.write(slot, bytes)?;
        Ok(checksum(bytes))
    }

    /// Writes slots that follow each other.
    pub(super) fn write(&self, slot: u64, bytes: &[u8]) -> Result<()> {
        self.storage.write_at(bytes, byte_of(slot)).map_err(|error| self.failed("write to", slot, error))
    }

    /// Makes the file as long as its slots, where the last of them were taken and could not be written.
    pub(super) fn reach(&self, slots: u64) -> Result<()> {
        if self.len()? >= byte_of(slots) {
            return Ok(());
        }
        self.write(slots.saturating_sub(1), &[0; SLOT])
    }

    /// Returns once all that was written is durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.storage.sync().map_err(|error| Error::io("sync", &self.name, error))
    }

    pub(super) fn corrupt(&self, structure: &str, slot: u64, reason: &'static str) -> Error {
        Error::corrupt(format_args!("{structure} of overlay {}", self.name), byte_of(slot), reason)
    }

    /// The error where there are no more numbers for slots.
    pub(super) fn full(&self) -> Error {
        Error::Refused(format!("overlay {} cannot grow any more", self.name))
    }

    fn failed(&self, action: &'static str, slot: u64, source: std::io::Error) -> Error {
        Error::Io { action, what: format!("overlay {} at byte {:#x}", self.name, byte_of(slot)), source }
    }
}

impl std::fmt::Debug for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Medium").field("name", &self.name).finish_non_exhaustive()
    }
}

fn byte_of(slot: u64) -> u64 {
    slot.saturating_mul(SLOT_LEN)
}
