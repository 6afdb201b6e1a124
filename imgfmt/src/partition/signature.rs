//! Signatures of what can lie in a partition: named for people, and reasons to keep the partition whole.
//!
//! Sources: the on-disk format pages of each; offsets and magics as util-linux's libblkid documents them.

use crate::bytes::le32;
use crate::disk::{Disk, read_vec};
use crate::error::Result;
use crate::partition::Partition;

/// Something recognised in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Its name.
    pub name: &'static str,
    /// Bytes that a filesystem found in the same place calls unused may be in use all the same.
    pub whole: bool,
}

/// Bytes at a place: name, offset, magic. Containers (which make a partition whole) come first.
const CONTAINERS: &[(&str, u64, &[u8])] = &[
    ("LVM2 physical volume", 0x218, b"LVM2 001"),
    ("LVM2 physical volume", 0x018, b"LVM2 001"),
    ("LVM2 physical volume", 0x418, b"LVM2 001"),
    ("LVM2 physical volume", 0x618, b"LVM2 001"),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("BitLocker", 3, b"-FVE-FS-"),
    ("mdraid 1.1", 0, b"\xfc\x4e\x2b\xa9"),
    ("mdraid 1.2", 4096, b"\xfc\x4e\x2b\xa9"),
    ("LDM (dynamic disk)", 0xc00, b"PRIVHEAD"),
    ("Storage Spaces", 4096, b"SPACEDB "),
    ("bcache", 0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    ("VMFS volume member", 0x10_0000, b"\x0d\xd0\x01\xc0"),
    ("VDO", 0, b"dmvdo001"),
];

/// Filesystems and the like, by name.
const FILESYSTEMS: &[(&str, u64, &[u8])] = &[
    ("NTFS", 3, b"NTFS    "),
    ("exFAT", 3, b"EXFAT   "),
    ("ReFS", 3, b"ReFS\0\0\0\0"),
    ("XFS", 0, b"XFSB"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    ("bcachefs", 0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
    ("APFS", 32, b"NXSB"),
    ("HFS+", 0x400, b"H+\0\x04"),
    ("HFSX", 0x400, b"HX\0\x05"),
    ("F2FS", 0x400, b"\x10\x20\xf5\xf2"),
    ("JFS", 0x8000, b"JFS1"),
    ("ReiserFS", 0x10034, b"ReIsEr"),
    ("NILFS2", 0x406, b"\x34\x34"),
    ("squashfs", 0, b"hsqs"),
    ("EROFS", 0x400, b"\xe2\xe1\xf5\xe0"),
    ("ISO 9660", 0x8001, b"CD001"),
    ("UDF", 0x8001, b"BEA01"),
    ("Linux swap", 4086, b"SWAPSPACE2"),
    ("Linux swap", 4086, b"SWAP-SPACE"),
    ("Linux swap (hibernated)", 4086, b"S1SUSPEND"),
    ("FAT32", 82, b"FAT32   "),
    ("FAT16", 54, b"FAT16   "),
    ("FAT12", 54, b"FAT12   "),
    ("ext2, ext3 or ext4", 0x438, b"\x53\xef"),
];

fn has(disk: &dyn Disk, offset: u64, magic: &[u8]) -> Result<bool> {
    let len = u64::try_from(magic.len()).unwrap_or(u64::MAX);
    if offset.checked_add(len).is_none_or(|end| end > disk.len()) {
        return Ok(false);
    }
    match read_vec(disk, offset, magic.len()) {
        Ok(bytes) => Ok(bytes == magic),
        // What cannot be read has no signature.
        Err(error) if error.is_unreadable_medium() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Names every filesystem whose signature a partition has. Those of filesystems that were there before can be among them.
pub fn filesystems(disk: &dyn Disk) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    for (name, offset, magic) in FILESYSTEMS {
        if has(disk, *offset, magic)? {
            names.push(*name);
        }
    }
    Ok(names)
}

/// Names what lies in a partition; `None` where nothing is recognised.
pub fn recognise(disk: &dyn Disk) -> Result<Option<Signature>> {
    for (name, offset, magic) in CONTAINERS {
        if has(disk, *offset, magic)? {
            return Ok(Some(Signature { name, whole: true }));
        }
    }
    // RAID superblocks at the end: 64 KiB-aligned for 0.90, 8 to 12 KiB before the end for 1.0.
    let len = disk.len();
    let at_090 = (len & !0xffff).checked_sub(0x1_0000);
    let at_10 = (len / 512).checked_sub(16).map(|sector| (sector & !7).saturating_mul(512));
    for (name, at) in [("mdraid 0.90", at_090), ("mdraid 1.0", at_10)] {
        if let Some(at) = at
            && has(disk, at, b"\xfc\x4e\x2b\xa9")?
        {
            return Ok(Some(Signature { name, whole: true }));
        }
    }
    if has(disk, len.saturating_sub(512), b"PRIVHEAD")? {
        return Ok(Some(Signature { name: "LDM (dynamic disk)", whole: true }));
    }
    if is_zfs(disk)? {
        return Ok(Some(Signature { name: "ZFS", whole: true }));
    }
    if let Some(at) = (len & !0xfff).checked_sub(4096) {
        for magic in [b"\x83\x74\x02\x6b", b"\x83\x74\x02\x67"] {
            if has(disk, at.saturating_add(60), magic)? {
                return Ok(Some(Signature { name: "DRBD", whole: true }));
            }
        }
    }
    for (name, offset, magic) in FILESYSTEMS {
        if has(disk, *offset, magic)? {
            return Ok(Some(Signature { name, whole: false }));
        }
    }
    Ok(None)
}

/// Looks for uberblocks in the first label: from 128 KiB on, one each KiB.
fn is_zfs(disk: &dyn Disk) -> Result<bool> {
    const MAGIC: [u32; 2] = [0x00ba_b10c, 0x0cb1_ba00];
    if disk.len() < 256 << 10 {
        return Ok(false);
    }
    let bytes = match read_vec(disk, 128 << 10, 128 << 10) {
        Err(error) if error.is_unreadable_medium() => return Ok(false),
        bytes => bytes?,
    };
    let hits = bytes.chunks_exact(1024).filter(|block| {
        let (low, high) = (le32(block, 0).unwrap_or(0), le32(block, 4).unwrap_or(1));
        (low == MAGIC[0] && high == 0) || (low == 0 && high == MAGIC[1])
    });
    Ok(hits.count() >= 2)
}

/// What the table's own type says is a container, whatever lies in it.
pub fn container_type(partition: &Partition) -> Option<&'static str> {
    match partition.type_name {
        name @ ("LDM data" | "LDM metadata" | "Storage Spaces" | "Windows dynamic disk (LDM)") => Some(name),
        _ => None,
    }
}
