//! Raw disks, whole and split.

use imgfmt::Error;
use imgfmt::format::{Format, OpenOptions, open, open_within};

use crate::conformance::disk_suite;
use crate::image_files::{Workshop, all_of, opened};

#[test]
fn a_file_of_no_known_format_is_raw() {
    let shop = Workshop::new((1 << 20) + 1000, 3);
    let image = opened(&shop.path("disk.raw"));
    disk_suite(&image, &shop.bytes, 1);
    assert_eq!(image.about().format, Format::Raw);
}

#[test]
fn a_split_disk_is_read_as_one() {
    let shop = Workshop::new((1 << 20) + 1000, 3);
    for (first, width) in [(1, 3), (0, 3), (1, 5)] {
        let name = |number: usize| shop.path(&format!("d{width}{first}.{number:0width$}"));
        for (number, part) in shop.bytes.chunks(100_000).enumerate() {
            std::fs::write(name(first + number), part).unwrap();
        }
        let image = opened(&name(first));
        disk_suite(&image, &shop.bytes, 1);
        assert_eq!(image.about().more_files.len(), 10);
        // Another part alone is what it says.
        assert!(all_of(&opened(&name(2))) == shop.bytes[(2 - first) * 100_000..(3 - first) * 100_000]);
    }
    // A gap, and a part that was not copied whole.
    let part = |number: usize| shop.path(&format!("d31.{number:03}"));
    let bytes = std::fs::read(part(5)).unwrap();
    std::fs::remove_file(part(5)).unwrap();
    let error = open(&part(1), &OpenOptions::default()).unwrap_err();
    assert!(error.to_string().contains("\"d31.005\", which is missing"), "{error}");
    std::fs::write(part(5), &bytes[1..]).unwrap();
    assert!(matches!(open(&part(1), &OpenOptions::default()), Err(Error::Corrupt { .. })));
}

#[test]
#[cfg(unix)]
fn a_disk_that_is_said_to_be_raw_is_not_probed() {
    let shop = Workshop::new(1 << 20, 3);
    shop.qemu_img("create -f qcow2 inner.qcow2 64k");
    // A guest that writes a qcow2 header into its disk.
    let image = shop.path("inner.qcow2");
    let bytes = std::fs::read(&image).unwrap();
    let raw = OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() };
    disk_suite(&open(&image, &raw).unwrap(), &bytes, 1);
    // The same as a base whose format is told.
    shop.qemu_img("create -f qcow2 -b inner.qcow2 -F raw top.qcow2");
    assert!(all_of(&opened(&shop.path("top.qcow2")))[..bytes.len()] == bytes);
}

#[test]
fn formats_that_are_not_read_are_refused_by_name() {
    for (signature, name) in
        [(&b"QED\0"[..], "QED"), (b"WithoutFreeSpace", "Parallels"), (b"EVF\x09\x0d\x0a\xff\x00", "EWF")]
    {
        let mut bytes = vec![0; 4096];
        bytes[..signature.len()].copy_from_slice(signature);
        let disk = std::sync::Arc::new(imgfmt::disk::MemoryDisk::new(bytes));
        let error = open_within(disk.clone(), "x", &OpenOptions::default()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        open_within(disk, "x", &OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() }).unwrap();
    }
}

#[test]
#[cfg(unix)]
fn what_is_no_file_is_refused_at_once() {
    let shop = Workshop::new(512, 3);
    let fifo = shop.path("fifo");
    crate::tools::run("mkfifo", [&fifo]);
    for path in [fifo.as_path(), shop.folder.path(), std::path::Path::new("/dev/zero")] {
        assert!(matches!(open(path, &OpenOptions::default()), Err(Error::Refused(_))), "{}", path.display());
    }
}
