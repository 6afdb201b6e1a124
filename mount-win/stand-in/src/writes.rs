//! Writes to the files of one disk, through whatever of them: each answer is compared with a model of the disk.
//!
//! Source of the answers: [MS-FSA] 2.1.5.1 for opening, 2.1.5.4 for writing, 2.1.5.15.1 and .4 for lengths.

use crate::calls::{Calls, Change, OPEN, READ, join, status, units};
use crate::random::Random;

/// `FILE_GENERIC_READ | FILE_GENERIC_WRITE`.
const READ_WRITE: u32 = 0x0012_019f;
/// `FILE_CREATE`, `FILE_OVERWRITE_IF`.
const CREATE: u32 = 2;
const OVERWRITE_IF: u32 = 5;

/// Files that show a short disk, and where it begins in them.
const FILES: [(&str, usize); 5] =
    [("disk.raw", 0), ("disk-flat.vmdk", 0), ("disk.vhd", 0), ("disk.vdi", 1 << 20), ("disk.vhdx", 4 << 20)];

/// Makes `count` writes to the disk whose files lie in `folder`, and to `model`, which is its content.
pub fn write_and_read(calls: &impl Calls, folder: &[u16], model: &mut [u8], seed: u64, count: u64) {
    let mut random = Random::new(seed);
    for _ in 0..count {
        let [(name, start), (other, other_start)] = [random.one_of(&FILES), random.one_of(&FILES)];
        let at = random.below(model.len() as u64) as usize;
        let len = (1 + random.below(150_000) as usize).min(model.len() - at);
        let value = random.below(256) as u8;
        let bytes: Vec<u8> = (0..len).map(|n| value.wrapping_add((n / 7) as u8)).collect();
        let open = calls.create(&join(folder, &units(name)), READ_WRITE, OPEN, 0).unwrap();
        let is_page = random.below(4) == 0;
        assert_eq!(calls.write(&open, &bytes, Some((start + at) as i64), is_page), Ok(len), "{name}");
        model[at..at + len].copy_from_slice(&bytes);
        if random.below(4) == 0 {
            assert_eq!(calls.flush(&open), Ok(()));
        }
        calls.cleanup(&open);
        calls.close(&open);
        let read =
            calls.with(&join(folder, &units(other)), READ, 0, |open| calls.read(open, len, (other_start + at) as i64));
        assert!(read.unwrap() == bytes, "{len} bytes at {at}, written to {name}, read from {other}");
    }
}

/// Writes bytes that cannot be packed to the start of a file, and closes it without flushing.
pub fn write_and_leave(calls: &impl Calls, path: &[u16], len: usize) {
    let mut random = Random::new(5);
    let bytes: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
    let open = calls.create(path, READ_WRITE, OPEN, 0).unwrap();
    for (number, part) in bytes.chunks(1 << 16).enumerate() {
        assert_eq!(calls.write(&open, part, Some((number << 16) as i64), false), Ok(part.len()));
    }
    calls.cleanup(&open);
    calls.close(&open);
}

/// What a disk's files refuse, and what they take besides writes.
pub fn refused_and_taken(calls: &impl Calls, folder: &[u16], len: u64) {
    const DENIED: Result<(), u32> = Err(status::ACCESS_DENIED);
    let path = |name: &str| join(folder, &units(name));
    let open = calls.create(&path("disk.raw"), READ_WRITE, OPEN, 0).unwrap();
    // A page at the end is cut where the file ends; no other write makes this file longer.
    let past_end = calls.write(&open, &[7; 4096], Some(len as i64 - 512), true);
    assert_eq!(past_end, Ok(512));
    assert_eq!(calls.write(&open, &[7; 4096], Some(len as i64), true), Ok(0));
    assert_eq!(calls.write(&open, &[7; 512], Some(len as i64), false), Err(status::ACCESS_DENIED));
    assert_eq!(calls.write(&open, &[7; 512], None, false), Err(status::ACCESS_DENIED));
    assert_eq!(calls.write(&open, &[7; 512], Some(-1), false), Err(status::INVALID_PARAMETER));
    assert_eq!(calls.write(&open, &[7; 512], Some(i64::MAX - 500), false), Err(status::INVALID_PARAMETER));
    assert_eq!(calls.write(&open, &[], Some(0), false), Ok(0));
    assert_eq!(calls.read(&open, 512, len as i64 - 512), Ok(vec![7; 512]));
    let set = [(len as i64, Ok(())), (0, DENIED), (len as i64 + 1, DENIED), (-1, Err(status::INVALID_PARAMETER))];
    for (len, answer) in set {
        assert_eq!(calls.set_len(&open, len, false), answer, "{len}");
    }
    assert_eq!(calls.set_len(&open, len as i64 * 2, true), Ok(()), "there is room for more than it has");
    assert_eq!(calls.set_len(&open, 1, true), DENIED);
    assert_eq!(calls.information(&open).unwrap().len, len);
    for (change, answer) in [
        (Change::Attributes(0x20), Ok(())),
        (Change::Attributes(0x10), Err(status::INVALID_PARAMETER)),
        (Change::Times([0, -1, -2]), Ok(())),
        (Change::Times([0, -3, 0]), Err(status::INVALID_PARAMETER)),
        (Change::Delete, DENIED),
        (Change::Move, DENIED),
        (Change::Security, DENIED),
    ] {
        assert_eq!(calls.change(&open, change), answer, "{change:?}");
    }
    calls.cleanup(&open);
    calls.close(&open);
    let created = |name: &str, access, disposition| {
        calls.create(&path(name), access, disposition, 0).map(|open| {
            calls.cleanup(&open);
            calls.close(&open);
        })
    };
    assert_eq!(created("disk.raw", READ_WRITE, CREATE), Err(status::OBJECT_NAME_COLLISION));
    assert_eq!(created("disk.raw", READ_WRITE, OVERWRITE_IF), DENIED);
    assert_eq!(created("disk.raw", READ | 0x1_0000, OPEN), DENIED);
    assert_eq!(created("new", READ_WRITE, CREATE), DENIED);
    assert_eq!(created("p1", READ_WRITE, OPEN), DENIED);
    // A descriptor is a text, and is written anew as one.
    let text = b"# Disk DescriptorFile\nversion=1\n".repeat(40);
    let open = calls.create(&path("disk.vmdk"), READ_WRITE, OVERWRITE_IF, 0).unwrap();
    assert_eq!((open.existed, calls.information(&open).unwrap().len), (true, 0));
    assert_eq!(calls.write(&open, &text, None, false), Ok(text.len()));
    assert_eq!(calls.write(&open, b"end", None, false), Ok(3));
    assert_eq!(calls.information(&open).unwrap().len, text.len() as u64 + 3);
    calls.cleanup(&open);
    calls.close(&open);
    let read = calls.with(&path("disk.vmdk"), READ, 0, |open| calls.read_all(open, 100)).unwrap();
    assert!(read == [&text[..], b"end"].concat());
}

/// Lets several threads write to the end of the descriptor at once: each record is there, once and whole.
pub fn append_together(calls: &impl Calls, folder: &[u16]) {
    const THREADS: u8 = 4;
    const RECORDS: u8 = 60;
    let path = join(folder, &units("disk.vmdk"));
    let record = |thread: u8, number: u8| vec![thread * RECORDS + number; 10 + usize::from(number)];
    let emptied = calls.create(&path, READ_WRITE, OVERWRITE_IF, 0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let path = &path;
            scope.spawn(move || {
                // FILE_APPEND_DATA, SYNCHRONIZE.
                let open = calls.create(path, 0x0010_0004, OPEN, 0).unwrap();
                for number in 0..RECORDS {
                    let bytes = record(thread, number);
                    assert_eq!(calls.write(&open, &bytes, None, false), Ok(bytes.len()));
                }
                calls.cleanup(&open);
                calls.close(&open);
            });
        }
    });
    let text = calls.read_all(&emptied, 100_000).unwrap();
    calls.cleanup(&emptied);
    calls.close(&emptied);
    let mut records: Vec<Vec<u8>> = text.chunk_by(|a, b| a == b).map(<[u8]>::to_vec).collect();
    records.sort();
    let wanted = (0..THREADS).flat_map(|thread| (0..RECORDS).map(move |number| record(thread, number)));
    assert!(records == wanted.collect::<Vec<_>>(), "{} bytes in {} records", text.len(), records.len());
}
