//! The description of a volume group, from its text.
//!
//! Source: "Logical Volume Manager (LVM) format specification" (libvslvm) section 5.

use std::collections::HashMap;
use std::num::NonZeroU64;

use crate::error::{Error, Result};
use crate::volume::lvm2::text::{self, Section, Value};

/// Bytes of the unit that the text counts in, whatever the sectors of the disk.
const SECTOR: u64 = 512;
/// Longest name that LVM2 allows, in bytes.
const MAX_NAME: usize = 127;

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub id: String,
    /// Counts changes: of two descriptions the higher one is current.
    pub sequence: u64,
    /// Bytes of a physical extent.
    pub extent_len: NonZeroU64,
    /// Its physical volumes, by the name that stripes use.
    pub physical: HashMap<String, Physical>,
    /// Its logical volumes.
    pub volumes: Vec<Logical>,
}

/// A physical volume, as its group describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Physical {
    /// Its UUID.
    pub id: String,
    /// The device it was last seen on. Untrusted text.
    pub device: String,
    /// First byte of its first extent.
    pub start: u64,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical {
    /// Its name.
    pub name: String,
    /// Whether it is one for people, and no part of another.
    pub visible: bool,
    /// Its segments, in order and without gaps.
    pub mappings: Vec<Mapping>,
}

/// A segment of a logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its length in extents.
    pub extents: u64,
    /// Bytes of a stripe, where there are several.
    pub stripe_len: Option<NonZeroU64>,
    /// Physical volume and first extent of each stripe; none for zeros.
    pub stripes: Vec<(String, u64)>,
    /// The type, where it is one that is not read.
    pub unsupported: Option<String>,
}

fn corrupt(reason: &'static str) -> Error {
    Error::corrupt("LVM2 metadata", 0, reason)
}

/// Parses a description.
pub fn parse(bytes: &[u8]) -> Result<VolumeGroup> {
    let text = text::parse(bytes)?;
    let is_group = |(name, value): &(String, Value)| match value {
        Value::Section(section) => Some((name.clone(), section.clone())),
        _ => None,
    };
    let (name, group) = text.0.iter().find_map(is_group).ok_or_else(|| corrupt("it describes no group"))?;
    check_name(&name)?;
    let extent_len = group.number("extent_size").and_then(|sectors| sectors.checked_mul(SECTOR));
    let extent_len = extent_len.and_then(NonZeroU64::new).ok_or_else(|| corrupt("its extent size is missing"))?;
    let mut physical = HashMap::new();
    for (name, section) in sections(group.section("physical_volumes")) {
        let start = section.number("pe_start").and_then(|sectors| sectors.checked_mul(SECTOR));
        let described = Physical {
            id: section.text("id").ok_or_else(|| corrupt("a physical volume has no id"))?.to_owned(),
            device: section.text("device").unwrap_or("unknown").to_owned(),
            start: start.ok_or_else(|| corrupt("a physical volume does not say where its extents start"))?,
        };
        physical.insert(name.clone(), described);
    }
    let mut volumes = Vec::new();
    for (name, section) in sections(group.section("logical_volumes")) {
        check_name(name)?;
        volumes.push(logical(name, section)?);
    }
    Ok(VolumeGroup {
        name,
        id: group.text("id").ok_or_else(|| corrupt("the group has no id"))?.to_owned(),
        sequence: group.number("seqno").ok_or_else(|| corrupt("the group has no sequence number"))?,
        extent_len,
        physical,
        volumes,
    })
}

fn sections(parent: Option<&Section>) -> impl Iterator<Item = (&String, &Section)> {
    let entries = parent.map(|section| section.0.as_slice()).unwrap_or_default();
    entries.iter().filter_map(|(name, value)| match value {
        Value::Section(section) => Some((name, section)),
        _ => None,
    })
}

/// LVM2's own rule for names: it keeps them harmless in a path.
fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
    let proper = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(allowed);
    if proper && !name.starts_with('-') && name != "." && name != ".." {
        return Ok(());
    }
    Err(corrupt("a name is empty, too long or holds what LVM2 does not allow"))
}

fn logical(name: &str, section: &Section) -> Result<Logical> {
    let has_status = |status: &str| {
        let text = Value::Text(status.to_owned());
        section.list("status").is_some_and(|list| list.contains(&text))
    };
    let mut segments: Vec<(u64, Mapping)> = Vec::new();
    for (segment_name, segment) in sections(Some(section)) {
        if segment_name.strip_prefix("segment").is_none_or(|rest| rest.parse::<u32>().is_err()) {
            continue;
        }
        let start = segment.number("start_extent").ok_or_else(|| corrupt("a segment has no start"))?;
        segments.push((start, mapping(segment)?));
    }
    segments.sort_by_key(|(start, _)| *start);
    if section.number("segment_count") != u64::try_from(segments.len()).ok() || segments.is_empty() {
        return Err(corrupt("a volume has another number of segments than it says"));
    }
    let mut at = 0_u64;
    for (start, mapping) in &segments {
        if *start != at {
            return Err(corrupt("the segments of a volume overlap or leave a gap"));
        }
        at = at.checked_add(mapping.extents).ok_or_else(|| corrupt("a volume is longer than any disk"))?;
    }
    let mappings = segments.into_iter().map(|(_, mapping)| mapping).collect();
    Ok(Logical { name: name.to_owned(), visible: has_status("VISIBLE"), mappings })
}

fn mapping(segment: &Section) -> Result<Mapping> {
    let extents = segment.number("extent_count").filter(|count| *count > 0);
    let extents = extents.ok_or_else(|| corrupt("a segment is empty"))?;
    let kind = segment.text("type").ok_or_else(|| corrupt("a segment has no type"))?;
    // Flags can follow the type: "striped+NAME".
    if kind == "zero" {
        return Ok(Mapping { extents, stripe_len: None, stripes: Vec::new(), unsupported: None });
    }
    if !matches!(kind, "striped" | "linear") {
        return Ok(Mapping { extents, stripe_len: None, stripes: Vec::new(), unsupported: Some(kind.to_owned()) });
    }
    let list = segment.list("stripes").ok_or_else(|| corrupt("a segment has no stripes"))?;
    let (pairs, rest) = list.as_chunks::<2>();
    let mut stripes = Vec::with_capacity(pairs.len());
    for pair in pairs {
        match pair {
            [Value::Text(name), Value::Number(extent)] => {
                let extent = u64::try_from(*extent).map_err(|_| corrupt("a stripe starts before its volume"))?;
                stripes.push((name.clone(), extent));
            }
            _ => return Err(corrupt("a stripe is no volume and extent")),
        }
    }
    let count = u64::try_from(stripes.len()).unwrap_or(u64::MAX);
    if count == 0 || !rest.is_empty() || segment.number("stripe_count").is_some_and(|told| told != count) {
        return Err(corrupt("a segment has another number of stripes than it says"));
    }
    let stripe_len = segment.number("stripe_size").and_then(|sectors| sectors.checked_mul(SECTOR));
    let stripe_len = stripe_len.and_then(NonZeroU64::new);
    if count > 1 && stripe_len.is_none() {
        return Err(corrupt("a striped segment has no stripe size"));
    }
    Ok(Mapping { extents, stripe_len, stripes, unsupported: None })
}
