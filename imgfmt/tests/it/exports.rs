//! Image files that are written, judged by other programs' readers and by our own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::disk::MemoryDisk;
use imgfmt::engine::{Cancel, quiet};
use imgfmt::export::{Kind, export};
use imgfmt::format::identity::Identity;
use imgfmt::format::qcow2::Compression;
use imgfmt::source::FileDisk;
use imgfmt::target::Copied;
use imgfmt::{Disk, Error, Extent, ExtentKind};

use crate::conformance::{Random, disk_suite};
use crate::files::{sparse_file, takes_at_most, write_all_at};
use crate::image_files::{Workshop, all_of, disk_bytes, mapped_data, opened, same_as_file};
use crate::judges::{found, judged, whole};
use crate::views::identity;

const MIB: u64 = 1 << 20;
/// Every kind of file, with its name.
const KINDS: [(&str, Kind); 12] = [
    ("d.raw", Kind::Raw),
    ("d.qcow2", Kind::Qcow2(None)),
    ("zlib.qcow2", Kind::Qcow2(Some(Compression::Zlib))),
    ("zstd.qcow2", Kind::Qcow2(Some(Compression::Zstd))),
    ("d.vhd", Kind::Vhd),
    ("fixed.vhd", Kind::VhdFixed),
    ("d.vhdx", Kind::Vhdx),
    ("fixed.vhdx", Kind::VhdxFixed),
    ("d.vmdk", Kind::Vmdk),
    ("stream.vmdk", Kind::VmdkStream),
    ("d.vdi", Kind::Vdi),
    ("fixed.vdi", Kind::VdiFixed),
];

/// No other reader knows zstd; and the largest disks are left to the fastest one.
const QEMU_ALONE: [&str; 3] = ["--skip=libyal", "--skip=7zz", "--skip=dissect"];

fn write(disk: &Arc<dyn Disk>, path: &Path, kind: Kind, identity: &Identity) -> Result<Copied, Error> {
    export(disk, path, kind, identity, quiet(&Cancel::default()))
}

/// Writes a disk as every kind of file.
fn write_all(disk: &Arc<dyn Disk>, folder: &Path) -> Vec<PathBuf> {
    let written = KINDS.iter().map(|(name, kind)| {
        let path = folder.join(name);
        write(disk, &path, *kind, &identity()).unwrap_or_else(|error| panic!("{name}: {error}"));
        path
    });
    written.collect()
}

#[test]
fn every_reader_finds_the_disk_in_every_file() {
    for (number, len) in [5 * MIB + 13 * 512, MIB + 100, 70 * MIB].into_iter().enumerate() {
        let shop = Workshop::new(len, number as u64 + 10);
        let raw = shop.path("disk.raw");
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&raw, 512).unwrap());
        let out = tempfile::tempdir().unwrap();
        let files = write_all(&disk, out.path());
        let mut padded = shop.bytes.clone();
        padded.resize(len.next_multiple_of(512) as usize, 0);
        for path in &files {
            let image = opened(path);
            assert_eq!(image.about().notes, [""; 0], "{}", path.display());
            disk_suite(&image, if path.ends_with("d.raw") { &shop.bytes } else { &padded }, 3);
        }
        if number == 2 {
            judged(&raw, &files, &QEMU_ALONE);
            continue;
        }
        let (zstd, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| path.ends_with("zstd.qcow2"));
        judged(&raw, &others, &[]);
        judged(&raw, &zstd, &QEMU_ALONE);
    }
}

#[test]
fn nothing_is_stored_of_what_is_zero() {
    let folder = tempfile::tempdir().unwrap();
    // Data by its map, zeros by its content, but for 100 bytes.
    let mut bytes = vec![0; 64 << 20];
    bytes[33 << 20..(33 << 20) + 100].fill(5);
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(bytes));
    for path in write_all(&disk, folder.path()) {
        let len = std::fs::metadata(&path).unwrap().len();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_fixed = name.starts_with("fixed") || name == "d.raw";
        assert_eq!(len >= 64 << 20, is_fixed, "{name} of {len} bytes");
        takes_at_most(&path, 3 * MIB);
        assert!(is_fixed || mapped_data(&opened(&path)) <= 2 * MIB, "{name}");
    }
    // Nothing at all.
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(vec![0; 3 << 20]));
    let files = write_all(&disk, folder.path());
    std::fs::write(folder.path().join("model"), vec![0; 3 << 20]).unwrap();
    for path in &files {
        assert!(all_of(&opened(path)).iter().all(|byte| *byte == 0));
    }
    let (zstd, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| path.ends_with("zstd.qcow2"));
    judged(&folder.path().join("model"), &others, &[]);
    judged(&folder.path().join("model"), &zstd, &QEMU_ALONE);
}

#[test]
fn long_sparse_disks_are_written_and_read() {
    for len in [2040_u64 << 30, 8 << 40] {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("long.raw");
        sparse_file(&raw, len);
        let file = std::fs::File::options().write(true).open(&raw).unwrap();
        let places = [0, len / 3 / 512 * 512, (1 << 40) - 4096, len - 4096];
        for (pattern, at) in places.into_iter().enumerate() {
            write_all_at(&file, &[pattern as u8 + 1; 4096], at);
        }
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&raw, 512).unwrap());
        for (name, kind) in KINDS {
            let path = folder.path().join(name);
            let written = write(&disk, &path, kind, &identity());
            if len > 2040 << 30 && matches!(kind, Kind::Vhd | Kind::VhdFixed) {
                let error = written.unwrap_err().to_string();
                assert!(error.contains("longer than the 2040 GiB that VHD can hold") && !path.exists(), "{error}");
                continue;
            }
            written.unwrap();
            same_as_file(&opened(&path), &raw);
            let format = kind.format().name();
            found(&path, format, len, &places);
            if format == "qcow2" {
                whole(&path);
            }
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// More clusters than one block of counts has: the blocks lie among the data.
#[test]
fn clusters_are_counted_past_the_first_block_of_counts() {
    struct Noise(Vec<u8>);
    impl Disk for Noise {
        fn len(&self) -> u64 {
            (2 << 30) + 100 * MIB
        }
        fn sector_size(&self) -> u32 {
            512
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> imgfmt::Result<()> {
            // Every eighth megabyte compresses well.
            let noise = |at: u64| if at >> 20 & 7 == 0 { &self.0[..4096] } else { &self.0[..] };
            let mut at = offset;
            for part in buf.chunks_mut(4096 - (offset % 4096) as usize) {
                let noise = noise(at);
                let from = at as usize % noise.len();
                let len = part.len().min(noise.len() - from);
                part[..len].copy_from_slice(&noise[from..from + len]);
                part[len..].fill(3);
                at += part.len() as u64;
            }
            Ok(())
        }
        fn extent_at(&self, offset: u64) -> imgfmt::Result<Extent> {
            Ok(Extent { offset, len: self.len() - offset, kind: ExtentKind::Data })
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut noise = vec![0; 1 << 20];
    Random::new(1).fill(&mut noise);
    let disk: Arc<dyn Disk> = Arc::new(Noise(noise));
    let kinds = [None, Some(Compression::Zstd)];
    for kind in if std::env::var_os("HIKAE_LONG").is_some() { &kinds[..] } else { &kinds[1..] } {
        write(&disk, &folder.path().join("d.qcow2"), Kind::Qcow2(*kind), &identity()).unwrap();
        whole(&folder.path().join("d.qcow2"));
        let image = opened(&folder.path().join("d.qcow2"));
        for at in [0, MIB - 4096, (1 << 31) - (64 << 12), (2 << 30) + 99 * MIB] {
            let (mut ours, mut model) = (vec![0; 1 << 19], vec![0; 1 << 19]);
            image.read_at(&mut ours, at).unwrap();
            disk.read_at(&mut model, at).unwrap();
            assert!(ours == model, "at {at}");
        }
    }
}

/// A disk with an unreadable part.
struct Dying;

impl Disk for Dying {
    fn len(&self) -> u64 {
        4 * MIB
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> imgfmt::Result<()> {
        assert!(offset + buf.len() as u64 <= 2 * MIB, "only what is readable is read");
        buf.fill(9);
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> imgfmt::Result<Extent> {
        let (end, kind) = match offset {
            at if at < 2 * MIB => (2 * MIB, ExtentKind::Data),
            at if at < 2 * MIB + 1024 => (2 * MIB + 1024, ExtentKind::Bad),
            _ => (4 * MIB, ExtentKind::Absent),
        };
        Ok(Extent { offset, len: end - offset, kind })
    }
}

#[test]
fn what_was_unreadable_is_marked_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Dying);
    for (name, kind) in KINDS {
        let path = folder.path().join(name);
        let copied = write(&disk, &path, kind, &identity()).unwrap();
        assert_eq!(copied.bad, [(2 * MIB, 1024)], "{name}");
        assert_eq!((copied.data, copied.absent), (2 * MIB, 2 * MIB - 1024), "{name}");
        let bytes = all_of(&opened(&path));
        assert!(bytes[..2 << 20].iter().all(|byte| *byte == 9));
        assert!(bytes[2 << 20..(2 << 20) + 1024].chunks(32).all(|part| part == b"HIKAE: UNREADABLE AT THE SOURCE\n"));
        assert!(bytes[(2 << 20) + 1024..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_file_that_cannot_be_finished_is_not_there() {
    struct Failing;
    impl Disk for Failing {
        fn len(&self) -> u64 {
            8 * MIB
        }
        fn sector_size(&self) -> u32 {
            512
        }
        fn read_at(&self, buf: &mut [u8], offset: u64) -> imgfmt::Result<()> {
            if offset >= 5 * MIB {
                return Err(Error::corrupt("chunk", offset, "a test broke it"));
            }
            buf.fill(1);
            Ok(())
        }
        fn extent_at(&self, offset: u64) -> imgfmt::Result<Extent> {
            Ok(Extent { offset, len: self.len() - offset, kind: ExtentKind::Data })
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Failing);
    for (name, kind) in KINDS {
        assert!(matches!(write(&disk, &folder.path().join(name), kind, &identity()), Err(Error::Corrupt { .. })));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// What no reader here checks and a hypervisor refuses.
#[test]
fn hypervisors_find_what_they_insist_on() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(disk_bytes(5 * MIB, 4)));
    write_all(&disk, folder.path());
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();

    let vdi = read("d.vdi");
    assert!(vdi[0x188..0x198] != [0; 16] && vdi[0x198..0x1a8] != [0; 16]);
    assert_eq!((le32(&vdi, 0x48), le32(&vdi, 0x4c), le32(&vdi, 0x1d4)), (400, 1, 512));
    assert_eq!(le32(&vdi, 0x158) % (1 << 20), 0);

    for name in ["d.vmdk", "stream.vmdk"] {
        let vmdk = read(name);
        let text = String::from_utf8_lossy(&vmdk[512..21 * 512]).into_owned();
        for key in ["ddb.uuid.image", "ddb.uuid.modification", "ddb.uuid.parent", "ddb.uuid.parentmodification"] {
            assert!(text.contains(&format!("\n{key} = \"")), "{text}");
        }
        assert!(text.contains("\nparentCID=ffffffff\n") && text.contains(&format!(" SPARSE \"{name}\"\n")));
    }
    // The second directory leads to the same grains as the first: VMware falls back to it, and no reader here looks at it.
    let vmdk = read("d.vmdk");
    let sectors = |at: usize| u64::from_le_bytes(vmdk[at..at + 8].try_into().unwrap()) as usize * 512;
    let (redundant, first) = (sectors(48), sectors(56));
    let table = |directory: usize| {
        let at = le32(&vmdk, directory) as usize * 512;
        vmdk[at..at + 2048].to_vec()
    };
    assert!(redundant != first && table(redundant) == table(first) && table(first) != [0; 2048]);

    let vhdx = read("d.vhdx");
    for table in [192 << 10, 256 << 10] {
        assert_eq!((le32(&vhdx, table + 16 + 28), le32(&vhdx, table + 48 + 28)), (1, 1));
    }
    let vhd = read("d.vhd");
    let footer = &vhd[vhd.len() - 512..];
    assert!(footer == &vhd[..512] && &footer[28..32] == b"win ");
    assert_eq!(footer[56..60], [0xff, 0xff, 16, 255]);

    // Two files of one disk are two disks.
    write(&disk, &folder.path().join("other.vdi"), Kind::Vdi, &Identity::random(0)).unwrap();
    assert_ne!(read("other.vdi")[0x188..0x198], vdi[0x188..0x198]);
}
