//! The catalogue: which packs and generations an image has.
//!
//! Source: docs/format.md section 5.

use crate::bytes::{array, le32, le64};
use crate::error::{Error, Result};
use crate::image::id::{Id, Place};

const HEADER_LEN: usize = 16;
const PACK_LEN: usize = 56;
const GENERATION_LEN: usize = 64;
const FLAG_REPLACED: u32 = 1;

/// A finished pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackEntry {
    /// Its number.
    pub number: u32,
    /// Its length in bytes.
    pub file_len: u64,
    /// The pack whose place map says where its frames lie now, where it was replaced.
    pub replaced_by: Option<u32>,
    /// Its footer's hash.
    pub footer_hash: [u8; 32],
}

/// A finished generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationEntry {
    /// Its number, from 1.
    pub number: u32,
    /// Seconds since 1970.
    pub created: u64,
    /// Where its record lies.
    pub record: Place,
    /// Proves its record.
    pub record_id: Id,
}

/// What every pack ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The number of the next generation; at least 1.
    pub next_generation: u32,
    /// Ascending by number.
    pub packs: Vec<PackEntry>,
    /// Ascending by number.
    pub generations: Vec<GenerationEntry>,
}

impl Catalogue {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let count = |len: usize| u32::try_from(len).expect("a catalogue holds below 2^32 entries").to_le_bytes();
        let mut out = Vec::new();
        out.extend_from_slice(&1_u32.to_le_bytes());
        out.extend_from_slice(&count(self.packs.len()));
        out.extend_from_slice(&count(self.generations.len()));
        out.extend_from_slice(&self.next_generation.to_le_bytes());
        for pack in &self.packs {
            out.extend_from_slice(&pack.number.to_le_bytes());
            let flags = if pack.replaced_by.is_some() { FLAG_REPLACED } else { 0 };
            out.extend_from_slice(&flags.to_le_bytes());
            out.extend_from_slice(&pack.file_len.to_le_bytes());
            out.extend_from_slice(&pack.replaced_by.unwrap_or(0).to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&pack.footer_hash);
        }
        for generation in &self.generations {
            out.extend_from_slice(&generation.number.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&generation.created.to_le_bytes());
            generation.record.encode(&mut out);
            out.extend_from_slice(&generation.record_id.0);
        }
        out
    }

    /// Parses the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let corrupt = |reason| Error::corrupt("catalogue", 0, reason);
        let short = || corrupt("it is cut short");
        if le32(bytes, 0).ok_or_else(short)? != 1 {
            return Err(Error::unsupported("catalogue", "its version is not 1"));
        }
        let count = |at| le32(bytes, at).and_then(|count| usize::try_from(count).ok()).ok_or_else(short);
        let (pack_count, generation_count) = (count(4)?, count(8)?);
        let next_generation = le32(bytes, 12).ok_or_else(short)?;
        // The length is compared before anything is allocated by the counts.
        let packs_len = pack_count.checked_mul(PACK_LEN).ok_or_else(short)?;
        let generations_start = packs_len.checked_add(HEADER_LEN).ok_or_else(short)?;
        let generations_len = generation_count.checked_mul(GENERATION_LEN).ok_or_else(short)?;
        if generations_start.checked_add(generations_len) != Some(bytes.len()) {
            return Err(corrupt("its length does not match its counts"));
        }
        let packs = bytes.get(HEADER_LEN..generations_start).ok_or_else(short)?;
        let packs = packs
            .chunks_exact(PACK_LEN)
            .map(|raw| parse_pack(raw).ok_or_else(|| corrupt("a pack entry breaks its rules")));
        let packs = packs.collect::<Result<Vec<_>>>()?;
        let generations = bytes.get(generations_start..).ok_or_else(short)?;
        let generations = generations
            .chunks_exact(GENERATION_LEN)
            .map(|raw| parse_generation(raw).ok_or_else(|| corrupt("a generation entry breaks its rules")));
        let generations = generations.collect::<Result<Vec<_>>>()?;
        if !packs.is_sorted_by(|a, b| a.number < b.number) || !generations.is_sorted_by(|a, b| a.number < b.number) {
            return Err(corrupt("its entries are not in ascending order"));
        }
        if generations.last().is_some_and(|last| last.number >= next_generation) || next_generation == 0 {
            return Err(corrupt("its next generation number is one that is in use"));
        }
        Ok(Self { next_generation, packs, generations })
    }
}

fn parse_pack(raw: &[u8]) -> Option<PackEntry> {
    let (flags, replaced_by) = (le32(raw, 4)?, le32(raw, 16)?);
    if flags & !FLAG_REPLACED != 0 || le32(raw, 20)? != 0 || (flags == 0 && replaced_by != 0) {
        return None;
    }
    Some(PackEntry {
        number: le32(raw, 0)?,
        file_len: le64(raw, 8)?,
        replaced_by: (flags & FLAG_REPLACED != 0).then_some(replaced_by),
        footer_hash: array(raw, 24)?,
    })
}

fn parse_generation(raw: &[u8]) -> Option<GenerationEntry> {
    if le32(raw, 4)? != 0 || le32(raw, 0)? == 0 {
        return None;
    }
    Some(GenerationEntry {
        number: le32(raw, 0)?,
        created: le64(raw, 8)?,
        record: Place::decode(raw, 16)?,
        record_id: Id(array(raw, 32)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalogue_comes_back_as_it_was() {
        let pack = |number, replaced_by| PackEntry { number, file_len: 1 << 33, replaced_by, footer_hash: [9; 32] };
        let place = Place { pack: 7, offset: 1 << 40, len: 99 };
        let generation = |number| GenerationEntry { number, created: 5, record: place, record_id: Id([3; 32]) };
        let catalogue = Catalogue {
            next_generation: 9,
            packs: vec![pack(0, Some(7)), pack(7, None)],
            generations: vec![generation(1), generation(8)],
        };
        let bytes = catalogue.encode();
        assert_eq!(bytes.len(), 16 + 2 * 56 + 2 * 64);
        assert_eq!(Catalogue::decode(&bytes).unwrap(), catalogue);
        for len in 0..bytes.len() {
            assert!(Catalogue::decode(&bytes[..len]).is_err());
        }
        let unsorted = Catalogue { packs: vec![pack(7, None), pack(0, None)], ..catalogue };
        assert!(Catalogue::decode(&unsorted.encode()).is_err());
    }
}
