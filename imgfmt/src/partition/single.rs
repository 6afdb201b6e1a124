//! A table for a disk with one partition, made up from nothing but the partition's length and content.
//!
//! The layout is in docs/mount.md, section "A partition alone". Source of the structures: UEFI specification 2.10 sections 5.2 and 5.3.

use uuid::{Uuid, uuid};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::partition::edit::{chs, put};
use crate::partition::signature::recognise;

/// Where the partition begins, and what it and the disk are rounded up to: where every partitioning program of today puts a first partition.
pub const START: u64 = 1 << 20;
/// Entries of a GPT, and bytes of each.
const ENTRIES: u32 = 128;
const ENTRY_LEN: u32 = 128;
/// Bytes of all entries.
const ARRAY_LEN: usize = 128 * 128;
/// Bytes of a GPT header that its checksum covers.
const HEADER_LEN: usize = 92;

/// What the disk and the partition are known by.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// Signature of an MBR; 0 stands for 1, since Windows gives a disk without a signature one of its own, by writing.
    pub signature: u32,
    /// GUID of a disk with a GPT.
    pub disk: Uuid,
    /// GUID of the partition in a GPT.
    pub partition: Uuid,
}

/// The bytes around the partition. Between them lies the partition at [`START`]; all else is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The disk's bytes from 0 on.
    pub front: Vec<u8>,
    /// Its last bytes; none with an MBR.
    pub back: Vec<u8>,
    /// Bytes of the disk.
    pub disk_len: u64,
}

/// What a partition is called in a table: the type byte of an MBR, and the type GUID.
fn types(content: Option<&str>) -> (u8, Uuid) {
    const BASIC_DATA: Uuid = uuid!("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7");
    match content {
        Some("NTFS" | "exFAT" | "ReFS" | "BitLocker") => (0x07, BASIC_DATA),
        Some("FAT32") => (0x0c, BASIC_DATA),
        Some("FAT16") => (0x0e, BASIC_DATA),
        Some("FAT12") => (0x01, BASIC_DATA),
        Some(name) if name.starts_with("Linux swap") => (0x82, uuid!("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F")),
        Some("LVM2 physical volume") => (0x8e, uuid!("E6D6D379-F507-44C2-A23C-238F2A3DF928")),
        Some(name) if name.starts_with("mdraid") => (0xfd, uuid!("A19D880F-05FC-4D3B-A006-743F0F84911E")),
        Some("HFS+" | "HFSX") => (0xaf, uuid!("48465300-0000-11AA-AA11-00306543ECAC")),
        Some("APFS") => (0xaf, uuid!("7C3457EF-0000-11AA-AA11-00306543ECAC")),
        _ => (0x83, uuid!("0FC63DAF-8483-4772-8E79-3D69D8477DE4")),
    }
}

impl Table {
    /// Makes the table for a disk on which `partition` is the only one: an MBR, or a GPT where an MBR cannot count that far.
    ///
    /// Fails with [`Error::Refused`] for a partition without a byte or one that is too long for any disk, and where the partition cannot be read.
    pub fn around(partition: &dyn Disk, ids: &Ids) -> Result<Self> {
        let sector = u64::from(partition.sector_size());
        let longest = u64::MAX >> 1;
        if partition.len() == 0 || partition.len() > longest || sector == 0 {
            return Err(Error::Refused(format!("a partition of {} bytes is no part of a disk", partition.len())));
        }
        let content = recognise(partition)?.map(|signature| signature.name);
        let (type_byte, type_guid) = types(content);
        let place = Place { sector, first: START.div_ceil(sector), count: partition.len().div_ceil(sector) };
        let end = START.saturating_add(partition.len().next_multiple_of(START));
        match (u32::try_from(place.first), u32::try_from(place.count), u32::try_from(end.div_ceil(sector))) {
            (Ok(first), Ok(count), Ok(_)) => {
                let mut front = first_sector(ids.signature.max(1));
                add_entry(&mut front, type_byte, first, count);
                Ok(Self { front, back: Vec::new(), disk_len: end })
            }
            _ => Ok(gpt(&place, type_guid, ids, end.saturating_add(START))),
        }
    }
}

/// Where the partition lies, in sectors.
struct Place {
    /// Bytes of a sector.
    sector: u64,
    first: u64,
    count: u64,
}

/// A first sector without boot code and without entries.
fn first_sector(signature: u32) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    put(&mut bytes, 440, &signature.to_le_bytes());
    put(&mut bytes, 510, &[0x55, 0xaa]);
    bytes
}

fn add_entry(sector: &mut [u8], type_byte: u8, first: u32, count: u32) {
    let last = u64::from(first).saturating_add(u64::from(count)).saturating_sub(1);
    put(sector, 447, &chs(first.into()));
    put(sector, 450, &[type_byte]);
    put(sector, 451, &chs(last));
    put(sector, 454, &first.to_le_bytes());
    put(sector, 458, &count.to_le_bytes());
}

fn gpt(place: &Place, type_guid: Uuid, ids: &Ids, disk_len: u64) -> Table {
    let sector = usize::try_from(place.sector).unwrap_or(512);
    let sectors = disk_len.checked_div(place.sector).unwrap_or(0);
    let array_sectors = u64::try_from(ARRAY_LEN).unwrap_or(0).div_ceil(place.sector);
    let mut entries = vec![0; ARRAY_LEN];
    put(&mut entries, 0, &type_guid.to_bytes_le());
    put(&mut entries, 16, &ids.partition.to_bytes_le());
    put(&mut entries, 32, &place.first.to_le_bytes());
    put(&mut entries, 40, &place.first.saturating_add(place.count).saturating_sub(1).to_le_bytes());
    let last = sectors.saturating_sub(1);
    let usable = (array_sectors.saturating_add(2), last.saturating_sub(array_sectors).saturating_sub(1));
    let header = |own: u64, other: u64, array: u64| {
        let mut bytes = vec![0; sector];
        put(&mut bytes, 0, b"EFI PART");
        put(&mut bytes, 8, &[0, 0, 1, 0]);
        put(&mut bytes, 12, &u32::try_from(HEADER_LEN).unwrap_or(92).to_le_bytes());
        for (at, value) in [(24, own), (32, other), (40, usable.0), (48, usable.1), (72, array)] {
            put(&mut bytes, at, &value.to_le_bytes());
        }
        put(&mut bytes, 56, &ids.disk.to_bytes_le());
        for (at, value) in [(80, ENTRIES), (84, ENTRY_LEN), (88, crc32fast::hash(&entries))] {
            put(&mut bytes, at, &value.to_le_bytes());
        }
        let crc = crc32fast::hash(bytes.get(..HEADER_LEN).unwrap_or_default());
        put(&mut bytes, 16, &crc.to_le_bytes());
        bytes
    };
    // Systems know the disk by its GUID.
    let mut front = first_sector(0);
    add_entry(&mut front, 0xee, 1, u32::try_from(last).unwrap_or(u32::MAX));
    front.resize(sector, 0);
    front.extend(header(1, last, 2));
    front.extend(&entries);
    let mut back = entries.clone();
    back.resize(sector.saturating_mul(usize::try_from(array_sectors).unwrap_or(0)), 0);
    back.extend(header(last, 1, last.saturating_sub(array_sectors)));
    Table { front, back, disk_len }
}
