//! Partition tables: where partitions lie, what is wrong with the table, and which structures a restore needs.
//!
//! Reading a layout never fails because of what the table says: damage becomes a problem line, and a partition that makes no sense is
//! marked, so that its bytes are kept like those of a gap.

pub mod digest;
pub mod edit;
pub mod gpt;
pub mod mbr;
pub mod signature;
pub mod single;

use std::ops::Range;

use crate::disk::{Disk, read_vec};
use crate::error::Result;

/// The kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// No table: the whole disk is partition 1.
    None,
    /// Master boot record.
    Mbr,
    /// GUID partition table.
    Gpt,
    /// GUID partition table whose MBR also lists partitions.
    HybridGpt,
}

impl Scheme {
    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
            Self::HybridGpt => "GPT with hybrid MBR",
        }
    }
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// As Linux counts: 1 to 4 and logical ones from 5 on, or the GPT entry's index plus 1.
    pub number: u32,
    /// Bytes of the disk.
    pub range: Range<u64>,
    /// MBR type as two hexadecimal digits, or GPT type GUID in upper case.
    pub type_code: String,
    /// The type in words; empty where it is not known.
    pub type_name: &'static str,
    /// GPT name. Untrusted text.
    pub name: String,
    /// GPT partition GUID; for MBR the disk signature and the number, as Linux writes it.
    pub id: String,
    /// MBR boot indicator, or GPT legacy boot attribute.
    pub active: bool,
    /// GPT attribute bits.
    pub attributes: u64,
    /// Why it is not treated as a partition: it overlaps another or leaves the disk.
    pub unusable: Option<&'static str>,
}

/// A piece of the disk that makes it boot or says where partitions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Its name.
    pub what: String,
    /// Bytes of the disk.
    pub range: Range<u64>,
}

/// What a disk's table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The kind of table.
    pub scheme: Scheme,
    /// MBR disk signature as eight hexadecimal digits, or GPT disk GUID; empty without a table.
    pub disk_id: String,
    /// By number.
    pub partitions: Vec<Partition>,
    /// What is wrong, in phrases for people.
    pub problems: Vec<String>,
    /// Boot code and tables.
    pub structures: Vec<Structure>,
}

/// Reads the table of a disk. Fails only where the disk cannot be read at its start.
pub fn read_layout(disk: &dyn Disk) -> Result<Layout> {
    let mut layout = Layout {
        scheme: Scheme::None,
        disk_id: String::new(),
        partitions: Vec::new(),
        problems: Vec::new(),
        structures: Vec::new(),
    };
    let sector = u64::from(disk.sector_size());
    if disk.len() < 512 {
        layout.partitions.push(whole_disk(disk));
        return Ok(layout);
    }
    let first = read_vec(disk, 0, 512)?;
    let table = mbr::parse_sector(&first);
    let has_gpt = gpt::read(disk, &first, table.as_ref(), &mut layout)?;
    if !has_gpt {
        match table {
            Some(table) if !mbr::looks_like_boot_sector(&first) || mbr::is_plausible(&table, disk) => {
                mbr::read(disk, &table, &mut layout)?;
            }
            _ => layout.partitions.push(whole_disk(disk)),
        }
    }
    if layout.scheme != Scheme::None {
        layout.structures.insert(0, Structure { what: "MBR".into(), range: 0..sector.min(disk.len()) });
    }
    mark_unusable(&mut layout, disk.len());
    Ok(layout)
}

fn whole_disk(disk: &dyn Disk) -> Partition {
    Partition { number: 1, range: 0..disk.len(), ..Partition::default() }
}

/// Marks partitions that leave the disk or overlap an earlier one; both of two that overlap.
fn mark_unusable(layout: &mut Layout, disk_len: u64) {
    let mut order: Vec<usize> = (0..layout.partitions.len()).collect();
    order.sort_by_key(|index| layout.partitions.get(*index).map(|partition| partition.range.start));
    let mut furthest: Option<(u64, usize)> = None;
    for index in order {
        let Some(range) = layout.partitions.get(index).map(|partition| partition.range.clone()) else { continue };
        let mut mark = |index: usize, reason| {
            if let Some(partition) = layout.partitions.get_mut(index) {
                partition.unusable = Some(reason);
                layout.problems.push(format!("partition {} {reason}", partition.number));
            }
        };
        if range.end > disk_len {
            mark(index, "reaches past the end of the disk");
        }
        if let Some((end, other)) = furthest.filter(|(end, _)| *end > range.start) {
            mark(index, "overlaps another partition");
            mark(other, "overlaps another partition");
            furthest = Some(if end >= range.end { (end, other) } else { (range.end, index) });
        } else {
            furthest = Some((range.end, index));
        }
    }
    layout.problems.dedup();
}

/// The logical sector size that a raw file's table speaks for: 4096 where a GPT header lies at byte 4096, else 512.
pub fn detect_sector_size(disk: &dyn Disk) -> u32 {
    let at = |offset| read_vec(disk, offset, 8).is_ok_and(|bytes| bytes == *b"EFI PART");
    if !at(512) && at(4096) { 4096 } else { 512 }
}
