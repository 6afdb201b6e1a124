//! Registry hives, read as such, as BCD stores, and for `MountedDevices`.
//!
//! The oracle: a value that lies in one piece lies where it says.

use std::ops::Range;

use imgfmt::disk::{Disk, Extent, MemoryDisk};
use imgfmt::filesystem::files::Content;
use imgfmt::startup::bcd::{Store, partitions};
use imgfmt::startup::hive::{Hive, Key};
use imgfmt::startup::mounted_devices;

/// Bytes as the content of a file.
struct Bytes(MemoryDisk);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bytes").field("len", &self.0.len()).finish()
    }
}

impl Content for Bytes {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> imgfmt::Result<()> {
        self.0.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> imgfmt::Result<Extent> {
        self.0.extent_at(offset)
    }
    fn places(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

/// Opens `data` as a hive and walks some of its keys.
pub fn run(data: &[u8]) {
    let Ok(hive) = Hive::open(Box::new(Bytes(MemoryDisk::new(data.to_vec())))) else { return };
    if let Ok(store) = Store::read(&hive) {
        for element in store.objects.iter().flat_map(|object| &object.elements) {
            for spot in partitions(element).into_iter().flat_map(|(_, spots)| spots) {
                let place = element.place.expect("a spot has a place");
                assert!(place <= spot.range.start && spot.range.end <= u64::try_from(data.len()).expect("small"));
            }
        }
    }
    let _ = mounted_devices::read(&hive);
    let mut pending: Vec<Key> = hive.root().into_iter().collect();
    for _ in 0..200 {
        let Some(key) = pending.pop() else { break };
        for value in hive.values(&key).unwrap_or_default() {
            if let Some(place) = value.place {
                let start = usize::try_from(place).expect("inside the file");
                let end = start.saturating_add(value.data.len());
                assert_eq!(data.get(start..end), Some(&value.data[..]), "the data lie where the value says");
            }
        }
        pending.extend(hive.subkeys(&key).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};

    #[test]
    fn seed_and_mutations_of_it() {
        let mut seed = vec![0; 64 << 10];
        let len = zstd_safe::decompress(&mut seed[..], include_bytes!("../seeds/bcd.hive.zst")).unwrap();
        seed.truncate(len);
        super::run(&seed);
        let hive = super::Hive::open(Box::new(super::Bytes(super::MemoryDisk::new(seed.clone())))).unwrap();
        assert_eq!(super::Store::read(&hive).unwrap().objects.len(), 2);
        assert_eq!(super::mounted_devices::read(&hive).unwrap().len(), 2);
        let mut random = Random::new(4);
        for _ in 0..6000 {
            let mut data = seed.clone();
            let start = if random.below(4) == 0 { 0 } else { 4096 };
            mutate(&mut data[start..], 8192, &mut random);
            super::run(&data);
        }
    }
}
