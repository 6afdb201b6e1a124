//! Virtual disk files: whatever the bytes, a file is refused with an error or is a disk that keeps its promises.

use std::sync::Arc;

use imgfmt::disk::MemoryDisk;
use imgfmt::format::{Format, OpenOptions, open_within};
use imgfmt::{Disk, Error, ExtentKind};

/// Extents that are looked at; a hostile table can make very many.
const MOST_EXTENTS: usize = 300;

/// Opens the bytes as a file of this format, in every way that there is, and holds the disk against itself.
pub fn check(format: Format, data: &[u8]) {
    let file: Arc<dyn Disk> = Arc::new(MemoryDisk::new(data.to_vec()));
    let mut snapshots = vec![None];
    for without_base in [false, true] {
        let mut next = 0;
        while let Some(snapshot) = snapshots.get(next).cloned() {
            next = next.saturating_add(1);
            let options = OpenOptions { format: Some(format), without_base, snapshot, ..OpenOptions::default() };
            if let Ok(image) = open_within(Arc::clone(&file), "file", &options) {
                if snapshots.len() == 1 {
                    snapshots.extend(image.snapshots().iter().take(3).map(|snapshot| Some(snapshot.id.clone())));
                }
                hold(&image);
            }
        }
    }
}

/// Extents tile the disk, what is not Data reads as zero, any two reads agree, and nothing lies past the end.
pub(crate) fn hold(disk: &dyn Disk) {
    let len = disk.len();
    assert!(matches!(disk.sector_size(), 512 | 4096));
    for start in [0, len / 3, len.saturating_sub(70_000)] {
        let (mut at, mut seen) = (start, 0);
        while at < len && seen < MOST_EXTENTS {
            let Ok(extent) = disk.extent_at(at) else { break };
            assert_eq!(extent.offset, at);
            assert!(extent.len > 0 && extent.end() <= len, "{extent:?} of {len}");
            assert_ne!(extent.kind, ExtentKind::Bad);
            let part = usize::try_from(extent.len.min(5000)).expect("a small number");
            hold_read(disk, at, part, extent.kind != ExtentKind::Data);
            at = extent.end();
            seen = seen.saturating_add(1);
        }
        let part = usize::try_from(len.saturating_sub(start).min(300_000)).expect("a small number");
        hold_read(disk, start, part, false);
    }
    for (offset, part) in [(len, 1), (u64::MAX, 1), (len.saturating_sub(1), 2)] {
        let result = disk.read_at(&mut vec![0; part], offset);
        assert!(matches!(result, Err(Error::OutOfRange { .. })), "{part} bytes at {offset} of {len}");
    }
    assert!(disk.extent_at(len).is_err());
}

/// A range that can be read can be read in parts, with the same bytes.
fn hold_read(disk: &dyn Disk, offset: u64, len: usize, is_zero: bool) {
    let mut whole = vec![0xcc; len];
    if disk.read_at(&mut whole, offset).is_err() {
        return;
    }
    assert!(!is_zero || whole.iter().all(|byte| *byte == 0), "{len} bytes at {offset} should be zero");
    let third = (len / 3).max(1);
    for (number, part) in whole.chunks(third).enumerate() {
        let at = u64::try_from(number.saturating_mul(third)).expect("a small number").saturating_add(offset);
        let mut again = vec![0xdd; part.len()];
        disk.read_at(&mut again, at).expect("a part of what was read");
        assert!(again == part, "{} bytes at {at} differ", part.len());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use imgfmt::format::Format;

    use crate::mutate::{Random, mutate};

    /// Runs a target on a seed and on `count` mutations of what `places` lists: ranges of metadata.
    pub(crate) fn on_mutations(packed: &[u8], count: usize, places: &[std::ops::Range<usize>], run: impl Fn(&[u8])) {
        let len = zstd_safe::get_frame_content_size(packed).unwrap().unwrap();
        let mut image = vec![0; usize::try_from(len).unwrap()];
        assert_eq!(zstd_safe::decompress(&mut image[..], packed).unwrap(), image.len());
        run(&image);
        let mut random = Random::new(len);
        for _ in 0..count {
            let place = places[random.below(places.len())].clone();
            let place = place.start..place.end.min(image.len());
            let before = image[place.clone()].to_vec();
            mutate(&mut image[place.clone()], before.len(), &mut random);
            run(&image);
            image[place].copy_from_slice(&before);
        }
        // Cut anywhere.
        for _ in 0..count / 10 {
            run(&image[..random.below(image.len())]);
        }
    }

    /// A seed opens: else its mutations would only test the first check.
    pub(crate) fn opens(format: Format, packed: &[u8], without_base: bool) {
        let len = zstd_safe::get_frame_content_size(packed).unwrap().unwrap();
        let mut image = vec![0; usize::try_from(len).unwrap()];
        zstd_safe::decompress(&mut image[..], packed).unwrap();
        let file = std::sync::Arc::new(imgfmt::disk::MemoryDisk::new(image));
        let options = imgfmt::format::OpenOptions {
            format: Some(format),
            without_base,
            ..imgfmt::format::OpenOptions::default()
        };
        imgfmt::format::open_within(file, "seed", &options).unwrap();
    }
}
