//! The boot sector: sizes, and where the MFT starts.

use crate::bytes::{array, le16, le64, u8_at};
use crate::error::{Error, Result};

/// Sizes and places of a volume, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Bytes in a cluster: 256 to 2 MiB, a power of two.
    pub cluster_size: u64,
    /// Clusters of the volume.
    pub cluster_count: u64,
    /// Cluster where the MFT starts.
    pub mft_lcn: u64,
    /// Cluster where the mirror of the first MFT records starts; may be anything.
    pub mirror_lcn: u64,
    /// Bytes in an MFT record: 512 to 64 KiB, a power of two.
    pub record_size: usize,
    /// Bytes in an index block: 512 to 64 KiB, a power of two.
    pub index_block_size: usize,
    /// Volume serial number.
    pub serial: u64,
}

impl Boot {
    /// Parses the first 512 bytes of a partition of `partition_len` bytes; `None` where they are no NTFS boot sector.
    pub fn parse(bytes: &[u8], partition_len: u64) -> Result<Option<Self>> {
        if array(bytes, 3) != Some(*b"NTFS    ") {
            return Ok(None);
        }
        let corrupt = |reason| Error::corrupt("NTFS boot sector", 0, reason);
        let short = || corrupt("it is cut short");
        let bytes_per_sector = u64::from(le16(bytes, 0x0b).ok_or_else(short)?);
        if !bytes_per_sector.is_power_of_two() || !(256..=4096).contains(&bytes_per_sector) {
            return Err(corrupt("its sector size is out of range"));
        }
        // Up to 128 a count, above that a negative power of two.
        let sectors_per_cluster = match u8_at(bytes, 0x0d).ok_or_else(short)? {
            count @ 1..=128 if count.is_power_of_two() => u64::from(count),
            power @ 0xf4..=0xff => 1 << 0_u8.wrapping_sub(power),
            _ => return Err(corrupt("its cluster size is out of range")),
        };
        let cluster_size = bytes_per_sector.saturating_mul(sectors_per_cluster);
        if cluster_size > 2 << 20 {
            return Err(corrupt("its cluster size is out of range"));
        }
        let total_sectors = le64(bytes, 0x28).ok_or_else(short)?;
        let volume_len = total_sectors.checked_mul(bytes_per_sector).ok_or_else(|| corrupt("its length overflows"))?;
        if volume_len > partition_len {
            return Err(corrupt("the volume is longer than the partition"));
        }
        let cluster_count = volume_len.checked_div(cluster_size).unwrap_or(0);
        let mft_lcn = le64(bytes, 0x30).ok_or_else(short)?;
        if mft_lcn >= cluster_count {
            return Err(corrupt("its MFT lies past the end of the volume"));
        }
        Ok(Some(Self {
            cluster_size,
            cluster_count,
            mft_lcn,
            mirror_lcn: le64(bytes, 0x38).ok_or_else(short)?,
            record_size: structure_size(u8_at(bytes, 0x40).ok_or_else(short)?, cluster_size)
                .ok_or_else(|| corrupt("its MFT record size is out of range"))?,
            index_block_size: structure_size(u8_at(bytes, 0x44).ok_or_else(short)?, cluster_size)
                .ok_or_else(|| corrupt("its index block size is out of range"))?,
            serial: le64(bytes, 0x48).ok_or_else(short)?,
        }))
    }
}

/// A size given as a count of clusters, or as a negative power of two bytes.
fn structure_size(raw: u8, cluster_size: u64) -> Option<usize> {
    let signed = raw.cast_signed();
    let size = if signed > 0 {
        cluster_size.checked_mul(u64::from(raw))?
    } else {
        1_u64.checked_shl(u32::from(signed.unsigned_abs()))?
    };
    if !size.is_power_of_two() || !(512..=65536).contains(&size) {
        return None;
    }
    usize::try_from(size).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector() -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[3..11].copy_from_slice(b"NTFS    ");
        bytes[0x0b..0x0d].copy_from_slice(&512_u16.to_le_bytes());
        bytes[0x0d] = 8;
        bytes[0x28..0x30].copy_from_slice(&20479_u64.to_le_bytes());
        bytes[0x30] = 1;
        bytes[0x40] = 0xf6;
        bytes[0x44] = 1;
        bytes
    }

    #[test]
    fn sizes_follow_from_counts_and_negative_powers() {
        let boot = Boot::parse(&sector(), 10 << 20).unwrap().unwrap();
        assert_eq!((boot.cluster_size, boot.cluster_count), (4096, 2559));
        assert_eq!((boot.record_size, boot.index_block_size), (1024, 4096));
        let mut large = sector();
        large[0x0d] = 0xf4;
        // Windows writes 4 KiB index blocks as a power where clusters are larger.
        large[0x44] = 0xf4;
        assert_eq!(Boot::parse(&large, 10 << 20).unwrap().unwrap().cluster_size, 2 << 20);
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for (at, value) in
            [(0x0c, 0x00), (0x0c, 0x80), (0x0d, 0), (0x0d, 3), (0x0d, 0x81), (0x40, 0), (0x40, 0xe0), (0x44, 3)]
        {
            let mut bytes = sector();
            bytes[at] = value;
            assert!(Boot::parse(&bytes, 10 << 20).is_err(), "{value:#x} at {at:#x}");
        }
        assert!(Boot::parse(&sector(), 1 << 20).is_err());
        assert!(Boot::parse(&[0; 512], 10 << 20).unwrap().is_none());
    }
}
