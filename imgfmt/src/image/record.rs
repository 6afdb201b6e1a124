//! The generation record: JSON, so that a person can read it in twenty years.
//!
//! Source: docs/format.md section 6.2.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::identity::Identity;
use crate::image::id::{Id, Place, Pointer};

/// One generation, as it was captured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the record: 1.
    pub format: u32,
    /// Image id, 32 hexadecimal digits.
    pub image: String,
    /// Number of the generation.
    pub generation: u32,
    /// Time of the capture, RFC 3339, UTC.
    pub created: String,
    /// Program and version.
    pub tool: String,
    /// The tree.
    pub root: Root,
    /// The disk.
    pub disk: DiskShape,
    /// Bytes in a chunk.
    pub chunk_size: u32,
    /// Where the bytes came from.
    #[serde(default)]
    pub source: Source,
    /// The partition table.
    #[serde(default)]
    pub layout: LayoutRecord,
    /// Boot structures with their digests.
    #[serde(default)]
    pub structures: Vec<StructureRecord>,
    /// What was done with each partition.
    #[serde(default)]
    pub partitions: Vec<PartitionRecord>,
    /// Files whose content was not stored.
    #[serde(default)]
    pub elided: Vec<ElidedRecord>,
    /// Unreadable runs, `[start, len]` in bytes.
    #[serde(default)]
    pub bad: Vec<(u64, u64)>,
    /// What the user was warned of.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// How it was captured.
    #[serde(default)]
    pub options: OptionsRecord,
    /// A short name that the user gave.
    #[serde(default)]
    pub label: Option<String>,
    /// A longer text that the user gave.
    #[serde(default)]
    pub note: Option<String>,
    /// Sums.
    #[serde(default)]
    pub counts: Counts,
}

/// The root node and where it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Id, 64 hexadecimal digits.
    pub id: String,
    /// Pack number.
    pub pack: u32,
    /// Offset of the frame in bytes.
    pub offset: u64,
    /// Length of the frame in bytes.
    pub len: u32,
    /// Level of the node.
    pub level: u8,
}

/// Length and sector sizes of the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskShape {
    /// Length in bytes.
    pub len: u64,
    /// Logical sector size in bytes: 512 or 4096.
    pub logical_sector_size: u32,
    /// Physical sector size in bytes.
    pub physical_sector_size: u32,
}

/// The disk that was captured, so that the next capture can tell whether it is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Path as it was given, made absolute.
    pub path: String,
    /// "file" or "block device".
    pub kind: String,
    /// Model, where the system tells.
    pub model: Option<String>,
    /// Serial number, where the system tells.
    pub serial: Option<String>,
    /// Whether it was in use while it was read.
    #[serde(default)]
    pub live: bool,
    /// The volumes of it that were read from shadow copies, as they were at one moment, in the words of the system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow_copies: Vec<String>,
}

/// The partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutRecord {
    /// "none", "MBR", "GPT", "GPT with hybrid MBR".
    pub scheme: String,
    /// Disk signature or GUID.
    pub id: String,
    /// What is wrong with the table, in words.
    pub problems: Vec<String>,
    /// The partitions.
    pub partitions: Vec<LayoutPartition>,
}

/// One entry of the partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutPartition {
    /// Number as Linux counts.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// MBR type byte or GPT type GUID.
    #[serde(rename = "type")]
    pub type_code: String,
    /// The type in words.
    pub type_name: String,
    /// GPT name.
    pub name: String,
    /// Partition GUID.
    pub id: String,
    /// Boot indicator.
    pub active: bool,
}

/// A boot structure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StructureRecord {
    /// Its name.
    pub what: String,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// BLAKE3 of its bytes.
    pub blake3: String,
}

/// What was done with a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// Number as in the layout.
    pub number: u32,
    /// "NTFS", "ext4", "LUKS", or empty.
    pub filesystem: String,
    /// Volume label.
    pub label: String,
    /// Serial or UUID of the filesystem.
    pub id: String,
    /// Cluster or block size in bytes, 0 where unknown.
    pub block_size: u64,
    /// "used blocks" or "whole".
    pub captured: String,
    /// Why it was captured whole.
    pub reasons: Vec<String>,
    /// Bytes that were wanted.
    pub used: u64,
    /// Verdict of the closure check.
    pub closure: String,
}

/// A file whose content was not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElidedRecord {
    /// Partition number.
    pub partition: u32,
    /// Path in the filesystem.
    pub path: String,
    /// Bytes that were left out.
    pub bytes: u64,
    /// `[start, len]` on the disk.
    pub ranges: Vec<(u64, u64)>,
    /// What the user should know.
    pub warning: Option<String>,
}

/// How a generation was captured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionsRecord {
    /// Unallocated space was kept too.
    pub all_blocks: bool,
    /// Page files and swap were kept too.
    pub keep_swap: bool,
    /// "none", "lz4", "zstd:1".
    pub compression: String,
    /// Every new chunk was decoded and hashed again before the generation was finished.
    pub decode_verified: bool,
    /// The user said that it is the same disk although it looked different.
    #[serde(default)]
    pub same_disk: bool,
}

/// Sums over the generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Bytes of Data.
    pub data: u64,
    /// Bytes of Zero.
    pub zero: u64,
    /// Bytes of Absent.
    pub absent: u64,
    /// Bytes of Bad.
    pub bad: u64,
    /// Chunks stored whole by this capture.
    pub chunks_new: u64,
    /// Chunks stored as a difference by this capture.
    pub chunks_difference: u64,
    /// Chunks that the image had already.
    pub chunks_reused: u64,
    /// Bytes that the capture added to the image, without the ends of its packs.
    pub stored: u64,
}

impl Record {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record has no maps with keys that are no text")
    }

    /// Parses and checks what the tree is read by. Everything else is for people.
    pub fn decode(json: &[u8]) -> Result<Self> {
        let corrupt = |reason| Error::corrupt("generation record", 0, reason);
        let record: Self = serde_json::from_slice(json).map_err(|_| corrupt("it is not the JSON that it should be"))?;
        if record.format != 1 {
            return Err(Error::unsupported("generation record", format!("version {}", record.format)));
        }
        if record.disk.len == 0 {
            return Err(corrupt("its disk has no bytes"));
        }
        if !matches!(record.disk.logical_sector_size, 512 | 4096) {
            return Err(corrupt("its sector size is neither 512 nor 4096"));
        }
        if Id::from_hex(&record.root.id).is_none() {
            return Err(corrupt("its root is no id"));
        }
        Ok(record)
    }

    /// The root node.
    pub fn root_pointer(&self) -> Result<Pointer> {
        let id =
            Id::from_hex(&self.root.id).ok_or_else(|| Error::corrupt("generation record", 0, "its root is no id"))?;
        let place = Place { pack: self.root.pack, offset: self.root.offset, len: self.root.len };
        Ok(Pointer { id, place })
    }

    /// Seconds since 1970 of [`Record::created`]; 0 where that does not parse.
    pub fn created_seconds(&self) -> u64 {
        let time = self.created.parse::<jiff::Timestamp>().ok();
        time.and_then(|time| u64::try_from(time.as_second()).ok()).unwrap_or(0)
    }

    /// Where the identifiers of the virtual disk files come from that show this generation.
    pub fn identity(&self) -> Identity {
        Identity::of(&[&self.image, &self.generation.to_string(), &self.root.id], self.created_seconds())
    }

    /// The folder name of the generation in a mount: `0012_2026-11-15T093000Z`.
    pub fn folder_name(&self) -> String {
        folder_name(self.generation, self.created_seconds())
    }
}

/// The folder name of generation `number`, captured so many seconds after 1970: `0012_2026-11-15T093000Z`, UTC and without a colon.
pub fn folder_name(number: u32, created: u64) -> String {
    let time = i64::try_from(created).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    format!("{number:04}_{}", time.unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%dT%H%M%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_sort_by_number_and_hold_no_colon() {
        assert_eq!(folder_name(12, 1_794_735_000), "0012_2026-11-15T093000Z");
        assert_eq!(folder_name(123_456, 0), "123456_1970-01-01T000000Z");
        assert_eq!(folder_name(1, u64::MAX), "0001_9999-12-30T220000Z");
        let record = Record { generation: 12, created: "2026-11-15T09:30:00Z".into(), ..Record::default() };
        assert_eq!(record.folder_name(), "0012_2026-11-15T093000Z");
    }
}
