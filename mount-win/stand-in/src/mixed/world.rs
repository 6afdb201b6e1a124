//! What there is on a drive whose disk files take writes: what a walk saw, and the files of the disk, put together from the disk and what lies around it.

use std::collections::HashMap;
use std::ops::Range;

use crate::calls::{Calls, Entry, Known, LOOK, READ, REPARSE_POINT, join, units};
use crate::mixed::expected::Target;
use crate::walk::{Seen, list};

/// Longest file whose bytes are kept.
const KEPT: u64 = 64 << 10;
const MIB: usize = 1 << 20;

/// Something on the drive.
#[derive(Debug)]
pub(super) struct Thing {
    pub(super) path: Vec<u16>,
    pub(super) known: Known,
    pub(super) security: Vec<u8>,
    pub(super) streams: Vec<(Vec<u16>, u64)>,
    pub(super) kind: Kind,
}

/// What it is.
#[derive(Debug)]
pub(super) enum Kind {
    /// A folder, and its entries where they can be told.
    Folder(Option<Vec<Entry>>),
    /// A file or stream of the image, and its bytes where it is short.
    File(Option<Vec<u8>>),
    /// A file of the disk: its number.
    Disk(usize),
}

/// A file of the disk: what lies before the disk, a part of the disk, what lies behind it.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Bytes of the disk that it shows.
    pub(super) disk: Range<usize>,
    pub(super) front: Vec<u8>,
    pub(super) behind: Vec<u8>,
    /// Bytes of the file that can only be what they are.
    pub(super) fixed: Vec<Range<usize>>,
    /// The shortest that it can be; `None` where its length stays.
    pub(super) least: Option<usize>,
}

impl Shape {
    pub(super) fn len(&self) -> usize {
        self.disk_end() + self.behind.len()
    }

    /// Where the disk ends in the file.
    pub(super) fn disk_end(&self) -> usize {
        self.front.len() + self.disk.len()
    }
}

/// The drive.
#[derive(Debug)]
pub(super) struct World {
    pub(super) things: Vec<Thing>,
    pub(super) shapes: Vec<Shape>,
    /// Numbers of the things that are files of the disk.
    pub(super) disk_files: Vec<usize>,
    /// The disk before anything was written.
    pub(super) base: Vec<u8>,
    by_path: HashMap<Vec<u16>, usize>,
}

fn le32(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn be64(bytes: &[u8], at: usize) -> usize {
    // Without the flags of an entry of qcow2.
    (u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) & 0x00ff_ffff_ffff_fe00) as usize
}

impl World {
    /// Learns a drive from a walk over it. `base` is the content of its disk, whose first two partitions lie in `partitions`.
    pub(super) fn learn(calls: &impl Calls, seen: &[Seen], base: Vec<u8>, partitions: [Range<usize>; 2]) -> Self {
        let root = units("\\");
        let mut world =
            Self { things: Vec::new(), shapes: Vec::new(), disk_files: Vec::new(), base, by_path: HashMap::new() };
        let entries = Some(list(calls, &root, None));
        world.add(calls, root.clone(), Kind::Folder(entries));
        for one in seen {
            let name = String::from_utf16_lossy(&one.entry.name);
            let is_top = one.path.len() == one.entry.name.len() + 1;
            let kind = if one.is_folder() {
                let is_plain = one.entry.attributes & REPARSE_POINT == 0;
                Kind::Folder(is_plain.then(|| list(calls, &one.path, None)))
            } else if let Some(shape) = is_top.then(|| world.shape(calls, one, &name, &partitions)).flatten() {
                world.shapes.push(shape);
                world.disk_files.push(world.things.len());
                Kind::Disk(world.shapes.len() - 1)
            } else {
                Kind::File(short(calls, &one.path, one.entry.len))
            };
            world.add(calls, one.path.clone(), kind);
            for (name, len, _) in one.streams.iter().filter(|(name, ..)| *name != units("::$DATA")) {
                let path = [&one.path[..], name].concat();
                let bytes = short(calls, &path, *len);
                world.add(calls, path, Kind::File(bytes));
            }
        }
        assert!(world.shapes.len() >= 8, "{} files of the disk", world.shapes.len());
        world
    }

    fn add(&mut self, calls: &impl Calls, path: Vec<u16>, kind: Kind) {
        let looked = calls.with(&path, LOOK, 0, |open| {
            Ok((calls.information(open)?, calls.security(open, 7)?, calls.streams(open)?))
        });
        let (known, security, streams) = looked.unwrap();
        self.by_path.insert(path.clone(), self.things.len());
        self.things.push(Thing { path, known, security, streams, kind });
    }

    /// The shape of a file of the disk; `None` for any other file.
    fn shape(&self, calls: &impl Calls, seen: &Seen, name: &str, partitions: &[Range<usize>; 2]) -> Option<Shape> {
        let len = seen.entry.len as usize;
        let read = |range: Range<usize>| {
            let read = calls.with(&seen.path, READ, 0, |open| {
                if range.is_empty() { Ok(Vec::new()) } else { calls.read(open, range.len(), range.start as i64) }
            });
            read.unwrap()
        };
        let (stem, extension) = name.split_once('.')?;
        let disk = match stem {
            "disk" | "disk-flat" => 0..self.base.len(),
            "p1" => partitions[0].clone(),
            "p2" => partitions[1].clone(),
            _ => return None,
        };
        // A descriptor is a text, and nothing of the disk is in it.
        if name == "disk.vmdk" {
            let behind = read(0..len);
            return Some(Shape { disk: 0..0, front: Vec::new(), behind, fixed: Vec::new(), least: Some(0) });
        }
        let header = read(0..len.min(4 * MIB));
        let (start, unit, fixed) = match extension {
            "raw" | "vmdk" => (0, None, Vec::new()),
            "vhd" => (0, Some(512), Vec::new()),
            "vdi" => {
                // Blocks' map and data, size and number of blocks.
                let [map, data] = [le32(&header, 0x154), le32(&header, 0x158)];
                let [block, count] = [le32(&header, 0x178), le32(&header, 0x180)];
                (data, Some(block), vec![map..map + 4 * count])
            }
            "vhdx" => {
                // The region table at 192 KiB: GUID, offset, length; the first entry is that of the BAT here.
                let bat = le32(&header, 0x3_0020);
                let first = u64::from_le_bytes(header[bat..bat + 8].try_into().unwrap());
                let data = (first >> 20) as usize * MIB;
                // An entry of a fixed file is a block's place, and blocks follow each other.
                let second = u64::from_le_bytes(header[bat + 8..bat + 16].try_into().unwrap());
                let block = ((second >> 20).saturating_sub(first >> 20)) as usize * MIB;
                let block = if block == 0 { len - data } else { block };
                let count = self.base.len().div_ceil(block);
                (data, Some(block), vec![bat..bat + 8 * count])
            }
            "qcow2" => {
                let cluster = 1 << u32::from_be_bytes(header[20..24].try_into().unwrap());
                let [l1, references] = [be64(&header, 40), be64(&header, 48)];
                let l2 = be64(&header, l1);
                let data = be64(&header, l2);
                let count = self.base.len().div_ceil(cluster);
                let first = be64(&header, references);
                let all = len.div_ceil(cluster);
                (
                    data,
                    Some(cluster),
                    vec![references..references + 8, first..first + 2 * all, l1..l1 + 8, l2..l2 + 8 * count],
                )
            }
            _ => return None,
        };
        let end = start + disk.len();
        let least = unit.map(|unit| start + disk.len().next_multiple_of(unit));
        let fixed = fixed.into_iter().chain(least.filter(|least| *least > end).map(|least| end..least)).collect();
        Some(Shape { disk, front: read(0..start), behind: read(end..len), fixed, least })
    }

    /// What a path leads to, spelled as the walk saw it.
    pub(super) fn find(&self, path: &[u16]) -> Option<&Thing> {
        self.by_path.get(path).map(|number| &self.things[*number])
    }

    /// The thing of an entry of a folder.
    pub(super) fn entry(&self, folder: &Thing, entry: &Entry) -> Option<&Thing> {
        self.find(&join(&folder.path, &entry.name))
    }
}

impl Thing {
    pub(super) fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder(_))
    }

    pub(super) fn target(&self, shapes: &[Shape]) -> Target {
        match self.kind {
            Kind::Folder(_) => Target::Folder(self.known.attributes),
            Kind::File(_) => Target::File(self.known.attributes),
            Kind::Disk(number) => Target::Writable(shapes[number].least == Some(0)),
        }
    }
}

/// The bytes of a short file.
fn short(calls: &impl Calls, path: &[u16], len: u64) -> Option<Vec<u8>> {
    let read = || calls.with(path, READ, 0, |open| calls.read_all(open, 10_000)).unwrap();
    (len <= KEPT).then(read)
}
