//! The stored objects of an image, decoded: nodes, records, catalogues, place maps, table blocks and frames.
//!
//! The oracle: what is accepted is canonical, so it encodes to the same bytes again.

use imgfmt::bytes::{le16, u8_at};
use imgfmt::image::catalogue::Catalogue;
use imgfmt::image::frame;
use imgfmt::image::id::{Id, Place};
use imgfmt::image::node::{Node, Shape};
use imgfmt::image::place_map::{decode_segment, encode_segment};
use imgfmt::image::record::Record;
use imgfmt::image::table::{self, BLOCK_ENTRIES, BLOCK_LEN, Block};

/// Chunk size that lengths are held against.
const CHUNK: u32 = 65536;

/// The first byte says which parser the rest goes to.
pub fn run(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 6 {
        0 => node(bytes),
        1 => record(bytes),
        2 => catalogue(bytes),
        3 => place_map(bytes),
        4 => table_block(bytes),
        _ => frame_of(bytes),
    }
}

fn node(bytes: &[u8]) {
    let (Some(level), Some(slots)) = (u8_at(bytes, 0), le16(bytes, 2)) else { return };
    let shape = Shape { level, slots: slots.into(), chunk_size: CHUNK.into(), last_chunk_len: 1100 };
    if let Ok(node) = Node::decode(bytes, &shape) {
        assert_eq!(node.encode(), bytes, "a node is stored in one way only");
        assert_eq!(node.slots.len(), usize::from(slots));
        assert_eq!(Node::id_of_stored(bytes).expect("it was decoded"), node.id());
    }
    let _ = Node::id_of_stored(bytes);
}

fn record(bytes: &[u8]) {
    if let Ok(record) = Record::decode(bytes) {
        assert!(record.root_pointer().is_ok());
        assert!(record.folder_name().chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)));
        record.created_seconds();
        assert_eq!(Record::decode(&record.encode()).expect("what was decoded can be encoded"), record);
    }
}

fn catalogue(bytes: &[u8]) {
    if let Ok(catalogue) = Catalogue::decode(bytes) {
        assert_eq!(catalogue.encode(), bytes, "a catalogue is stored in one way only");
    }
}

fn place_map(bytes: &[u8]) {
    if let Ok(places) = decode_segment(bytes) {
        assert_eq!(encode_segment(&places), bytes, "a segment is stored in one way only");
    }
}

/// The checksum is made right first, or nothing would come past it.
fn table_block(bytes: &[u8]) {
    let mut block = bytes.to_vec();
    block.resize(BLOCK_LEN, 0);
    let checksum = crc32fast::hash(block.get(4..).unwrap_or_default()).to_le_bytes();
    block.get_mut(..4).expect("a block is longer").copy_from_slice(&checksum);
    if let Ok(parsed) = Block::parse(&block, 0) {
        let entries: Vec<_> = parsed.iter().collect();
        assert!(!entries.is_empty() && entries.len() <= BLOCK_ENTRIES);
        if entries.is_sorted() {
            for entry in &entries {
                let found = table::lookup(&block, &entry.id).expect("the block is good");
                assert_eq!(found.map(|found| found.id), Some(entry.id), "what is listed is found");
            }
        }
        let _ = table::lookup(&block, &Id([0x7f; 32]));
    }
}

fn frame_of(bytes: &[u8]) {
    let place = Place { pack: 0, offset: 0, len: 0 };
    let mut fixed = bytes.to_vec();
    if let Some(covered) = bytes.get(8..) {
        let checksum = crc32fast::hash(covered).to_le_bytes();
        fixed.get_mut(4..8).expect("it is longer").copy_from_slice(&checksum);
    }
    let _ = frame::split(bytes, CHUNK, place);
    if let Ok((parsed, payload)) = frame::split(&fixed, CHUNK, place) {
        assert!(parsed.logical_len <= parsed.frame_type.max_logical_len(CHUNK));
        let logical = usize::try_from(parsed.logical_len).expect("within its limit");
        let mut again = Vec::new();
        frame::append(&mut again, parsed.frame_type, parsed.codec, parsed.base, parsed.id, logical, payload);
        assert_eq!(again, fixed, "a frame is stored in one way only");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::{Random, mutate};
    use imgfmt::ExtentKind;
    use imgfmt::image::catalogue::{GenerationEntry, PackEntry};
    use imgfmt::image::id::Pointer;
    use imgfmt::image::layout::{Codec, FrameType};
    use imgfmt::image::node::{Run, Slot};
    use imgfmt::image::record::{DiskShape, Root};

    fn pointer(n: u8) -> Pointer {
        Pointer { id: Id([n; 32]), place: Place { pack: n.into(), offset: 4096, len: 500 } }
    }

    /// One of each, in the order of `run`.
    fn seeds() -> [Vec<u8>; 6] {
        let run = |kind, units| Run { kind, units };
        let slots = vec![
            Slot::Fill(ExtentKind::Absent),
            Slot::Pointer(pointer(7)),
            Slot::Mixed {
                runs: [run(ExtentKind::Data, 100), run(ExtentKind::Bad, 28)].into(),
                chunk: Some(pointer(8)),
            },
            Slot::Mixed { runs: [run(ExtentKind::Zero, 1), run(ExtentKind::Absent, 2)].into(), chunk: None },
        ];
        let record = Record {
            format: 1,
            created: "2026-11-15T09:30:00Z".into(),
            root: Root { id: Id([5; 32]).to_string(), ..Root::default() },
            disk: DiskShape { len: 5, logical_sector_size: 512, physical_sector_size: 512 },
            ..Record::default()
        };
        let pack = |number, replaced_by| PackEntry { number, file_len: 9, replaced_by, footer_hash: [9; 32] };
        let generation = GenerationEntry { number: 2, created: 5, record: pointer(1).place, record_id: Id([3; 32]) };
        let catalogue = Catalogue {
            next_generation: 3,
            packs: vec![pack(0, Some(1)), pack(1, None)],
            generations: vec![generation],
        };
        let mut stored = Vec::new();
        frame::append(&mut stored, FrameType::Chunk, Codec::Stored, None, Id::of_chunk(b"reserve"), 7, b"reserve");
        [
            Node { level: 0, slots }.encode(),
            record.encode(),
            catalogue.encode(),
            encode_segment(&[(pointer(1).place, pointer(2).place), (pointer(3).place, pointer(4).place)]),
            table::build(&[pointer(1), pointer(2), pointer(3)]),
            stored,
        ]
    }

    #[test]
    fn seeds_and_mutations_of_them() {
        let seeds = seeds();
        // The seeds are good ones: a parser that refused them would prove nothing.
        let shape = Shape { level: 0, slots: 4, chunk_size: CHUNK.into(), last_chunk_len: 1100 };
        Node::decode(&seeds[0], &shape).unwrap();
        Record::decode(&seeds[1]).unwrap();
        Catalogue::decode(&seeds[2]).unwrap();
        decode_segment(&seeds[3]).unwrap();
        Block::parse(&seeds[4], 0).unwrap();
        let mut random = Random::new(41);
        for (which, seed) in (0_u8..).zip(&seeds) {
            for round in 0..4000 {
                let mut data = vec![which];
                data.extend_from_slice(seed);
                if round > 0 {
                    let limit = data.len().min(400);
                    mutate(data.get_mut(1..limit).unwrap(), limit, &mut random);
                }
                if random.below(20) == 0 {
                    data.truncate(random.below(data.len()));
                }
                run(&data);
            }
        }
    }
}
