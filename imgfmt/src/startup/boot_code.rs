//! Boot code of disks and partitions, told apart by the texts in it.
//!
//! Sources: GRUB 2.06, `grub-core/boot/i386/pc/boot.S` and `diskboot.S` with `include/grub/i386/pc/boot.h` for the fields; the messages of each loader.

use crate::bytes::{le16, le32, le64, u8_at};
use crate::disk::{Disk, read_vec};
use crate::error::Result;

/// What the first sector of a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskCode {
    /// Nothing: it is zero.
    Empty,
    /// GRUB: it loads a core image from this sector of 512 bytes.
    Grub(u64),
    /// GRUB legacy (0.9x): it loads its second stage from this sector.
    GrubLegacy(u32),
    /// Syslinux for GPT disks: it starts the partition with the legacy boot attribute.
    SyslinuxGpt,
    /// LILO: it loads its second part from blocks that it knows.
    Lilo,
    /// Code that starts the active partition, by the texts in it.
    ActivePartition,
    /// Some other code.
    Unknown,
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Names the code in the first sector of a disk.
pub fn of_disk(first: &[u8]) -> DiskCode {
    let code = first.get(..440).unwrap_or(first);
    let has = |text: &[u8]| contains(code, text);
    if code.iter().all(|byte| *byte == 0) {
        DiskCode::Empty
    } else if has(b"GRUB ") && has(b"Geom") {
        match (u8_at(code, 0x3e), u8_at(code, 0x3f)) {
            // The version of the interface of stage 1: 3.2 ever since 0.9x; GRUB 2 has other fields there.
            (Some(3), Some(2)) => DiskCode::GrubLegacy(le32(code, 0x44).unwrap_or(0)),
            _ => DiskCode::Grub(le64(code, 0x5c).unwrap_or(0)),
        }
    } else if has(b"LILO") {
        DiskCode::Lilo
    } else if has(b"Missing OS") && has(b"EFI PART") {
        DiskCode::SyslinuxGpt
    } else if [
        &b"Invalid partition table"[..],
        b"Missing operating system",
        b"No active partition",
        b"Operating system load",
    ]
    .iter()
    .any(|text| has(text))
    {
        DiskCode::ActivePartition
    } else {
        DiskCode::Unknown
    }
}

/// What the boot sectors of a partition load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionCode {
    /// There is no boot signature: the code in front of it refuses.
    NoSignature,
    /// A file in the root folder.
    File(&'static str),
    /// Syslinux, by blocks that it knows: `ldlinux.sys` must not move.
    Syslinux,
    /// The same on ext and others.
    Extlinux,
    /// GRUB: a core image from this sector of the disk.
    Grub(u64),
    /// The code that formatting leaves, which only says that there is no system.
    NotBootable,
    /// Some other code.
    Unknown,
}

/// Longest boot code of a partition: NTFS has sixteen sectors of it.
const HEAD: usize = 8192;

/// Names the boot code of a partition.
pub fn of_partition(partition: &dyn Disk) -> Result<PartitionCode> {
    let len = usize::try_from(partition.len()).unwrap_or(HEAD).min(HEAD);
    if len < 512 {
        return Ok(PartitionCode::NoSignature);
    }
    let head = read_vec(partition, 0, len)?;
    let first = head.get(..512).unwrap_or_default();
    if le16(first, 510) != Some(0xaa55) {
        return Ok(PartitionCode::NoSignature);
    }
    let has = |text: &[u8]| contains(first, text);
    let utf16 = |text: &str| {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        contains(&head, &bytes)
    };
    let code = match first.get(3..11) {
        _ if has(b"GRUB ") && has(b"Geom") => PartitionCode::Grub(le64(first, 0x5c).unwrap_or(0)),
        Some(b"SYSLINUX") => PartitionCode::Syslinux,
        Some(b"EXTLINUX") => PartitionCode::Extlinux,
        // NTFS: the names are in UTF-16 behind the first sector.
        Some(b"NTFS    ") if utf16("BOOTMGR") => PartitionCode::File("/bootmgr"),
        Some(b"NTFS    ") if utf16("NTLDR") => PartitionCode::File("/ntldr"),
        _ if has(b"BOOTMGR    ") => PartitionCode::File("/bootmgr"),
        _ if has(b"NTLDR      ") => PartitionCode::File("/ntldr"),
        _ if has(b"IO      SYS") => PartitionCode::File("/io.sys"),
        _ if has(b"IBMBIO  COM") => PartitionCode::File("/ibmbio.com"),
        _ if has(b"KERNEL  SYS") => PartitionCode::File("/kernel.sys"),
        _ if has(b"This is not a bootable disk") || has(b"Non-System disk") => PartitionCode::NotBootable,
        _ if first.get(..446).is_some_and(|code| code.iter().all(|byte| *byte == 0)) => PartitionCode::NotBootable,
        _ => PartitionCode::Unknown,
    };
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(at: usize, text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[0] = 0xeb;
        bytes[at..at + text.len()].copy_from_slice(text);
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        bytes
    }

    #[test]
    fn code_is_named_by_its_texts() {
        assert_eq!(of_disk(&[0; 512]), DiskCode::Empty);
        assert_eq!(of_disk(&sector(300, b"Invalid partition table\0Error loading")), DiskCode::ActivePartition);
        assert_eq!(of_disk(&sector(6, b"LILO")), DiskCode::Lilo);
        assert_eq!(of_disk(&sector(6, b"something else")), DiskCode::Unknown);
        let code = |bytes: Vec<u8>| of_partition(&crate::disk::MemoryDisk::new(bytes)).unwrap();
        assert_eq!(code(sector(400, b"NTLDR      ")), PartitionCode::File("/ntldr"));
        assert_eq!(code(sector(3, b"SYSLINUX")), PartitionCode::Syslinux);
        assert_eq!(code(vec![0; 512]), PartitionCode::NoSignature);
        assert_eq!(code(vec![0; 100]), PartitionCode::NoSignature);
    }
}
