//! `SYSTEM\MountedDevices`: which volume has which drive letter.
//!
//! Source: winreg-kb, "Mounted devices": a value of 12 bytes is disk signature and first byte of the partition, one of 24 bytes "DMIO:ID:" and the GUID of a
//! GPT partition; anything else is the path of a device.

use std::ops::Range;

use crate::bytes::{array, le32, le64};
use crate::error::Result;
use crate::startup::hive::Hive;
use crate::startup::reference::{Form, Identity, Spot};

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedDevice {
    /// `\DosDevices\C:` or `\??\Volume{GUID}`. Untrusted text.
    pub name: String,
    /// What it names; `None` for the path of a device.
    pub names: Option<Identity>,
    /// The bytes that say so.
    pub spots: Vec<Spot>,
}

impl MountedDevice {
    /// The drive letter that it gives.
    pub fn letter(&self) -> Option<char> {
        let rest = self.name.strip_prefix("\\DosDevices\\")?;
        rest.strip_suffix(':')?.chars().next().map(|letter| letter.to_ascii_uppercase())
    }
}

/// Reads the values from a hive; none where it has no such key.
pub fn read(hive: &Hive) -> Result<Vec<MountedDevice>> {
    let Some(key) = hive.find(&["MountedDevices"])? else { return Ok(Vec::new()) };
    let values = hive.values(&key)?;
    Ok(values
        .into_iter()
        .map(|value| {
            let (names, range, form): (_, Range<u64>, _) = match value.data.len() {
                12 => (mbr(&value.data), 0..4, Form::Signature),
                24 if value.data.starts_with(b"DMIO:ID:") => (gpt(&value.data), 8..24, Form::PartitionGuid),
                _ => (None, 0..0, Form::Signature),
            };
            let place = value.place.filter(|_| names.is_some());
            let spot = place
                .map(|place| Spot { range: place.saturating_add(range.start)..place.saturating_add(range.end), form });
            MountedDevice { name: value.name, names, spots: spot.into_iter().collect() }
        })
        .collect())
}

fn mbr(data: &[u8]) -> Option<Identity> {
    Some(Identity::MbrPartition { signature: le32(data, 0)?, start: le64(data, 4)? })
}

fn gpt(data: &[u8]) -> Option<Identity> {
    Some(Identity::GptPartition { disk: None, partition: array(data, 8)? })
}
