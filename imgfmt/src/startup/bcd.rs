//! The boot configuration data of Windows since Vista: a registry hive of objects with elements.
//!
//! Source: "Boot Configuration Data in Windows Vista" (Microsoft, 2008) for objects and elements; Geoff Chappell, "BCD Elements" for their numbers and the
//! layout of devices, which the dumps of bcdedit users confirm.
//!
//! A device element is 16 bytes (an object with more options), then a device: +0x00 type, +0x04 flags, +0x08 its length from +0x00, +0x0c 0, and for a
//! partition (type 6) at +0x10 the GUID of the partition or, of an MBR disk, its first byte (64 bits); +0x20 kind of medium; +0x24 0 for a GPT disk, 1 for an
//! MBR disk; +0x28 the GUID or the signature of the disk. Little-endian. Devices of other types can hold a partition inside (a file on it).

use std::ops::Range;

use crate::bytes::{array, le32, le64};
use crate::error::{Error, Result};
use crate::startup::hive::{Hive, Key, string, strings};
use crate::startup::reference::{Form, Identity, Spot};

/// The object of the boot manager itself.
pub const BOOT_MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";
/// Elements: the device that holds an application, its path, its title.
pub const APPLICATION_DEVICE: u32 = 0x1100_0001;
/// Path of an application on its device.
pub const APPLICATION_PATH: u32 = 0x1200_0002;
/// Title.
pub const DESCRIPTION: u32 = 0x1200_0004;
/// Device with the system.
pub const OS_DEVICE: u32 = 0x2100_0001;
/// Folder of the system on its device.
pub const SYSTEM_ROOT: u32 = 0x2200_0002;
/// The object that the boot manager starts.
pub const DEFAULT_OBJECT: u32 = 0x2300_0003;
/// The objects of the boot manager's menu.
pub const DISPLAY_ORDER: u32 = 0x2400_0001;

/// Where a device with options begins in an element.
const DEVICE: usize = 16;
/// Bytes of a device that is a partition.
const PARTITION_LEN: u32 = 0x48;
const TYPE_BOOT: u32 = 5;
const TYPE_PARTITION: u32 = 6;

/// What a device element names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// The device that the loader itself came from.
    Boot,
    /// A partition.
    Partition(Identity),
    /// Something else, perhaps a file on a partition.
    Other(u32),
}

/// An element of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its number.
    pub number: u32,
    /// Its data as it is stored.
    pub data: Vec<u8>,
    /// First byte of the data in the file, where they lie in one piece.
    pub place: Option<u64>,
}

/// An object: an application, or settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its GUID in braces.
    pub id: String,
    /// Its elements.
    pub elements: Vec<Element>,
}

impl Object {
    fn element(&self, number: u32) -> Option<&Element> {
        self.elements.iter().find(|element| element.number == number)
    }

    /// A text element.
    pub fn text(&self, number: u32) -> Option<String> {
        self.element(number).map(|element| string(&element.data))
    }

    /// A list of objects.
    pub fn list(&self, number: u32) -> Vec<String> {
        self.element(number).map_or(Vec::new(), |element| strings(&element.data))
    }

    /// A device element.
    pub fn device(&self, number: u32) -> Option<Device> {
        self.element(number).map(|element| device(&element.data))
    }
}

/// The objects of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// All of them, in their order.
    pub objects: Vec<Object>,
    /// The last write to the hive was not finished.
    pub dirty: bool,
}

/// Most objects and elements that make sense in a store.
const MAX_ELEMENTS: usize = 20_000;

impl Store {
    /// Reads a hive as a store.
    pub fn read(hive: &Hive) -> Result<Self> {
        let missing = || Error::corrupt("BCD store", 0, "it has no key Objects");
        let parent = hive.find(&["Objects"])?.ok_or_else(missing)?;
        let mut objects = Vec::new();
        let mut count = 0_usize;
        for key in hive.subkeys(&parent)? {
            let elements = Self::elements(hive, &key)?;
            count = count.saturating_add(elements.len()).saturating_add(1);
            if count > MAX_ELEMENTS {
                return Err(Error::corrupt("BCD store", 0, "it has more elements than make sense"));
            }
            objects.push(Object { id: key.name, elements });
        }
        Ok(Self { objects, dirty: hive.is_dirty() })
    }

    fn elements(hive: &Hive, object: &Key) -> Result<Vec<Element>> {
        let mut elements = Vec::new();
        let Some(parent) = hive.subkey(object, "Elements")? else { return Ok(elements) };
        for key in hive.subkeys(&parent)? {
            let Ok(number) = u32::from_str_radix(&key.name, 16) else { continue };
            if let Some(value) = hive.value_of(&key, "Element")? {
                elements.push(Element { number, data: value.data, place: value.place });
            }
        }
        Ok(elements)
    }

    /// An object by its GUID in braces.
    pub fn object(&self, id: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.id.eq_ignore_ascii_case(id))
    }
}

/// What a device element names.
pub fn device(data: &[u8]) -> Device {
    match le32(data, DEVICE) {
        Some(TYPE_BOOT) => Device::Boot,
        Some(TYPE_PARTITION) => match partition(data, DEVICE) {
            Some((identity, _)) => Device::Partition(identity),
            None => Device::Other(TYPE_PARTITION),
        },
        other => Device::Other(other.unwrap_or(u32::MAX)),
    }
}

/// Bytes of an element, and what they are.
type Part = (Range<usize>, Form);

/// A partition device at a place of an element: what it names, and which bytes say so.
fn partition(data: &[u8], at: usize) -> Option<(Identity, Vec<Part>)> {
    let field = |offset: usize| le32(data, at.checked_add(offset)?);
    if field(0)? != TYPE_PARTITION || field(8)? != PARTITION_LEN || field(12)? != 0 {
        return None;
    }
    data.get(at..at.checked_add(0x48)?)?;
    let range = |offset: usize, len: usize| {
        let start = at.saturating_add(offset);
        start..start.saturating_add(len)
    };
    match field(0x24)? {
        0 => {
            let identity = Identity::GptPartition {
                disk: Some(array(data, at.checked_add(0x28)?)?),
                partition: array(data, at.checked_add(0x10)?)?,
            };
            Some((identity, vec![(range(0x10, 16), Form::PartitionGuid), (range(0x28, 16), Form::DiskGuid)]))
        }
        1 => {
            let identity =
                Identity::MbrPartition { signature: field(0x28)?, start: le64(data, at.checked_add(0x10)?)? };
            Some((identity, vec![(range(0x28, 4), Form::Signature)]))
        }
        _ => None,
    }
}

/// Every partition that an element names, at whatever depth, with the bytes of the file that say so.
pub fn partitions(element: &Element) -> Vec<(Identity, Vec<Spot>)> {
    // The second digit is the kind of data: 1 is a device.
    if (element.number >> 24) & 0xf != 1 {
        return Vec::new();
    }
    let places = (DEVICE..element.data.len()).step_by(4);
    let found = places.filter_map(|at| partition(&element.data, at));
    let spot = |(range, form): Part| {
        let place = element.place?;
        let at = |offset: usize| place.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX));
        Some(Spot { range: at(range.start)..at(range.end), form })
    };
    found.map(|(identity, spots)| (identity, spots.into_iter().filter_map(spot).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `partition=C:` of a Windows 8.1 on an MBR disk: partition at byte 0x15f00000, signature b3eba8f1.
    fn mbr_element() -> Vec<u8> {
        let mut data = vec![0; 88];
        data[0x10] = 6;
        data[0x18] = 0x48;
        data[0x20..0x28].copy_from_slice(&0x15f0_0000_u64.to_le_bytes());
        data[0x34] = 1;
        data[0x38..0x3c].copy_from_slice(&[0xf1, 0xa8, 0xeb, 0xb3]);
        data
    }

    #[test]
    fn partitions_are_found_by_themselves_and_inside_of_files() {
        let named = Identity::MbrPartition { signature: 0xb3eb_a8f1, start: 0x15f0_0000 };
        assert_eq!(device(&mbr_element()), Device::Partition(named.clone()));
        let element = Element { number: APPLICATION_DEVICE, data: mbr_element(), place: Some(1000) };
        let spot = Spot { range: 1056..1060, form: Form::Signature };
        assert_eq!(partitions(&element), [(named.clone(), vec![spot])]);
        // A file on that partition: the device is inside of another one.
        let mut file = vec![0; 40];
        file[0x18] = 0x90;
        file.extend_from_slice(&mbr_element()[16..]);
        let element = Element { number: APPLICATION_DEVICE, data: file, place: None };
        assert_eq!(device(&element.data), Device::Other(0));
        assert_eq!(partitions(&element), [(named, vec![])]);
        assert_eq!(device(&[0; 10]), Device::Other(u32::MAX));
    }
}
