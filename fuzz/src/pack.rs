//! Whole packs: header, footer, frames, table, by every way in that a reader has.
//!
//! The oracle: walks end inside the file, and a scan, which checks, never gets past a hop, which does not.

use std::sync::Arc;

use imgfmt::image::frame::Frame;
use imgfmt::image::id::{Id, Place};
use imgfmt::image::pack::Pack;
use imgfmt::image::store::PackFile;
use imgfmt::image::table;
use imgfmt::{Error, Result};

/// A pack in memory.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl PackFile for Bytes {
    fn len(&self) -> Result<u64> {
        Ok(u64::try_from(self.0.len()).expect("usize is at most 64 bits"))
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let start = usize::try_from(offset).ok();
        let part = start.and_then(|start| self.0.get(start..start.checked_add(buf.len())?));
        let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        buf.copy_from_slice(part.ok_or_else(|| Error::io("read", "a pack in memory", end))?);
        Ok(())
    }
}

/// Opens the bytes as a pack and reads all of it.
pub fn run(data: &[u8]) {
    let len = u64::try_from(data.len()).expect("usize is at most 64 bits");
    // With the header's checksum as it is, and made right.
    let mut fixed = data.to_vec();
    if let Some(header) = fixed.get_mut(..0x38) {
        header[0x0c..0x10].fill(0);
        let checksum = crc32fast::hash(header).to_le_bytes();
        header[0x0c..0x10].copy_from_slice(&checksum);
    }
    for bytes in [data.to_vec(), fixed] {
        let Ok(pack) = Pack::open(Arc::new(Bytes(bytes)), "fuzz.hik".into()) else { continue };
        let hopped = pack.hop(&mut |_: &Frame, place: Place| assert!(place.end() <= len)).expect("memory can be read");
        let scanned = pack.scan(&mut |_| Ok(true)).expect("memory can be read");
        assert!(pack.first_frame() <= scanned && scanned <= hopped && hopped <= len);
        let Ok(footer) = pack.footer() else { continue };
        assert!(footer.table.end() <= footer.catalogue.offset && footer.catalogue.end() <= len);
        let mut buf = Vec::new();
        let _ = pack.read_frame(footer.catalogue, &mut buf);
        let _ = pack.check_footer_hash(Id::NONE, Id::NONE, Id::NONE);
        if let Ok(blocks) = pack.table_blocks(&footer) {
            let _ = table::lookup(&blocks, &Id([0x80; 32]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate::{Random, mutate};
    use imgfmt::capture::{CaptureOptions, CaptureSource, capture};
    use imgfmt::disk::MemoryDisk;
    use imgfmt::engine::{Cancel, quiet};
    use imgfmt::image::FolderStore;
    use imgfmt::image::record::Source;

    /// A pack of one small generation, as a capture writes it.
    fn seed() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hik");
        let disk = MemoryDisk::new((0..200_u8).cycle().take(150_000).collect());
        let identity = Source { path: "a seed".into(), kind: "file".into(), ..Source::default() };
        let source = CaptureSource { disk: Arc::new(disk), identity, physical_sector_size: 512 };
        let store = Arc::new(FolderStore::new(&path, &[]).unwrap());
        capture(&source, store, &CaptureOptions::default(), quiet(&Cancel::default())).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn seed_and_mutations_of_it() {
        let seed = seed();
        let file: Arc<dyn PackFile> = Arc::new(Bytes(seed.clone()));
        Pack::open(file, "a.hik".into()).unwrap().footer().unwrap();
        run(&seed);
        let mut random = Random::new(43);
        for _ in 0..4000 {
            let mut bytes = seed.clone();
            let start = match random.below(3) {
                0 => 0,
                1 => bytes.len().saturating_sub(128),
                _ => random.below(bytes.len()),
            };
            let end = start.saturating_add(200).min(bytes.len());
            mutate(&mut bytes[start..end], 200, &mut random);
            if random.below(10) == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            run(&bytes);
        }
    }
}
