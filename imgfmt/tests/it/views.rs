//! Container views, judged by other programs' readers and by our own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::disk::MemoryDisk;
use imgfmt::engine::{Cancel, quiet};
use imgfmt::format::Format;
use imgfmt::format::identity::Identity;
use imgfmt::source::FileDisk;
use imgfmt::target::{CopyOptions, FileTarget, Target, copy};
use imgfmt::view::{View, offers};
use imgfmt::{Disk, Error, Extent, ExtentKind};

use crate::conformance::disk_suite;
use crate::files::{sparse_file, write_all_at};
use crate::image_files::{Workshop, all_of, disk_bytes, opened, same_as_file};
use crate::judges::{found, judged, whole};

const MIB: u64 = 1 << 20;

pub(crate) fn identity() -> Identity {
    Identity::of(&["image", "generation"], 1_794_735_000)
}

/// The views of a disk that exist, and the reasons why others do not, by name.
fn views(disk: &Arc<dyn Disk>) -> Vec<(String, Result<Arc<View>, String>)> {
    offers(disk, "disk", &identity()).into_iter().map(|offer| (offer.name, offer.view)).collect()
}

fn view(disk: &Arc<dyn Disk>, name: &str) -> Arc<View> {
    let found = views(disk).into_iter().find(|(found, _)| found == name).unwrap();
    found.1.unwrap_or_else(|reason| panic!("there is no {name}: {reason}"))
}

fn reason(disk: &Arc<dyn Disk>, name: &str) -> String {
    views(disk).into_iter().find(|(found, _)| found == name).unwrap().1.unwrap_err()
}

/// Writes every view of a disk into a folder; returns those that are images by themselves.
fn write_views(disk: &Arc<dyn Disk>, folder: &Path) -> Vec<PathBuf> {
    let cancel = Cancel::default();
    let mut images = Vec::new();
    for (name, view) in views(disk) {
        let Ok(view) = view else { continue };
        let path = folder.join(&name);
        let target = FileTarget::create(&path, view.len()).unwrap();
        copy(&view, &target, CopyOptions::default(), quiet(&cancel)).unwrap();
        Box::new(target).finish().unwrap();
        if !name.contains("flat") {
            images.push(path);
        }
    }
    images
}

#[test]
fn every_reader_finds_the_disk_in_every_view() {
    for (number, len) in [5 * MIB + 13 * 512, MIB + 100, 70 * MIB].into_iter().enumerate() {
        let shop = Workshop::new(len, number as u64);
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&shop.path("disk.raw"), 512).unwrap());
        let out = tempfile::tempdir().unwrap();
        let images = write_views(&disk, out.path());
        assert_eq!(images.len(), 6);
        let mut padded = shop.bytes.clone();
        padded.resize(len.next_multiple_of(512) as usize, 0);
        for path in &images {
            let is_raw = path.extension().is_some_and(|extension| extension == "raw");
            let image = opened(path);
            assert_eq!(image.about().format, Format::of_extension(path).unwrap());
            assert_eq!(image.about().notes, [""; 0]);
            disk_suite(&image, if is_raw { &shop.bytes } else { &padded }, 3);
        }
        let qemu_alone = ["--skip=libyal", "--skip=7zz", "--skip=dissect"];
        judged(&shop.path("disk.raw"), &images, if number == 2 { &qemu_alone } else { &[] });
        // The view itself is a disk like any other: the bytes of the file.
        for (name, view) in views(&disk) {
            disk_suite(&view.unwrap(), &std::fs::read(out.path().join(name)).unwrap(), 5);
        }
    }
}

#[test]
fn long_disks_have_views_where_the_format_can_hold_them() {
    for (len, without) in [(2040_u64 << 30, &[][..]), (8 << 40, &["disk.vhd"])] {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("long.raw");
        sparse_file(&raw, len);
        let file = std::fs::File::options().write(true).open(&raw).unwrap();
        let places = [0, len / 3 / 512 * 512, (1 << 40) - 4096, len - 4096];
        for (pattern, at) in places.into_iter().enumerate() {
            write_all_at(&file, &[pattern as u8 + 1; 4096], at);
        }
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&raw, 512).unwrap());
        let images = write_views(&disk, folder.path());
        assert_eq!(images.len(), 6 - without.len());
        for name in without {
            assert_eq!(reason(&disk, name), "the disk is longer than the 2040 GiB that VHD can hold");
        }
        for path in &images {
            same_as_file(&opened(path), &raw);
            found(path, path.extension().unwrap().to_str().unwrap(), len, &places);
        }
        whole(&folder.path().join("disk.qcow2"));
    }
}

#[test]
fn what_a_format_cannot_hold_has_no_view() {
    let none: Arc<dyn Disk> = Arc::new(MemoryDisk::new(Vec::new()));
    let large: Arc<dyn Disk> = Arc::new(MemoryDisk::with_sector_size(disk_bytes(9 * 4096 + 7, 1), 4096));
    for name in ["disk.vmdk", "disk-flat.vmdk", "disk.vhd", "disk.vhdx", "disk.vdi", "disk.qcow2"] {
        assert_eq!(reason(&none, name), "the disk has no byte");
    }
    for name in ["disk.vmdk", "disk-flat.vmdk", "disk.vhd", "disk.vdi"] {
        assert!(reason(&large, name).contains("knows only sectors of 512 bytes"));
    }
    // VHDX says so; with the others it is for the virtual machine to be told.
    let folder = tempfile::tempdir().unwrap();
    let images = write_views(&large, folder.path());
    assert_eq!(images.len(), 3);
    let vhdx = opened(&folder.path().join("disk.vhdx"));
    assert_eq!((vhdx.sector_size(), vhdx.len()), (4096, 10 * 4096));
    assert!(all_of(&vhdx)[..9 * 4096 + 7] == all_of(&large) && all_of(&vhdx)[9 * 4096 + 7..].iter().all(|b| *b == 0));
    std::fs::write(folder.path().join("model"), all_of(&large)).unwrap();
    let model = folder.path().join("model");
    judged(&model, &images[2..], &[]);
    // QEMU reads no VHDX of such sectors.
    judged(&model, &images[1..2], &["--skip=qemu"]);
}

/// A disk with an extent of each kind.
struct Kinds;

impl Disk for Kinds {
    fn len(&self) -> u64 {
        4 * MIB
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> imgfmt::Result<()> {
        if offset + buf.len() as u64 > 3 * MIB {
            return Err(Error::Bad { offset: 3 * MIB, end: 4 * MIB });
        }
        buf.fill(if offset < MIB { 7 } else { 0 });
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> imgfmt::Result<Extent> {
        let kinds = [ExtentKind::Data, ExtentKind::Zero, ExtentKind::Absent, ExtentKind::Bad];
        Ok(Extent { offset, len: MIB - offset % MIB, kind: kinds[(offset / MIB) as usize] })
    }
}

#[test]
fn a_view_passes_on_what_the_disk_knows_of_its_bytes() {
    let disk: Arc<dyn Disk> = Arc::new(Kinds);
    for (name, view) in views(&disk) {
        let view = view.unwrap();
        if name == "disk.vmdk" {
            continue;
        }
        let kind = |at: u64| view.extent_at(view.data_offset() + at).unwrap();
        assert_eq!((kind(0).kind, kind(0).len), (ExtentKind::Data, MIB), "{name}");
        assert_eq!((kind(MIB).kind, kind(2 * MIB).kind), (ExtentKind::Zero, ExtentKind::Absent));
        assert_eq!((kind(3 * MIB + 512).kind, kind(3 * MIB + 512).len), (ExtentKind::Bad, MIB - 512));
        let mut byte = [0];
        view.read_at(&mut byte, view.data_offset() + MIB - 1).unwrap();
        assert_eq!(byte, [7]);
        assert!(matches!(view.read_at(&mut byte, view.data_offset() + 3 * MIB), Err(Error::Bad { .. })));
    }
}

fn bytes_of(view: &View, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    view.read_at(&mut bytes, at).unwrap();
    bytes
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// What no reader here checks and a hypervisor refuses.
#[test]
fn hypervisors_find_what_they_insist_on() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(disk_bytes(MIB + 512, 4)));

    // VirtualBox: neither of the first two identifiers is zero, sectors of 512 bytes; QEMU: the data lie on a sector.
    let vdi = bytes_of(&view(&disk, "disk.vdi"), 0, 512);
    assert!(vdi[0x188..0x198] != [0; 16] && vdi[0x198..0x1a8] != [0; 16] && vdi[0x188..0x198] != vdi[0x198..0x1a8]);
    assert_eq!((le32(&vdi, 0x48), le32(&vdi, 0x4c)), (400, 2));
    assert_eq!((le32(&vdi, 0x168), le32(&vdi, 0x1d4)), (512, 512));
    assert_eq!((le32(&vdi, 0x154), le32(&vdi, 0x158)), (512, 1 << 20));
    assert_eq!((le32(&vdi, 0x178), le32(&vdi, 0x180), le32(&vdi, 0x184)), (1 << 20, 2, 2));

    // VirtualBox writes what is missing of the four identifiers into the descriptor; VMware: no parent is all ones.
    let vmdk = view(&disk, "disk.vmdk");
    let text = String::from_utf8(bytes_of(&vmdk, 0, vmdk.len() as usize)).unwrap();
    let value = |key: &str| {
        let line = text.lines().find(|line| line.split('=').next().unwrap().trim() == key).unwrap();
        line.split_once('=').unwrap().1.trim().trim_matches('"').to_owned()
    };
    let nil = "00000000-0000-0000-0000-000000000000";
    for key in ["ddb.uuid.image", "ddb.uuid.modification"] {
        assert!(value(key).len() == 36 && value(key) != nil);
    }
    for key in ["ddb.uuid.parent", "ddb.uuid.parentmodification"] {
        assert_eq!(value(key), nil);
    }
    assert_eq!((value("version"), value("createType")), ("1".into(), "monolithicFlat".into()));
    assert_eq!(value("parentCID"), "ffffffff");
    assert!(value("CID").len() == 8 && u32::from_str_radix(&value("CID"), 16).unwrap() < 0xffff_fffe);
    assert!(text.contains("\nRW 2049 FLAT \"disk-flat.vmdk\" 0\n"));
    assert!(value("ddb.geometry.heads") == "16" && value("ddb.geometry.sectors") == "63");

    // VirtualBox: both regions are required, and items have the flags of their kind; Hyper-V: a log, and two valid headers.
    let vhdx = view(&disk, "disk.vhdx");
    for table in [192 << 10, 256 << 10] {
        let regions = bytes_of(&vhdx, table, 80);
        assert_eq!((le32(&regions, 8), le32(&regions, 16 + 28), le32(&regions, 48 + 28)), (2, 1, 1));
    }
    let metadata = bytes_of(&vhdx, 2 << 20, 256);
    let flags: Vec<u32> = (1..=5).map(|entry| le32(&metadata, entry * 32 + 24)).collect();
    assert_eq!(flags, [4, 6, 6, 6, 6]);
    for header in [64 << 10, 128 << 10] {
        let header = bytes_of(&vhdx, header, 80);
        assert!(&header[..4] == b"head" && header[48..64] == [0; 16]);
        assert_eq!((le32(&header, 68), le32(&header, 72)), (1 << 20, 1 << 20));
    }
    assert_eq!(bytes_of(&vhdx, 8, 10), b"h\0i\0k\0a\0e\0");

    // QEMU cuts a disk to its geometry unless it trusts the creator or the geometry is the largest.
    let vhd = view(&disk, "disk.vhd");
    let footer = bytes_of(&vhd, vhd.len() - 512, 512);
    assert_eq!(&footer[28..32], b"win ");
    assert_eq!(footer[56..60], [0xff, 0xff, 16, 255]);
    assert_ne!(footer[68..84], [0; 16]);

    // Files that are opened with O_DIRECT are a multiple of a sector long.
    for (name, view) in views(&disk) {
        assert!(name == "disk.vmdk" || view.unwrap().len().is_multiple_of(512), "{name}");
    }
}

#[test]
fn the_same_disk_gives_the_same_file_and_another_one_another_identity() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(disk_bytes(MIB, 4)));
    let all = |identity: &Identity| {
        let read = |view: Arc<View>| bytes_of(&view, 0, view.len() as usize);
        offers(&disk, "disk", identity)
            .into_iter()
            .map(|offer| (offer.name, read(offer.view.unwrap())))
            .collect::<Vec<_>>()
    };
    let (first, again, other) = (all(&identity()), all(&identity()), all(&Identity::of(&["image", "other"], 0)));
    assert!(first == again);
    for ((name, first), (_, other)) in first.iter().zip(&other) {
        // Raw disks and qcow2 files have no identifier.
        let has_none = ["disk.raw", "disk-flat.vmdk", "disk.qcow2"].contains(&name.as_str());
        assert_eq!(first == other, has_none, "{name}");
    }
}
