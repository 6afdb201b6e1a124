//! Disks and partitions as raw files of a mount.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imgfmt::disk::MemoryDisk;
use imgfmt::format::identity::Identity;
use imgfmt::tree::{Tree, TreeOptions};
use imgfmt::{Disk, Extent};
use mount_unix::{MountError, Unmounted};

use crate::served::{Random, Served, bytes, capture_bytes, run, tree};

/// EIO.
const EIO: i32 = 5;

#[test]
fn raw_files_have_every_byte_of_their_disk_however_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let models = [bytes(9_000_123, 1), bytes(9_000_123, 2)];
    for model in &models {
        capture_bytes(folder.path(), model.clone());
    }
    // Much room, and next to none.
    for (cache, readahead) in [(64 << 20, 32 << 20), (1 << 20, 0)] {
        let served = Served::new(folder.path(), tree(folder.path(), cache), readahead);
        let mut generations: Vec<_> =
            std::fs::read_dir(&served.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        generations.sort();
        assert_eq!(generations.len(), 3);
        assert_eq!(std::fs::read_link(&generations[2]).unwrap().as_os_str(), generations[1].file_name().unwrap());
        for (generation, model) in generations.iter().zip(&models) {
            let path = generation.join("disk.raw");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), model.len() as u64);
            // In sequence, past the kernel's cache, by mapping, from the end to the start.
            let copy = folder.path().join("model");
            std::fs::write(&copy, model).unwrap();
            let (name, copy) = (path.to_str().unwrap(), copy.to_str().unwrap());
            for size in ["1M", "64K", "12K"] {
                let script = "dd if=\"$1\" iflag=direct bs=$3 status=none | cmp - \"$2\"";
                run("sh", &["-euc", script, "sh", name, copy, size]);
            }
            run("cmp", &[name, copy]);
            let mapped = "import mmap, sys\na, b = (open(n, 'rb') for n in sys.argv[1:])\n\
                          m = mmap.mmap(a.fileno(), 0, prot=mmap.PROT_READ)\nassert m[::-1] == b.read()[::-1]";
            run("python3", &["-c", mapped, name, copy]);
            let file = File::open(&path).unwrap();
            let mut random = Random::new(7);
            for _ in 0..300 {
                let at = random.below(model.len() as u64 + 100);
                let mut buf = vec![0; random.below(300_000) as usize];
                let read = file.read_at(&mut buf, at).unwrap();
                let end = (at as usize + buf.len()).min(model.len());
                assert_eq!(read, end.saturating_sub(at as usize));
                assert!(buf[..read] == model[end - read..end], "{read} bytes at {at}");
            }
            // The whole disk is partition 1 here.
            assert!(std::fs::read(generation.join("p1.raw")).unwrap() == *model);
        }
        assert_eq!(*served.log.lock().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn holes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = vec![0; 8 << 20];
    model[3 << 20..4 << 20].copy_from_slice(&bytes(1 << 20, 3).iter().map(|byte| byte | 1).collect::<Vec<_>>());
    capture_bytes(folder.path(), model);
    let served = Served::new(folder.path(), tree(folder.path(), 16 << 20), 8 << 20);
    let script = "import os, sys\nf = os.open(sys.argv[1], os.O_RDONLY)\ns = lambda at, how: os.lseek(f, at, how)\n\
                  print(s(0, os.SEEK_HOLE), s(0, os.SEEK_DATA), s(3 << 20, os.SEEK_HOLE), s(4 << 20, os.SEEK_HOLE))\n\
                  try: s(4 << 20, os.SEEK_DATA)\nexcept OSError as e: print(e.errno)";
    let path = served.dir.join("latest/disk.raw");
    let told = run("python3", &["-c", script, path.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&told.stdout), format!("0 {} {} {}\n6\n", 3 << 20, 4 << 20, 4 << 20));
}

#[test]
fn sixteen_readers_at_once_get_the_right_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let model = bytes(24 << 20, 5);
    capture_bytes(folder.path(), model.clone());
    let served = Served::new(folder.path(), tree(folder.path(), 1 << 20), 4 << 20);
    let path = served.dir.join("latest/disk.raw");
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (path, model) = (&path, &model);
            scope.spawn(move || {
                let mut random = Random::new(thread + 1);
                let file = File::open(path).unwrap();
                if thread % 2 == 0 {
                    let mut buf = Vec::new();
                    (&file).read_to_end(&mut buf).unwrap();
                    assert!(buf == *model);
                }
                for _ in 0..100 {
                    let at = random.below(model.len() as u64 - 70_000) as usize;
                    let mut buf = vec![0; random.below(70_000) as usize];
                    file.read_exact_at(&mut buf, at as u64).unwrap();
                    assert!(buf == model[at..at + buf.len()]);
                }
            });
        }
    });
}

#[test]
fn a_damaged_chunk_fails_the_reads_in_it_and_is_named_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = bytes(16 << 20, 9);
    // Noise, so that the chunk is found in the pack as it is.
    let mut random = Random::new(10);
    let damaged = 5 << 20..(5 << 20) + 65536;
    model[damaged.clone()].chunks_mut(8).for_each(|part| part.copy_from_slice(&random.next().to_le_bytes()));
    capture_bytes(folder.path(), model.clone());
    let pack = folder.path().join("a.hik");
    let mut stored = std::fs::read(&pack).unwrap();
    let needle = &model[damaged.start + 100..damaged.start + 200];
    let at = stored.windows(needle.len()).position(|window| window == needle).unwrap();
    stored[at] ^= 1;
    std::fs::write(&pack, stored).unwrap();
    let served = Served::new(folder.path(), tree(folder.path(), 16 << 20), 16 << 20);
    let file = File::open(served.dir.join("latest/disk.raw")).unwrap();
    let mut failed = Vec::new();
    for at in (0..model.len()).step_by(4096) {
        let mut buf = vec![0; 4096];
        match file.read_exact_at(&mut buf, at as u64) {
            Ok(()) => assert!(buf == model[at..at + 4096], "wrong bytes at {at}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(EIO));
                failed.push(at);
            }
        }
    }
    assert_eq!(failed, damaged.step_by(4096).collect::<Vec<_>>());
    let log = served.log.lock().unwrap();
    assert!(log.iter().all(|line| line.contains("of disk.raw of 0001_")), "{log:?}");
    assert!(log.iter().all(|line| line.contains("frame in pack 0 at byte 0x")), "{log:?}");
}

#[test]
fn a_busy_mount_goes_out_of_sight_and_serves_what_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let model = bytes(8 << 20, 11);
    capture_bytes(folder.path(), model.clone());
    let mut served = Served::new(folder.path(), tree(folder.path(), 16 << 20), 4 << 20);
    let file = File::open(served.dir.join("latest/disk.raw")).unwrap();
    let mut buf = vec![0; 4096];
    file.read_exact_at(&mut buf, 0).unwrap();
    // A mount on top is refused, as is the end of one in use, unless asked twice.
    let second = mount_unix::unmount(&served.dir, false);
    assert!(matches!(second, Err(MountError::Busy(_))), "{second:?}");
    assert_eq!(served.unmounter.unmount().unwrap(), Unmounted::Detached);
    assert!(std::fs::read_dir(&served.dir).unwrap().next().is_none(), "the mount is out of sight");
    for at in (0..model.len()).step_by(65536) {
        file.read_exact_at(&mut buf, at as u64).unwrap();
        assert!(buf == model[at..at + 4096]);
    }
    drop(file);
    served.join();
    assert!(matches!(mount_unix::unmount(&served.dir, false), Err(MountError::NotMounted(_))));
    assert!(served.log.lock().unwrap()[0].contains("is in use"));
}

#[test]
fn a_mount_leaves_when_it_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    capture_bytes(folder.path(), bytes(1 << 20, 12));
    for _ in 0..10 {
        let mut served = Served::new(folder.path(), tree(folder.path(), 16 << 20), 4 << 20);
        assert_eq!(std::fs::read_dir(&served.dir).unwrap().count(), 2);
        assert_eq!(mount_unix::unmount(&served.dir, false).unwrap(), Unmounted::Gone);
        served.join();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A disk that is let go of when somebody says so.
struct Lingering(MemoryDisk, Mutex<Receiver<()>>);

impl Disk for Lingering {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> imgfmt::Result<()> {
        self.0.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> imgfmt::Result<Extent> {
        self.0.extent_at(offset)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.1.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

#[test]
fn a_mount_that_is_gone_takes_nothing_away_that_was_mounted_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let model = bytes(1_000_000, 3);
    capture_bytes(folder.path(), model.clone());
    let (go, wait) = channel();
    let disk = Lingering(MemoryDisk::new(vec![1; 4096]), Mutex::new(wait));
    let lingering = Tree::of_disk(Arc::new(disk), &Identity::of(&["a test"], 0), &TreeOptions::default());
    let mut first = Served::new(folder.path(), lingering, 0);
    assert_eq!(std::fs::read(first.dir.join("disk.raw")).unwrap(), [1; 4096]);
    assert_eq!(first.unmounter.unmount().unwrap(), Unmounted::Gone);
    let second = Served::new(folder.path(), tree(folder.path(), 1 << 20), 0);
    go.send(()).unwrap();
    first.join();
    assert!(std::fs::read(second.dir.join("latest/disk.raw")).unwrap() == model);
}
