//! Changes names in files, in place and by the same number of bytes, and only where nothing else depends on those bytes.
//!
//! A file is changed where its bytes lie in ordinary clusters or blocks, or in the MFT record of NTFS apart from the ends of sectors. What was changed is read back
//! through the filesystem; where the file does not say then exactly what it should, it stays as it was and is listed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, Slice, read_vec};
use crate::error::{Error, Result, full_message};
use crate::filesystem::files::{Content, NodeId};
use crate::filesystem::{self, open_files};
use crate::restore::identity::ids::Mapping;
use crate::restore::wanted::Wanted;
use crate::startup::Startup;
use crate::startup::reference::{Reference, Spot};
use crate::startup::volumes::Volume;

/// Longest file that is compared as a whole after a change.
const MAX_COMPARED: u64 = 4 << 20;
/// Bytes between the places of an MFT record that hold its update sequence.
const STRIDE: usize = 512;

/// What was repaired, and what was left with the reason.
type Outcome<'a> = (Vec<&'a Reference>, Vec<(&'a Reference, String)>);

/// Repairs all references of `startup` that a new identity touches.
pub(super) fn files<'a>(wanted: &mut Wanted, startup: &'a Startup, mapping: &Mapping) -> Result<Outcome<'a>> {
    let mut groups: BTreeMap<(usize, NodeId), Vec<&Reference>> = BTreeMap::new();
    let mut left = Vec::new();
    for reference in &startup.references {
        let changes = super::renewed(&reference.names, mapping) != reference.names;
        if !changes || reference.names.on_this_disk(&startup.volumes).is_none() {
            continue;
        }
        if let Some(reason) = reference.fixed {
            left.push((reference, reason.to_owned()));
        } else if reference.spots.is_empty() {
            left.push((reference, "it does not lie in one piece".into()));
        } else {
            groups.entry((reference.volume, reference.node)).or_default().push(reference);
        }
    }
    let mut repaired = Vec::new();
    for ((index, node), references) in groups {
        let volume = startup.volumes.get(index);
        let mut trial = wanted.clone();
        match repair(&mut trial, volume, node, &references, mapping) {
            Ok(()) => {
                *wanted = trial;
                repaired.extend(references);
            }
            Err(Error::Refused(reason)) => left.extend(references.iter().map(|reference| (*reference, reason.clone()))),
            Err(error) => {
                let reason = full_message(&error);
                left.extend(references.iter().map(|reference| (*reference, reason.clone())));
            }
        }
    }
    Ok((repaired, left))
}

fn refused(reason: impl Into<String>) -> Error {
    Error::Refused(reason.into())
}

/// Changes one file, and reads it back.
fn repair(
    wanted: &mut Wanted,
    volume: &Volume,
    node: NodeId,
    references: &[&Reference],
    mapping: &Mapping,
) -> Result<()> {
    let Some(partition) = &volume.partition else {
        return Err(refused(format!("it lies in a {}", volume.name)));
    };
    let range = partition.range.clone();
    let slice = partition_of(wanted, &range)?;
    if let Some(used) = filesystem::open(&slice)?
        && let Some(doubt) = used.doubts()?.first()
    {
        return Err(refused(format!("the filesystem is not at rest: {doubt}")));
    }
    let files = volume.files().ok_or_else(|| refused("its filesystem is not read"))?;
    let content = files.open(node, None)?;
    let mut changes: Vec<(Range<u64>, Vec<u8>)> = Vec::new();
    for Spot { range, form } in references.iter().flat_map(|reference| &reference.spots) {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut old = vec![0; len];
        content.read_at(&mut old, range.start)?;
        if let Some(new) = mapping.bytes(*form, &old) {
            changes.push((range.clone(), new));
        } else if mapping.touches(*form, &old) {
            return Err(refused("the new name has another length"));
        }
    }
    for (at, new) in &changes {
        for (place, part) in locate(&*content, &slice, volume, at)? {
            let bytes = new.get(part).unwrap_or_default();
            wanted.patch(range.start.saturating_add(place), bytes);
        }
    }
    let fresh = open_files(&partition_of(wanted, &range)?)?.ok_or_else(|| refused("its filesystem is no more"))?;
    let changed = fresh.open(node, None)?;
    if is_as_wanted(&*content, &*changed, &changes)? {
        Ok(())
    } else {
        Err(refused("it does not read back as it should"))
    }
}

fn partition_of(wanted: &Wanted, range: &Range<u64>) -> Result<Arc<dyn Disk>> {
    Ok(Arc::new(Slice::open(wanted.clone(), range.clone())?))
}

/// Says whether a file reads as it was but for the changes.
fn is_as_wanted(old: &dyn Content, new: &dyn Content, changes: &[(Range<u64>, Vec<u8>)]) -> Result<bool> {
    if old.len() != new.len() {
        return Ok(false);
    }
    if old.len() <= MAX_COMPARED {
        let mut model = vec![0; usize::try_from(old.len()).unwrap_or(0)];
        let mut found = model.clone();
        old.read_at(&mut model, 0)?;
        new.read_at(&mut found, 0)?;
        for (range, bytes) in changes {
            let at = usize::try_from(range.start).unwrap_or(usize::MAX);
            if let Some(place) = model.get_mut(at..at.saturating_add(bytes.len())) {
                place.copy_from_slice(bytes);
            }
        }
        return Ok(model == found);
    }
    for (range, bytes) in changes {
        let mut found = vec![0; bytes.len()];
        new.read_at(&mut found, range.start)?;
        if found != *bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where bytes of a file lie in its partition: places, with the part of the bytes that lies there.
fn locate(
    content: &dyn Content,
    partition: &Arc<dyn Disk>,
    volume: &Volume,
    at: &Range<u64>,
) -> Result<Vec<(u64, Range<usize>)>> {
    let places = content.places().ok_or_else(|| refused("it is not known where its bytes lie"))?;
    let mut old = vec![0; usize::try_from(at.end.saturating_sub(at.start)).unwrap_or(0)];
    content.read_at(&mut old, at.start)?;
    let pieces = pieces_of(&places, at);
    let mut there = Vec::new();
    for (place, part) in &pieces {
        there.extend(read_vec(&**partition, *place, part.len())?);
    }
    if there == old {
        return Ok(pieces);
    }
    match places.as_slice() {
        [record] if volume.content == "NTFS" && content.len() < 4096 => in_record(content, partition, record, at),
        _ => Err(refused("its bytes do not lie in the partition as they are: it is compressed, or has holes")),
    }
}

/// Bytes `at` of a content whose places follow each other.
fn pieces_of(places: &[Range<u64>], at: &Range<u64>) -> Vec<(u64, Range<usize>)> {
    let mut pieces = Vec::new();
    let mut start = 0_u64;
    for place in places {
        let end = start.saturating_add(place.end.saturating_sub(place.start));
        let (from, to) = (at.start.max(start), at.end.min(end));
        if from < to {
            let offset = |position: u64| usize::try_from(position.saturating_sub(at.start)).unwrap_or(0);
            pieces.push((place.start.saturating_add(from.saturating_sub(start)), offset(from)..offset(to)));
        }
        start = end;
    }
    pieces
}

/// Where bytes of a file lie that is kept in its MFT record. The last two bytes of each sector of a record are its update sequence's, and their content
/// lies elsewhere: bytes there are not changed.
///
/// Source: [MS-FSA] and the NTFS documentation of the Linux-NTFS project, "FILE record", "Fixup".
fn in_record(
    content: &dyn Content,
    partition: &Arc<dyn Disk>,
    record: &Range<u64>,
    at: &Range<u64>,
) -> Result<Vec<(u64, Range<usize>)>> {
    let record_len = usize::try_from(record.end.saturating_sub(record.start)).unwrap_or(0).min(64 << 10);
    let bytes = read_vec(&**partition, record.start, record_len)?;
    let mut whole = vec![0; usize::try_from(content.len()).unwrap_or(0)];
    content.read_at(&mut whole, 0)?;
    let is_sequence = |place: usize| place % STRIDE >= STRIDE.saturating_sub(2);
    let fits = |start: usize| {
        let pairs = whole.iter().zip(bytes.iter().skip(start)).zip(start..);
        whole.len() <= bytes.len().saturating_sub(start)
            && pairs.into_iter().all(|((wanted, found), place)| wanted == found || is_sequence(place))
    };
    let mut starts = (0..bytes.len()).filter(|start| fits(*start));
    let (Some(start), None) = (starts.next(), starts.next()) else {
        return Err(refused("it is not found in its MFT record"));
    };
    let offset = usize::try_from(at.start).unwrap_or(usize::MAX).saturating_add(start);
    let len = usize::try_from(at.end.saturating_sub(at.start)).unwrap_or(0);
    if (offset..offset.saturating_add(len)).any(is_sequence) {
        return Err(refused("it lies across the end of a sector of its MFT record"));
    }
    let place = record.start.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX));
    Ok(vec![(place, 0..len)])
}
