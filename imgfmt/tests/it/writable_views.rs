//! Views that take writes: what is written through one is seen through all, by other programs too, and the base stays as it is.

use std::path::Path;
use std::sync::Arc;

use imgfmt::disk::read_vec;
use imgfmt::overlay::{About, Overlay, Proof, ResizableDisk, digest_of};
use imgfmt::source::FileDisk;
use imgfmt::target::{CopyOptions, FileTarget, Target, copy};
use imgfmt::view::writable::{WritableView, writable_offers};
use imgfmt::{Disk, Error, WritableDisk};

use crate::conformance::{Random, disk_suite};
use crate::image_files::{Workshop, all_of, disk_bytes, write_sparse};
use crate::judges::judged;
use crate::views::identity;

const MIB: u64 = 1 << 20;

fn overlay(path: &Path, base: &Arc<dyn Disk>) -> Overlay {
    let proof = Proof::Other { format: "raw".to_owned(), digest: digest_of(base).unwrap() };
    let about = About { name: "base".into(), proof, modified: 0, disk_len: base.len(), sector_size: 512 };
    Overlay::open_or_create(path, &about).unwrap()
}

fn views(overlay: &Overlay, base: &Arc<dyn Disk>) -> Vec<(String, Arc<WritableView>)> {
    let offers = writable_offers(overlay, Arc::clone(base), &identity()).unwrap();
    offers.into_iter().map(|offer| (offer.name, offer.view.unwrap())).collect()
}

fn find(views: &[(String, Arc<WritableView>)], name: &str) -> Arc<WritableView> {
    Arc::clone(&views.iter().find(|(found, _)| found == name).unwrap().1)
}

/// Writes views into files.
fn save(views: &[(String, Arc<WritableView>)], folder: &Path) {
    let cancel = imgfmt::engine::Cancel::default();
    for (name, view) in views {
        let target = FileTarget::create(&folder.join(name), view.len()).unwrap();
        copy(view, &target, CopyOptions::default(), imgfmt::engine::quiet(&cancel)).unwrap();
        Box::new(target).finish().unwrap();
    }
}

/// Where the disk begins in each view; the descriptor of VMDK has none.
fn data_of(name: &str, view: &WritableView) -> u64 {
    match name {
        "disk.raw" | "disk-flat.vmdk" | "disk.vhd" => 0,
        "disk.vdi" => MIB,
        "disk.vhdx" => 4 * MIB,
        _ => view.len() - 5 * MIB - 64 * 1024,
    }
}

#[test]
fn what_is_written_through_one_view_is_read_through_all() {
    let len = 5 * MIB + 13 * 512;
    let shop = Workshop::new(len, 1);
    let base: Arc<dyn Disk> = Arc::new(FileDisk::open(&shop.path("disk.raw"), 512).unwrap());
    let file = shop.path("changes");
    let mut model = shop.bytes.clone();
    let mut random = Random::new(5);
    for round in 0..2 {
        let overlay = overlay(&file, &base);
        let views = views(&overlay, &base);
        let writers: Vec<_> = views.iter().filter(|(name, _)| name != "disk.vmdk").collect();
        for n in 0..60 {
            let (name, view) = writers[n % writers.len()];
            let (at, part) = (random.below(len), 1 + random.below(60_000));
            let part = part.min(len - at);
            let bytes = disk_bytes(part, at + round);
            view.write_at(&bytes, data_of(name, view) + at).unwrap();
            model[at as usize..(at + part) as usize].copy_from_slice(&bytes);
            let at = random.below(len - 5000);
            view.zero_at(data_of(name, view) + at, 5000).unwrap();
            model[at as usize..at as usize + 5000].fill(0);
        }
        for (name, view) in &writers {
            let mut bytes = vec![0; len as usize];
            view.read_at(&mut bytes, data_of(name, view)).unwrap();
            assert!(bytes == model, "{name}");
            disk_suite(view, &all_of(view), 4);
        }
        views[0].1.flush().unwrap();
        let out = tempfile::tempdir().unwrap();
        save(&views, out.path());
        write_sparse(&out.path().join("model"), &model);
        let images: Vec<_> =
            views.iter().filter(|(name, _)| !name.contains("flat")).map(|(name, _)| out.path().join(name)).collect();
        judged(&out.path().join("model"), &images, &["--skip=libyal", "--skip=dissect", "--skip=7zz"]);
    }
    // The base was never written.
    assert!(all_of(&base) == shop.bytes);
}

#[test]
fn structures_are_rewritten_and_tables_are_not() {
    let shop = Workshop::new(3 * MIB, 2);
    let base: Arc<dyn Disk> = Arc::new(FileDisk::open(&shop.path("disk.raw"), 512).unwrap());
    let overlay = overlay(&shop.path("changes"), &base);
    let all = views(&overlay, &base);
    // As VirtualBox writes a descriptor anew, longer than it was.
    let vmdk = find(&all, "disk.vmdk");
    let text = [all_of(&vmdk), b"ddb.comment = \"rewritten\"\n".repeat(100)].concat();
    vmdk.write_at(&text, 0).unwrap();
    assert!(all_of(&vmdk) == text);
    vmdk.set_len(600).unwrap();
    vmdk.set_len(700).unwrap();
    assert!(all_of(&vmdk) == [&text[..600], &[0; 100]].concat());
    vmdk.set_len(0).unwrap();
    vmdk.write_at(&text, 0).unwrap();
    // Another modification time of VDI, the log of VHDX, a longer VHD.
    let (vdi, vhdx, vhd) = (find(&all, "disk.vdi"), find(&all, "disk.vhdx"), find(&all, "disk.vhd"));
    vdi.write_at(&[7; 16], 0x198).unwrap();
    vhdx.write_at(b"loge", MIB).unwrap();
    vhd.write_at(&[1; 512], vhd.len()).unwrap();
    assert_eq!(vhd.len(), 3 * MIB + 1024);
    // Tables: what is in them, and nothing else; and a refused write changes nothing of what lies before it either.
    let qcow2 = find(&all, "disk.qcow2");
    let tables = [(&vdi, 0x200_u64), (&vhdx, 3 * MIB), (&qcow2, 64 << 10), (&qcow2, 128 << 10), (&qcow2, 192 << 10)];
    for (view, at) in tables {
        let before = all_of(view);
        let mut bytes = vec![0; 1024];
        view.read_at(&mut bytes, at - 512).unwrap();
        bytes[0] ^= 1;
        bytes[512 + 1] ^= 1;
        let error = view.write_at(&bytes, at - 512).unwrap_err();
        assert!(matches!(&error, Error::Refused(text) if text.contains("that cannot change")), "{error}");
        assert!(view.zero_at(at, 512).is_err());
        assert!(all_of(view) == before);
        bytes[512 + 1] ^= 1;
        view.write_at(&bytes[512..], at).unwrap();
    }
    // What is the disk and nothing else stays as long as it is, and no file loses a part of the disk.
    for name in ["disk.raw", "disk-flat.vmdk"] {
        let view = find(&all, name);
        assert!(matches!(view.set_len(4 * MIB), Err(Error::Refused(_))));
        assert!(matches!(view.write_at(&[0], 3 * MIB), Err(Error::Refused(_))));
    }
    assert!(matches!(vdi.set_len(2 * MIB), Err(Error::Refused(_))));
    // All of it is there again when the overlay is opened once more.
    let states: Vec<_> = all.iter().map(|(_, view)| all_of(view)).collect();
    drop((all, vmdk, vdi, vhdx, vhd, qcow2));
    drop(overlay);
    let again = views(&self::overlay(&shop.path("changes"), &base), &base);
    for ((name, view), state) in again.iter().zip(states) {
        assert!(all_of(view) == state, "{name}");
    }
}

#[test]
fn zeros_alone_can_follow_the_disk() {
    let shop = Workshop::new(MIB + 100, 3);
    let base: Arc<dyn Disk> = Arc::new(FileDisk::open(&shop.path("disk.raw"), 512).unwrap());
    let overlay = overlay(&shop.path("changes"), &base);
    for (name, view) in views(&overlay, &base) {
        if matches!(name.as_str(), "disk.raw" | "disk.vmdk") {
            continue;
        }
        let end = match name.as_str() {
            "disk.vdi" => 2 * MIB + 100,
            "disk.vhdx" => 5 * MIB + 100,
            "disk.qcow2" => view.len() - 64 * 1024 + 100,
            _ => MIB + 100,
        };
        let mut bytes = [5; 100];
        view.write_at(&[&bytes[..], &[0; 412]].concat(), end - 100).unwrap();
        assert!(
            matches!(view.write_at(&[&[6; 100][..], &[0, 1]].concat(), end - 100), Err(Error::Refused(_))),
            "{name}"
        );
        view.read_at(&mut bytes, end - 100).unwrap();
        assert_eq!(bytes, [5; 100], "{name}");
        // A range that ends nowhere is no range of which the front is written.
        for at in [u64::MAX, u64::MAX - 1] {
            assert!(matches!(view.write_at(&[0, 0], at), Err(Error::OutOfRange { .. })), "{name}");
            assert!(matches!(view.zero_at(at, 2), Err(Error::OutOfRange { .. })), "{name}");
        }
    }
}

/// QEMU writes to an image that is a copy of a view; each of its writes, made to the view instead, is taken: only the disk and the structures changed.
#[test]
#[cfg(unix)]
fn what_qemu_changes_in_a_view_is_what_a_view_takes() {
    let shop = Workshop::new(4 * MIB, 4);
    let base: Arc<dyn Disk> = Arc::new(FileDisk::open(&shop.path("disk.raw"), 512).unwrap());
    let overlay = overlay(&shop.path("changes"), &base);
    let all = views(&overlay, &base);
    let out = tempfile::tempdir().unwrap();
    save(&all, out.path());
    let formats = [("disk.vdi", "vdi"), ("disk.vhd", "vpc"), ("disk.vhdx", "vhdx"), ("disk.qcow2", "qcow2")];
    for (name, format) in formats {
        let view = find(&all, name);
        let script =
            format!("qemu-io -f {format} {name} -c 'write -P 5 1M 64k' -c 'write -z 2M 64k' -c flush > io.log");
        crate::tools::shell(out.path(), &script);
        let (wanted, had) = (std::fs::read(out.path().join(name)).unwrap(), all_of(&view));
        for (at, part) in (0_u64..).step_by(512).zip(wanted.chunks(512)) {
            if had.get(at as usize..at as usize + part.len()) != Some(part) {
                view.write_at(part, at).unwrap_or_else(|error| panic!("{name} at {at:#x}: {error}"));
            }
        }
        // Of a cluster that qcow2 calls zero a real file keeps the old bytes, which nobody reads.
        assert!(format == "qcow2" || all_of(&view) == wanted, "{name}");
        save(&[(name.to_owned(), view)], out.path());
        let read = format!("qemu-io -r -f {format} {name} -c 'read -P 5 1M 64k' -c 'read -P 0 2M 64k' > io.log");
        crate::tools::shell(out.path(), &read);
        assert_eq!(crate::image_files::opened(&out.path().join(name)).len(), 4 * MIB);
    }
}

/// A program that keeps qcow2's table in memory and writes it when it likes, as QEMU does: whenever it has written all of it, every view has what it means.
#[test]
fn clusters_that_qcow2_calls_zero_are_zero_in_every_view() {
    const CLUSTER: u64 = 64 << 10;
    const COUNT: u64 = 40;
    // The last cluster is not whole.
    let len = COUNT * CLUSTER - 3 * 512;
    let shop = Workshop::new(len, 6);
    let base: Arc<dyn Disk> = Arc::new(FileDisk::open(&shop.path("disk.raw"), 512).unwrap());
    let overlay = overlay(&shop.path("changes"), &base);
    let all = views(&overlay, &base);
    let (qcow2, raw, vdi) = (find(&all, "disk.qcow2"), find(&all, "disk.raw"), find(&all, "disk.vdi"));
    // Header, reference counts and L1 take a cluster or more each, the L2 table lies before the disk.
    let data = qcow2.len() - COUNT * CLUSTER;
    let table = data - CLUSTER;
    let entry_of = |cluster: u64, zero: bool| ((data + cluster * CLUSTER) | 1 << 63 | u64::from(zero)).to_be_bytes();
    let write_table = |flags: &[bool]| {
        let bytes: Vec<u8> = (0..).zip(flags).flat_map(|(cluster, zero)| entry_of(cluster, *zero)).collect();
        qcow2.write_at(&bytes, table).unwrap();
        assert!(read_vec(&qcow2, table, bytes.len()).unwrap() == bytes);
    };
    let mut model = shop.bytes.clone();
    let mut flags = vec![false; COUNT as usize];
    let mut random = Random::new(9);
    for round in 0..600 {
        let cluster = random.below(COUNT);
        let range = (cluster * CLUSTER)..((cluster + 1) * CLUSTER).min(len);
        let (start, end) = (range.start as usize, range.end as usize);
        let before = flags.clone();
        match random.below(3) {
            0 => {
                flags[cluster as usize] = true;
                model[start..end].fill(0);
            }
            _ => {
                let at = range.start + random.below(range.end - range.start);
                let bytes = disk_bytes(1 + random.below(range.end - at), round);
                let changed = &mut model[at as usize..at as usize + bytes.len()];
                changed.copy_from_slice(&bytes);
                if flags[cluster as usize] {
                    // All of the cluster is written, its bit is cleared after that, and the old table may come between the two.
                    qcow2.write_at(&model[start..end], data + range.start).unwrap();
                    flags[cluster as usize] = false;
                } else {
                    qcow2.write_at(&bytes, data + at).unwrap();
                }
            }
        }
        match random.below(4) {
            0 => write_table(&before),
            1 => {
                // A part of the table, as long as no entry is torn.
                let first = random.below(COUNT);
                qcow2.write_at(&entry_of(first, flags[first as usize]), table + 8 * first).unwrap();
            }
            2 => {
                write_table(&flags);
                qcow2.flush().unwrap();
                assert!(all_of(&raw) == model, "round {round}");
                // Another file of the disk is written, and the program looks at the table again.
                let at = random.below(len - 5000);
                let bytes = disk_bytes(1 + random.below(5000), round + 1000);
                raw.write_at(&bytes, at).unwrap();
                model[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
                let entries = read_vec(&qcow2, table, 8 * COUNT as usize).unwrap();
                for ((flag, entry), number) in flags.iter_mut().zip(entries.chunks(8)).zip(0..) {
                    *flag = entry == entry_of(number, true);
                    assert!(*flag || entry == entry_of(number, false));
                }
            }
            _ => {}
        }
    }
    write_table(&flags);
    assert!(all_of(&raw) == model);
    assert!(read_vec(&vdi, MIB, len as usize).unwrap() == model);
    assert!(flags.iter().any(|flag| *flag), "some clusters are still called zero");
    // The file is a qcow2 with that content for others, before and after the overlay was closed.
    let out = tempfile::tempdir().unwrap();
    save(&all, out.path());
    write_sparse(&out.path().join("model"), &model);
    judged(&out.path().join("model"), &[out.path().join("disk.qcow2")], &["--skip=7zz"]);
    let state = all_of(&qcow2);
    drop((all, qcow2, raw, vdi));
    drop(overlay);
    let again = views(&self::overlay(&shop.path("changes"), &base), &base);
    let qcow2 = find(&again, "disk.qcow2");
    assert!(all_of(&qcow2) == state);
    // Nothing else than the bit: no other place, no cluster without a place.
    let refused = [
        entry_of(1, false),
        [0; 8],
        (entry_of(0, false)[..7].iter().chain(&[2]).copied().collect::<Vec<_>>())[..].try_into().unwrap(),
    ];
    for entry in refused {
        assert!(matches!(qcow2.write_at(&entry, table), Err(Error::Refused(text)) if text.contains("cannot change")));
    }
    assert!(qcow2.zero_at(table, 64).is_err());
    assert!(all_of(&qcow2) == state);
}
