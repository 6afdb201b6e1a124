//! GUID partition table: two copies, each with its checksums; the backup serves when the primary is damaged.
//!
//! Source: UEFI specification 2.10 section 5.3.

use crate::bytes::{array, le32, le64};
use crate::disk::{Disk, read_vec};
use crate::error::Result;
use crate::partition::{Layout, Partition, Scheme, Structure, mbr};

/// Most bytes of an entry array: the specification asks for at least 16 KiB, and tools make up to a few hundred.
const MAX_ARRAY: u64 = 4 << 20;

/// A header with its entries, checksums checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) my_lba: u64,
    pub(super) alternate_lba: u64,
    pub(super) last_usable: u64,
    pub(super) disk_guid: [u8; 16],
    pub(super) array_lba: u64,
    pub(super) entry_len: u64,
    pub(super) entries: Vec<u8>,
    /// The whole sector of the header.
    pub(super) header: Vec<u8>,
}

/// Reads the table into `layout`. Returns `false` where there is none. `first` is the first sector, `mbr` the table in it.
pub fn read(disk: &dyn Disk, first: &[u8], mbr: Option<&mbr::Table>, layout: &mut Layout) -> Result<bool> {
    let sector = u64::from(disk.sector_size());
    let last_lba = disk.len().checked_div(sector).unwrap_or(0).saturating_sub(1);
    if last_lba < 2 {
        return Ok(false);
    }
    let primary = read_copy(disk, 1)?;
    let claimed = mbr.is_some_and(mbr::Table::is_protective);
    if !claimed && primary.is_err() {
        // Without a protective MBR and a good primary, a stray backup is a remnant of an earlier life.
        return Ok(false);
    }
    if !claimed && mbr.is_some_and(|mbr| mbr::looks_like_boot_sector(first) || !mbr.is_blank()) {
        // No system follows a GPT that the MBR does not announce, but where there is nothing else to follow.
        layout.problems.push("a GPT that the MBR does not announce lies on the disk too: it is not used".into());
        return Ok(false);
    }
    let backup_lba = primary.as_ref().map_or(last_lba, |primary| primary.alternate_lba);
    let mut backup = read_copy(disk, backup_lba)?;
    if backup.is_err() && backup_lba != last_lba {
        let at_end = read_copy(disk, last_lba)?;
        if at_end.is_ok() {
            backup = at_end;
        }
    }
    let (table, is_primary) = match (&primary, &backup) {
        (Ok(primary), Ok(backup)) => {
            if primary.entries != backup.entries || primary.disk_guid != backup.disk_guid {
                layout.problems.push("primary and backup GPT differ: the primary is used".into());
            }
            (primary, true)
        }
        (Ok(primary), Err(reason)) => {
            layout.problems.push(format!("the backup GPT is damaged ({reason}): the primary is used"));
            (primary, true)
        }
        (Err(reason), Ok(backup)) => {
            layout
                .problems
                .push(format!("the primary GPT is damaged ({reason}): the backup at sector {} is used", backup.my_lba));
            (backup, false)
        }
        (Err(reason), Err(_)) => {
            layout.problems.push(format!("the MBR announces a GPT, but both copies are damaged ({reason})"));
            return Ok(false);
        }
    };
    if table.last_usable > last_lba {
        layout.problems.push("the GPT was made for a larger disk".into());
    }
    layout.scheme = Scheme::Gpt;
    layout.disk_id = guid_text(&table.disk_guid);
    for (name, copy) in [("primary", &primary), ("backup", &backup)] {
        if let Ok(copy) = copy {
            let header = copy.my_lba.saturating_mul(sector);
            let array = copy.array_lba.saturating_mul(sector);
            let array_len = u64::try_from(copy.entries.len()).unwrap_or(0);
            let clip = |range: std::ops::Range<u64>| range.start.min(disk.len())..range.end.min(disk.len());
            layout.structures.push(Structure {
                what: format!("{name} GPT header"),
                range: clip(header..header.saturating_add(sector)),
            });
            layout.structures.push(Structure {
                what: format!("{name} GPT entries"),
                range: clip(array..array.saturating_add(array_len)),
            });
        }
    }
    if is_primary && table.my_lba != 1 {
        layout.problems.push("the primary GPT header gives a wrong place for itself".into());
    }
    let entry_len = usize::try_from(table.entry_len).unwrap_or(128);
    for (number, raw) in (1_u32..).zip(table.entries.chunks_exact(entry_len)) {
        if let Some(partition) = parse_entry(raw, number, sector) {
            if partition.range.is_empty() {
                layout.problems.push(format!("partition {number} ends before it starts"));
                continue;
            }
            layout.partitions.push(partition);
        }
    }
    // A hybrid MBR lists real partitions beside the protective entry.
    let listed = mbr.map_or(0, |mbr| mbr.entries.iter().filter(|e| !matches!(e.os_type, 0 | 0xee)).count());
    if listed > 0 && claimed {
        layout.scheme = Scheme::HybridGpt;
    }
    Ok(true)
}

/// Reads and checks a copy. The inner error is a phrase for people; the outer one is of the disk.
pub(super) fn read_copy(disk: &dyn Disk, lba: u64) -> Result<Result<Copy, &'static str>> {
    let sector = u64::from(disk.sector_size());
    let offset = match lba.checked_mul(sector) {
        Some(offset) if offset.checked_add(sector).is_some_and(|end| end <= disk.len()) => offset,
        _ => return Ok(Err("it lies past the end of the disk")),
    };
    let sector_len = usize::try_from(sector).unwrap_or(512);
    let header = match read_vec(disk, offset, sector_len) {
        Err(error) if error.is_unreadable_medium() => return Ok(Err("its sector cannot be read")),
        header => header?,
    };
    let (copy, array_crc) = match parse_header(&header, lba, sector) {
        Ok(parsed) => parsed,
        Err(reason) => return Ok(Err(reason)),
    };
    let array_offset = copy.array_lba.saturating_mul(sector);
    let array_len = u64::try_from(copy.entries.len()).unwrap_or(u64::MAX);
    if array_offset.saturating_add(array_len) > disk.len() {
        return Ok(Err("its entries lie past the end of the disk"));
    }
    let mut copy = copy;
    match disk.read_at(&mut copy.entries, array_offset) {
        Err(error) if error.is_unreadable_medium() => return Ok(Err("its entries cannot be read")),
        result => result?,
    }
    if crc32fast::hash(&copy.entries) != array_crc {
        return Ok(Err("the checksum of its entries does not match"));
    }
    Ok(Ok(copy))
}

/// Parses the header sector; `entries` of the result has the right length and is still zero.
fn parse_header(bytes: &[u8], lba: u64, sector: u64) -> Result<(Copy, u32), &'static str> {
    let short = "its header is cut short";
    if bytes.get(..8) != Some(b"EFI PART") {
        return Err("no header is there");
    }
    let header_len = usize::try_from(le32(bytes, 12).ok_or(short)?).map_err(|_| short)?;
    if header_len < 92 || header_len > bytes.len() {
        return Err("the length of its header is out of range");
    }
    let mut zeroed = bytes.get(..header_len).ok_or(short)?.to_vec();
    zeroed.get_mut(16..20).ok_or(short)?.fill(0);
    if Some(crc32fast::hash(&zeroed)) != le32(bytes, 16) {
        return Err("the checksum of its header does not match");
    }
    let my_lba = le64(bytes, 24).ok_or(short)?;
    if my_lba != lba {
        return Err("its header was written for another place");
    }
    let count = u64::from(le32(bytes, 80).ok_or(short)?);
    let entry_len = u64::from(le32(bytes, 84).ok_or(short)?);
    let array_len = count.checked_mul(entry_len).ok_or("its entries are too many")?;
    if entry_len < 128 || !entry_len.is_power_of_two() || array_len == 0 || array_len > MAX_ARRAY {
        return Err("number or length of its entries is out of range");
    }
    let array_lba = le64(bytes, 72).ok_or(short)?;
    if array_lba < 2 || array_lba.checked_mul(sector).is_none() {
        return Err("its entries lie nowhere");
    }
    let entries = vec![0; usize::try_from(array_len).map_err(|_| short)?];
    let copy = Copy {
        my_lba,
        alternate_lba: le64(bytes, 32).ok_or(short)?,
        last_usable: le64(bytes, 48).ok_or(short)?,
        disk_guid: array(bytes, 56).ok_or(short)?,
        array_lba,
        entry_len,
        entries,
        header: bytes.to_vec(),
    };
    Ok((copy, le32(bytes, 88).ok_or(short)?))
}

fn parse_entry(raw: &[u8], number: u32, sector: u64) -> Option<Partition> {
    let type_guid: [u8; 16] = array(raw, 0)?;
    if type_guid == [0; 16] {
        return None;
    }
    let start = le64(raw, 32)?.saturating_mul(sector);
    let end = le64(raw, 40)?.saturating_add(1).saturating_mul(sector);
    let attributes = le64(raw, 48)?;
    let name = raw.get(56..128)?.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let name: Vec<u16> = name.take_while(|unit| *unit != 0).collect();
    let type_code = guid_text(&type_guid);
    Some(Partition {
        number,
        range: start..end.max(start),
        type_name: type_name(&type_code),
        type_code,
        name: String::from_utf16_lossy(&name),
        id: guid_text(&array(raw, 16)?),
        active: attributes & 4 != 0,
        attributes,
        unusable: None,
    })
}

/// A GUID as people write it: the first three fields are little-endian.
///
/// Source: UEFI specification 2.10 appendix A.
pub fn guid_text(raw: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = raw;
    format!(
        "{d:02X}{c:02X}{b:02X}{a:02X}-{f:02X}{e:02X}-{h:02X}{g:02X}-{i:02X}{j:02X}-{k:02X}{l:02X}{m:02X}{n:02X}{o:02X}{p:02X}"
    )
}

/// The well-known types in words.
pub fn type_name(guid: &str) -> &'static str {
    match guid {
        "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" => "EFI system",
        "E3C9E316-0B5C-4DB8-817D-F92DF00215AE" => "Microsoft reserved",
        "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7" => "Microsoft basic data",
        "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC" => "Windows recovery",
        "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3" => "LDM metadata",
        "AF9B60A0-1431-4F62-BC68-3311714A69AD" => "LDM data",
        "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D" => "Storage Spaces",
        "21686148-6449-6E6F-744E-656564454649" => "BIOS boot",
        "0FC63DAF-8483-4772-8E79-3D69D8477DE4" => "Linux filesystem",
        "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F" => "Linux swap",
        "E6D6D379-F507-44C2-A23C-238F2A3DF928" => "Linux LVM",
        "A19D880F-05FC-4D3B-A006-743F0F84911E" => "Linux RAID",
        "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709" => "Linux root (x86-64)",
        "CA7D7CCB-63ED-4C53-861C-1742536059CC" => "Linux LUKS",
        "48465300-0000-11AA-AA11-00306543ECAC" => "Apple HFS+",
        "7C3457EF-0000-11AA-AA11-00306543ECAC" => "Apple APFS",
        "6A898CC3-1DD2-11B2-99A6-080020736631" => "ZFS",
        _ => "",
    }
}
