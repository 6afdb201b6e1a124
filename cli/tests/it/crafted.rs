//! Images whose records say what a test wants, written through the library.

use std::path::Path;
use std::sync::Arc;

use imgfmt::capture::chunks::{PassOptions, store_disk};
use imgfmt::disk::MemoryDisk;
use imgfmt::engine::{Cancel, quiet};
use imgfmt::image::codec::Compression;
use imgfmt::image::record::{DiskShape, Record};
use imgfmt::image::tree::TreeShape;
use imgfmt::image::{FolderStore, ImageWriter, PackStore, WriterOptions};

/// Adds a generation of a small disk whose first bytes are `content`; `change` makes the record.
pub(crate) fn add(image: &Path, content: &[u8], change: impl FnOnce(&mut Record)) {
    let mut bytes = vec![0; 200_000];
    bytes[..content.len()].copy_from_slice(content);
    let len = bytes.len() as u64;
    let store = Arc::new(FolderStore::new(image, &[]).unwrap());
    // Another test of this process may be starting a program, which holds our locks from its fork to its exec.
    let mut writer = loop {
        match ImageWriter::open(Arc::clone(&store) as Arc<dyn PackStore>, WriterOptions::default()) {
            Err(imgfmt::Error::Refused(_)) => std::thread::yield_now(),
            writer => break writer.unwrap(),
        }
    };
    let pass = PassOptions { compression: Compression::default(), decode_verify: true, previous: None };
    let (root, _) = store_disk(&MemoryDisk::new(bytes), &mut writer, pass, quiet(&Cancel::default())).unwrap();
    let disk = DiskShape { len, logical_sector_size: 512, physical_sector_size: 512 };
    let mut record = Record { format: 1, created: "2026-11-15T09:30:00Z".into(), disk, ..Record::default() };
    change(&mut record);
    writer.commit(record, root, TreeShape::new(len, 65536).unwrap().root_level()).unwrap();
}
