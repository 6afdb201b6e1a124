//! The map from places in packs that pruning replaced to where their frames lie now.
//!
//! Source: docs/format.md section 7.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::bytes::le32;
use crate::error::{Error, Result};
use crate::image::catalogue::Catalogue;
use crate::image::codec::Decompressor;
use crate::image::id::{Id, Place};
use crate::image::layout::{Codec, FrameType, context};
use crate::image::reader::Image;

const HEADER_LEN: usize = 8;
const ENTRY_LEN: usize = 32;
const MAX_ENTRIES: usize = 65536;

/// The places of one segment, ascending by old place.
type Segment = Arc<Vec<(Place, Place)>>;

/// Reads a decoded segment.
pub fn decode_segment(bytes: &[u8]) -> Result<Vec<(Place, Place)>> {
    let corrupt = |reason| Error::corrupt("place map segment", 0, reason);
    let count = le32(bytes, 0).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    if count == 0 || count > MAX_ENTRIES || le32(bytes, 4) != Some(0) {
        return Err(corrupt("its header breaks its rules"));
    }
    let entries = bytes.get(HEADER_LEN..).unwrap_or_default();
    if Some(entries.len()) != count.checked_mul(ENTRY_LEN) {
        return Err(corrupt("its length does not match its count"));
    }
    let places: Option<Vec<_>> =
        entries.chunks_exact(ENTRY_LEN).map(|raw| Some((Place::decode(raw, 0)?, Place::decode(raw, 16)?))).collect();
    let places = places.ok_or_else(|| corrupt("it is cut short"))?;
    if !places.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(corrupt("its entries are not in ascending order"));
    }
    Ok(places)
}

/// The stored form of a segment, before compression.
pub fn encode_segment(places: &[(Place, Place)]) -> Vec<u8> {
    let count = u32::try_from(places.len()).expect("a segment has at most 65536 entries");
    let mut out = count.to_le_bytes().to_vec();
    out.extend_from_slice(&[0; 4]);
    for (old, new) in places {
        old.encode(&mut out);
        new.encode(&mut out);
    }
    out
}

/// First old place and place of each segment of a map.
type Fences = Arc<Vec<(Place, Place)>>;

/// The maps of an image. Segments are loaded when they are first needed; few are kept.
#[derive(Debug)]
pub(crate) struct PlaceMaps {
    /// Replaced pack -> pack with the map.
    replaced: HashMap<u32, u32>,
    /// Pack with a map -> first old place and place of each segment.
    fences: Mutex<HashMap<u32, Fences>>,
    /// Segments by place.
    segments: Mutex<HashMap<Place, Segment>>,
}

/// Segments kept at once: 2 MiB each at most.
const MAX_SEGMENTS: usize = 8;

impl PlaceMaps {
    pub(crate) fn new(catalogue: &Catalogue) -> Self {
        let replaced = catalogue.packs.iter().filter_map(|pack| Some((pack.number, pack.replaced_by?))).collect();
        Self { replaced, fences: Mutex::default(), segments: Mutex::default() }
    }

    pub(crate) fn resolve(&self, image: &Image, place: Place) -> Result<Place> {
        let Some(&by) = self.replaced.get(&place.pack) else { return Ok(place) };
        let fences = self.fences_of(image, by)?;
        let after = fences.partition_point(|(first, _)| *first <= place);
        let segment = after.checked_sub(1).and_then(|index| fences.get(index));
        let entry = match segment {
            None => None,
            Some((_, segment)) => {
                let places = self.segment(image, *segment)?;
                let found = places.binary_search_by_key(&place, |(old, _)| *old).ok();
                found.and_then(|index| places.get(index).map(|(_, new)| *new))
            }
        };
        let name = image.store().name(by);
        match entry {
            None => Err(Error::corrupt(
                format_args!("place map of {name}"),
                place.offset,
                "it does not list a frame in use",
            )),
            Some(new) if self.replaced.contains_key(&new.pack) => {
                Err(Error::corrupt(format_args!("place map of {name}"), place.offset, "it points into a replaced pack"))
            }
            Some(new) => Ok(new),
        }
    }

    fn fences_of(&self, image: &Image, by: u32) -> Result<Arc<Vec<(Place, Place)>>> {
        if let Some(fences) = self.fences.lock().expect("no holder of the lock panics").get(&by) {
            return Ok(Arc::clone(fences));
        }
        let pack = image.pack(by)?;
        let footer = pack.footer()?;
        let mut fences = Vec::new();
        let mut at = footer.place_map_offset;
        for _ in 0..footer.place_map_count {
            let (_, place) = pack.frame_header_at(at)?;
            let places = self.segment(image, place)?;
            fences.extend(places.first().map(|(first, _)| (*first, place)));
            at = place.end();
        }
        if !fences.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Error::corrupt(
                "place map",
                footer.place_map_offset,
                "its segments are not in ascending order",
            ));
        }
        let fences = Arc::new(fences);
        self.fences.lock().expect("no holder of the lock panics").insert(by, Arc::clone(&fences));
        Ok(fences)
    }

    fn segment(&self, image: &Image, place: Place) -> Result<Segment> {
        if let Some(segment) = self.segments.lock().expect("no holder of the lock panics").get(&place) {
            return Ok(Arc::clone(segment));
        }
        let pack = image.pack(place.pack)?;
        let mut buf = Vec::new();
        let (frame, payload) = pack.read_frame(place, &mut buf)?;
        let corrupt = |reason| Error::corrupt(format_args!("place map in {}", pack.name()), place.offset, reason);
        if frame.frame_type != FrameType::PlaceMap || frame.codec == Codec::ZstdWithBase {
            return Err(corrupt("a frame of another type lies there"));
        }
        let mut bytes = vec![0; usize::try_from(frame.logical_len).unwrap_or(0)];
        Decompressor::default().decode(frame.codec, payload, &mut bytes)?;
        if Id::derived(context::PLACE_MAP, &bytes) != frame.id {
            return Err(corrupt("its content does not match its id"));
        }
        let segment = Arc::new(decode_segment(&bytes)?);
        let mut segments = self.segments.lock().expect("no holder of the lock panics");
        if segments.len() >= MAX_SEGMENTS {
            segments.clear();
        }
        segments.insert(place, Arc::clone(&segment));
        Ok(segment)
    }
}
