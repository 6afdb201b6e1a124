//! Every word of every header, table and log entry set to 0, 1, the largest, the sign bit, one more, one less and something misaligned: an error
//! of ours or a disk, in little time and little memory.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use imgfmt::format::{Format, OpenOptions, open};
use imgfmt::{Disk, Error};

use crate::image_files::Workshop;
use crate::tools::{shell, this_test_alone};
use crate::vhdx::{le64, regions, seal};

/// Most memory that a sweep may have resident at any time, in KiB, above that of a test which does nothing.
const MOST_MEMORY: u64 = 64 << 10;
/// Longest time for one value.
const MOST_TIME: Duration = Duration::from_secs(1);

/// A file, where its metadata lie, and how checksums are put right after a change.
struct Subject<'a> {
    path: &'a Path,
    format: Format,
    places: Vec<Range<usize>>,
    mend: fn(&mut [u8]),
}

/// The values that a word of `width` bytes takes.
fn values(old: u64, width: usize) -> Vec<u64> {
    let bits = width * 8;
    let max = u64::MAX >> (64 - bits);
    let mut values = vec![0, 1, max, max - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1];
    values
        .extend([old.wrapping_add(1), old.wrapping_sub(1), old.wrapping_mul(2), old ^ 0x101].map(|value| value & max));
    values.sort_unstable();
    values.dedup();
    values.retain(|value| *value != old);
    values
}

/// Opens the file as it is now and reads here and there.
fn probe(subject: &Subject<'_>, what: &str) {
    let started = Instant::now();
    let options = OpenOptions { format: Some(subject.format), without_base: true, ..OpenOptions::default() };
    match open(subject.path, &options) {
        Err(Error::Corrupt { .. } | Error::Unsupported { .. } | Error::Refused(_) | Error::NotFound(_)) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(image) => {
            let len = image.len();
            let mut buf = vec![0; 100_000];
            for start in [0, len / 2, len.saturating_sub(100_000)] {
                let part = buf.len().min((len - start) as usize);
                match image.read_at(&mut buf[..part], start) {
                    Ok(()) | Err(Error::Corrupt { .. }) => {}
                    Err(error) => panic!("{what}: {error}"),
                }
                let (mut at, mut seen) = (start, 0);
                while at < len && seen < 500 {
                    let Ok(extent) = image.extent_at(at) else { break };
                    assert!(extent.len > 0 && extent.end() <= len && extent.offset == at, "{what}: {extent:?}");
                    (at, seen) = (extent.end(), seen + 1);
                }
            }
        }
    }
    // The machine may be busy: one slow value is tried again.
    if started.elapsed() > MOST_TIME {
        let started = Instant::now();
        let _ = open(subject.path, &options).map(|image| image.extent_at(0).is_ok());
        assert!(started.elapsed() < MOST_TIME, "{what} takes {:?}", started.elapsed());
    }
}

fn sweep(subject: &Subject<'_>) {
    let whole = std::fs::read(subject.path).unwrap();
    let file = std::fs::File::options().write(true).open(subject.path).unwrap();
    let mut opened = 0;
    probe(subject, "the file itself");
    for place in &subject.places {
        for width in [1, 2, 4, 8] {
            // A structure may be padded to a length that its checksum covers; its fields are in front.
            let end = place.end.min(place.start + if width < 4 { 112 } else { 176 });
            for at in (place.start..end).step_by(width).filter(|at| at + width <= end) {
                for big in [false, true] {
                    let old = whole[at..at + width].iter().fold(0, |old, byte| old << 8 | u64::from(*byte));
                    let old = if big { old } else { old.swap_bytes() >> (64 - width * 8) };
                    for value in values(old, width) {
                        if width < 4 && big {
                            continue;
                        }
                        let bytes = if big {
                            value.to_be_bytes()[8 - width..].to_vec()
                        } else {
                            value.to_le_bytes()[..width].to_vec()
                        };
                        let mut changed = whole[place.clone()].to_vec();
                        changed[at - place.start..][..width].copy_from_slice(&bytes);
                        (subject.mend)(&mut changed);
                        file.write_all_at(&changed, place.start as u64).unwrap();
                        probe(subject, &format!("{value:#x} in {width} bytes at {at:#x} of {}", subject.format));
                        opened += 1;
                    }
                }
            }
        }
        file.write_all_at(&whole[place.clone()], place.start as u64).unwrap();
    }
    assert!(opened > 500, "{opened} values were tried");
}

/// Peak of resident memory of this process so far, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs a sweep alone in a process whose memory is limited and measured.
fn alone(name: &str, body: impl FnOnce(&Path)) {
    if let Some(folder) = std::env::var_os("HIKAE_SWEEP_FOLDER") {
        body(Path::new(&folder));
        // The files themselves are held in memory by the test.
        let most = MOST_MEMORY + (32 << 10);
        assert!(peak() < most, "{} KiB were resident", peak());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Address space, which counts every thread's stack and heap: a limit on what is asked for, used or not.
    let limited = ["sh", "-c", "ulimit -v 1048576; exec \"$0\" \"$@\""];
    this_test_alone(&format!("sweep::{name}"), &limited, &[("HIKAE_SWEEP_FOLDER", folder.path())]);
}

/// A small disk in a folder that outlives the workshop.
fn made(folder: &Path, script: &str) {
    let shop = Workshop::new(200 << 10, 3);
    shell(folder, &format!("cp --sparse=always '{}' disk.raw; {script}", shop.path("disk.raw").display()));
}

fn nothing(_: &mut [u8]) {}

#[test]
fn qcow2_survives_every_value_of_every_word() {
    alone("qcow2_survives_every_value_of_every_word", |folder| {
        made(
            folder,
            "qemu-img convert -f raw -O qcow2 -o cluster_size=4k,lazy_refcounts=on -c disk.raw a.qcow2; qemu-img snapshot -c one a.qcow2
             qemu-img create -q -f qcow2 -b disk.raw -F raw -o extended_l2=on,cluster_size=16k b.qcow2; qemu-io b.qcow2 -c 'write 20k 5k' > io.log",
        );
        for name in ["a.qcow2", "b.qcow2"] {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).unwrap();
            let at = |field: usize| u64::from_be_bytes(bytes[field..field + 8].try_into().unwrap()) as usize;
            let l1 = at(40);
            let l2 = (at(l1) as u64 & 0x00ff_ffff_ffff_fe00) as usize;
            let mut places = vec![0..160, l1..l1 + 8, l2..l2 + 32];
            if name == "a.qcow2" {
                places.push(at(64)..at(64) + 64);
            }
            sweep(&Subject { path: &path, format: Format::Qcow2, places, mend: nothing });
        }
    });
}

/// Puts the sum of a footer or dynamic header right, whichever lies at this place.
fn mend_vhd(bytes: &mut [u8]) {
    let field = if bytes.starts_with(b"cxsparse") || bytes.len() == 1024 { 36 } else { 64 };
    if bytes.len() >= 512 {
        bytes[field..field + 4].fill(0);
        let sum = bytes.iter().fold(0_u32, |sum, byte| sum + u32::from(*byte));
        bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
    }
}

#[test]
fn vhd_survives_every_value_of_every_word() {
    alone("vhd_survives_every_value_of_every_word", |folder| {
        made(folder, "qemu-img convert -f raw -O vpc -o force_size=on disk.raw d.vhd");
        let path = folder.join("d.vhd");
        let len = std::fs::metadata(&path).unwrap().len() as usize;
        // Only the fields of the structures are swept, but their checksums cover the whole.
        let places = vec![len - 512..len, 512..1536, 1536..1544];
        sweep(&Subject { path: &path, format: Format::Vhd, places, mend: mend_vhd });
    });
}

#[test]
fn vdi_survives_every_value_of_every_word() {
    alone("vdi_survives_every_value_of_every_word", |folder| {
        made(folder, "qemu-img convert -f raw -O vdi disk.raw d.vdi");
        let path = folder.join("d.vdi");
        sweep(&Subject {
            path: &path,
            format: Format::Vdi,
            places: vec![0x40..0x54, 0x150..0x200, 0x200..0x204],
            mend: nothing,
        });
    });
}

#[test]
fn vmdk_survives_every_value_of_every_word() {
    alone("vmdk_survives_every_value_of_every_word", |folder| {
        made(
            folder,
            "qemu-img convert -f raw -O vmdk disk.raw s.vmdk; qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.raw o.vmdk",
        );
        for name in ["s.vmdk", "o.vmdk"] {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).unwrap();
            let sectors = |at: usize, width: usize| {
                bytes[at..at + width].iter().rev().fold(0, |old, byte| old << 8 | usize::from(*byte)) * 512
            };
            let directory = sectors(56, 8);
            let table = sectors(directory, 4);
            let grain = sectors(table, 4);
            let places = vec![0..80, directory..directory + 4, table..table + 16, grain..grain + 16];
            sweep(&Subject { path: &path, format: Format::Vmdk, places, mend: nothing });
        }
    });
}

/// Puts the checksum of a header, region table or log entry right; the metadata and the table have none.
fn mend_vhdx(bytes: &mut [u8]) {
    if bytes.len() >= 4096 {
        seal(bytes);
    }
}

#[test]
fn vhdx_survives_every_value_of_every_word() {
    alone("vhdx_survives_every_value_of_every_word", |folder| {
        let name = folder.join("d.vhdx");
        made(folder, "qemu-img convert -f raw -O vhdx -o block_size=1M disk.raw d.vhdx");
        let mut bytes = std::fs::read(&name).unwrap();
        let (bat, metadata) = regions(&bytes);
        let newest = [64 << 10, 128 << 10].into_iter().max_by_key(|at| le64(&bytes, at + 8)).unwrap();
        // One valid header and one valid region table, so that what is swept is what is used.
        let other = if newest == 64 << 10 { 128 << 10 } else { 64 << 10 };
        bytes[other..other + 4].fill(0);
        bytes[256 << 10..(256 << 10) + 4].fill(0);
        bytes[newest + 48..newest + 64].fill(7);
        seal(&mut bytes[newest..newest + 4096]);
        let log = le64(&bytes, newest + 72) as usize;
        let block = le64(&bytes, bat) & !0xf_ffff;
        let len = bytes.len() as u64;
        let mut entry = vec![0; 8192];
        for (at, field) in [
            (0, &b"loge"[..]),
            (8, &8192_u32.to_le_bytes()),
            (16, &5_u64.to_le_bytes()),
            (24, &2_u32.to_le_bytes()),
            (32, &[7; 16]),
            (48, &len.to_le_bytes()),
            (56, &len.to_le_bytes()),
            (64, b"desctailleading!"),
            (80, &block.to_le_bytes()),
            (88, &5_u64.to_le_bytes()),
            (96, b"zero"),
            (104, &4096_u64.to_le_bytes()),
            (112, &(block + 8192).to_le_bytes()),
            (120, &5_u64.to_le_bytes()),
            (4096, b"data"),
            (8188, &5_u32.to_le_bytes()),
        ] {
            entry[at..at + field.len()].copy_from_slice(field);
        }
        seal(&mut entry);
        bytes[log..log + 8192].copy_from_slice(&entry);
        std::fs::write(&name, &bytes).unwrap();
        let items = metadata + 0x1_0000;
        let places = vec![
            newest..newest + 4096,
            192 << 10..256 << 10,
            log..log + 8192,
            bat..bat + 16,
            metadata..metadata + 200,
            items..items + 64,
        ];
        sweep(&Subject { path: &name, format: Format::Vhdx, places, mend: mend_vhdx });
    });
}
