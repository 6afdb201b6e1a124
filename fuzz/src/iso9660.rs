//! Files of ISO 9660.

pub use crate::files::run;

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};

    #[test]
    fn seed_and_mutations_of_it() {
        let packed = include_bytes!("../seeds/iso9660.img.zst");
        let mut seed = vec![0; 4 << 20];
        let len = zstd_safe::decompress(&mut seed[..], packed).unwrap();
        seed.truncate(len);
        // The descriptors with their roots, and everything behind: directories, continuations, path tables, content.
        let places: Vec<usize> =
            [16, 17, 18].into_iter().chain((18..len / 2048).flat_map(|sector| [sector; 2])).collect();
        let mut random = Random::new(11);
        let disk: std::sync::Arc<dyn imgfmt::Disk> = std::sync::Arc::new(imgfmt::disk::MemoryDisk::new(seed.clone()));
        let files = imgfmt::filesystem::open_files(&disk).unwrap().expect("the seed is a volume");
        assert!(files.lookup(files.root(), b"link").unwrap().is_some());
        super::run(&seed);
        for _ in 0..4000 {
            let start = places[random.below(places.len())].wrapping_mul(2048);
            let before = seed.clone();
            mutate(&mut seed[start..][..2048], 700, &mut random);
            super::run(&seed);
            seed = before;
        }
    }
}
