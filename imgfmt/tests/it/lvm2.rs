//! LVM2 volumes written by the LVM2 tools, against where those tools say the extents lie.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use imgfmt::disk::{MemoryDisk, Slice};
use imgfmt::volume::lvm2::{LogicalVolume, PhysicalVolume, assemble};
use imgfmt::{Disk, Error};

use crate::conformance::{Random, disk_suite};
use crate::files::sparse_file;
use crate::tools::as_root;

const MIB: u64 = 1 << 20;
/// Bytes of the two physical volumes on the disk.
const VOLUMES: [std::ops::Range<u64>; 2] = [MIB..65 * MIB, 65 * MIB..113 * MIB];

/// Logical volumes in the tools' own text: a linear one in two pieces, a striped one, a hidden one, and one of a kind that is not read.
const LOGICAL: &str = r#"
logical_volumes {
    root-1 {
        id = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"
        status = ["READ", "WRITE", "VISIBLE"]
        segment_count = 2
        segment1 { start_extent = 0 extent_count = 10 type = "striped" stripe_count = 1 stripes = [ "pv0", 3 ] }
        segment2 { start_extent = 10 extent_count = 7 type = "striped" stripe_count = 1 stripes = [ "pv1", 30 ] }
    }
    st {
        id = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaab"
        status = ["READ", "WRITE", "VISIBLE"]
        segment_count = 2
        segment1 { start_extent = 0 extent_count = 20 type = "striped" stripe_count = 2 stripe_size = 128 stripes = [ "pv0", 20, "pv1", 5 ] }
        segment2 { start_extent = 20 extent_count = 1 type = "zero" }
    }
    hidden {
        id = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaac"
        status = ["READ", "WRITE"]
        tags = [TAGS]
        segment_count = 1
        segment1 { start_extent = 0 extent_count = 1 type = "striped" stripe_count = 1 stripes = [ "pv0", 40 ] }
    }
}
"#;

/// A loop device for the length of a test.
struct Loop(String);

impl Loop {
    fn new(image: &Path, range: &std::ops::Range<u64>) -> Self {
        let (offset, len) = (range.start.to_string(), (range.end - range.start).to_string());
        let image = image.to_str().unwrap();
        let output = as_root("losetup", ["-f", "--show", "-o", &offset, "--sizelimit", &len, image]);
        Self(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        as_root("losetup", ["-d", &self.0]);
    }
}

/// A stripe of a segment: volume, first extent, last extent.
type Stripe = (usize, u64, u64);

/// A disk with two physical volumes of one group.
struct Made {
    bytes: Vec<u8>,
    /// The stripes of the segments of each logical volume as `lvs` tells.
    extents: BTreeMap<String, Vec<Vec<Stripe>>>,
}

/// Made once for all tests.
static MADE: LazyLock<Made> = LazyLock::new(make);

fn make() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = folder.join("disk.img");
    sparse_file(&image, 114 * MIB);
    let loops = VOLUMES.each_ref().map(|range| Loop::new(&image, range));
    let names = [loops[0].0.as_str(), loops[1].0.as_str()];
    let config = format!(
        "devices {{ dir=\"/dev\" scan=[\"/dev\"] use_devicesfile=0 filter=[\"a|^{}$|\",\"a|^{}$|\",\"r|.*|\"] }} \
         activation {{ udev_sync=0 udev_rules=0 }} backup {{ backup=0 archive=0 }}",
        names[0], names[1]
    );
    let lvm = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--config", config.as_str()]);
        as_root("env", ["LVM_SUPPRESS_FD_WARNINGS=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"].iter().chain(&all))
    };
    lvm(&["pvcreate", "-ff", "-y", names[0], names[1]]);
    lvm(&["vgcreate", "-s", "1M", "my-vg", names[0], names[1]]);
    let text = folder.join("backup");
    let text_name = text.to_str().unwrap();
    lvm(&["vgcfgbackup", "-f", text_name, "my-vg"]);
    as_root("chmod", ["a+rw", text_name]);
    let backup = std::fs::read_to_string(&text).unwrap();
    // The group's own closing brace is the last one of the text.
    let closing = backup.rfind("\n}").unwrap() + 1;
    // Long, so that a few changes are enough to wrap the ring of descriptions.
    let tags: Vec<String> = (0..300).map(|n| format!("\"{n:01000}\"")).collect();
    let logical = LOGICAL.replace("TAGS", &tags.join(", "));
    std::fs::write(&text, format!("{}{logical}{}", &backup[..closing], &backup[closing..])).unwrap();
    for _ in 0..4 {
        lvm(&["vgcfgrestore", "--force", "-f", text_name, "my-vg"]);
    }
    let told = lvm(&["lvs", "-a", "--noheadings", "--segments", "-o", "lv_name,seg_pe_ranges"]);
    let mut extents: BTreeMap<String, Vec<Vec<Stripe>>> = BTreeMap::new();
    for line in String::from_utf8(told.stdout).unwrap().lines() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap().trim_matches(['[', ']']).to_owned();
        let stripes = words.map(|range| {
            let (device, range) = range.split_once(':').unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let volume = names.iter().position(|name| *name == device).unwrap();
            (volume, first.parse().unwrap(), last.parse().unwrap())
        });
        extents.entry(name).or_default().push(stripes.collect());
    }
    let starts = lvm(&["pvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "pe_start"]);
    assert_eq!(String::from_utf8(starts.stdout).unwrap().split_whitespace().collect::<Vec<_>>(), ["1048576"; 2]);
    drop(loops);
    // Noise in every extent.
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    let mut random = Random::new(5);
    for range in VOLUMES {
        let mut noise = vec![0; (range.end - range.start - MIB) as usize];
        random.fill(&mut noise);
        file.write_all_at(&noise, range.start + MIB).unwrap();
    }
    Made { bytes: std::fs::read(&image).unwrap(), extents }
}

fn physical(disk: &MemoryDisk) -> Vec<PhysicalVolume> {
    let part = |range| Arc::new(Slice::open(disk.clone(), range).unwrap()) as Arc<dyn Disk>;
    VOLUMES.into_iter().map(|range| PhysicalVolume::open(&part(range)).unwrap().unwrap()).collect()
}

#[test]
fn logical_volumes_lie_where_the_tools_say() {
    let Made { bytes, extents } = &*MADE;
    let disk = MemoryDisk::new(bytes.clone());
    // The ring of descriptions has wrapped: the newest one ends before it starts.
    let area = &bytes[(MIB + 4096) as usize..];
    let field = |at: usize| u64::from_le_bytes(area[at..at + 8].try_into().unwrap());
    assert!(field(40) + field(48) > field(32), "{} + {} in {}", field(40), field(48), field(32));
    let logical = assemble(&physical(&disk));
    assert_eq!(logical.iter().map(|volume| &*volume.name).collect::<Vec<_>>(), ["my--vg-root--1", "my--vg-st"]);
    for (volume, name) in logical.iter().zip(["root-1", "st"]) {
        let mut model = Vec::new();
        for stripes in &extents[name] {
            let place = |volume: usize, extent: u64| (VOLUMES[volume].start + MIB + extent * MIB) as usize;
            match stripes.as_slice() {
                [] => model.resize(model.len() + MIB as usize, 0),
                [(volume, first, last)] => {
                    model.extend_from_slice(&bytes[place(*volume, *first)..place(*volume, last + 1)]);
                }
                many => {
                    let rows = (many[0].2 + 1 - many[0].1) * MIB / 65536;
                    for row in 0..rows as usize {
                        for (volume, first, _) in many {
                            let at = place(*volume, *first) + row * 65536;
                            model.extend_from_slice(&bytes[at..at + 65536]);
                        }
                    }
                }
            }
        }
        disk_suite(volume.disk.as_ref().unwrap(), &model, 7);
    }
}

#[test]
fn what_is_missing_damaged_or_not_read_is_named() {
    let bytes = &MADE.bytes;
    // All that is not extents lies in the first MiB.
    let open = |bytes: &[u8]| PhysicalVolume::open(&(Arc::new(MemoryDisk::new(bytes.to_vec())) as Arc<dyn Disk>));
    let starts = VOLUMES.map(|range| bytes[range.start as usize..(range.start + MIB) as usize].to_vec());
    let named = |logical: &[LogicalVolume]| logical[0].disk.as_ref().err().unwrap().to_string();
    // Only one of the two volumes.
    let alone = open(&starts[1]).unwrap().unwrap();
    let logical = assemble(&[alone]);
    assert!(matches!(logical[0].disk, Err(Error::NotFound(_))));
    assert!(named(&logical).contains("another disk"), "{}", named(&logical));
    // Every byte of the label counts.
    let mut random = Random::new(3);
    for _ in 0..300 {
        let mut copy = starts[0].clone();
        let at = 512 + random.below(512) as usize;
        copy[at] ^= 1 << random.below(8);
        let found = open(&copy);
        assert!(matches!(found, Err(Error::Corrupt { .. }) | Ok(None)), "byte {at}: {found:?}");
    }
    // Every byte of the header of the area, and of the description.
    for _ in 0..300 {
        let mut copy = starts[0].clone();
        let description = u64::from_le_bytes(copy[4136..4144].try_into().unwrap());
        let at = 4096 + if random.below(2) == 0 { random.below(512) } else { description + random.below(500) } as usize;
        copy[at] ^= 1 << random.below(8);
        let found = open(&copy);
        assert!(matches!(found, Err(Error::Corrupt { .. } | Error::Unsupported { .. })), "byte {at}: {found:?}");
    }
    // Volumes of other disks, or none at all.
    assert!(open(&vec![0; MIB as usize]).unwrap().is_none());
    assert!(open(&[0; 100]).unwrap().is_none());
    assert!(assemble(&[]).is_empty());
}
