//! GRUB's core image: the decompressor, the list of modules, and the blocks on the disk.
//!
//! The oracle: what is unpacked has the length that was asked for, and the same bytes every time.

use imgfmt::disk::MemoryDisk;
use imgfmt::startup::core_image::{Width, parse, read};
use imgfmt::startup::lzma::unpack;

/// Unpacks `data`, and reads it as an image and as a disk.
pub fn run(data: &[u8]) {
    for len in [0, 1, 1000, 70_000] {
        let (first, second) = (unpack(data, len).ok(), unpack(data, len).ok());
        assert!(first.as_ref().is_none_or(|bytes| bytes.len() == len));
        assert!(first == second);
        if let Some(bytes) = first {
            let _ = (parse(&bytes, Width::Narrow), parse(&bytes, Width::Wide));
        }
    }
    let _ = (parse(data, Width::Narrow), parse(data, Width::Wide));
    // A disk whose sector 1 loads the data from sector 2 on.
    let mut disk = vec![0; 1024];
    disk[700..707].copy_from_slice(b"loading");
    disk[720..724].copy_from_slice(b"Geom");
    let sectors = u16::try_from(data.len().div_ceil(512).saturating_add(2)).unwrap_or(u16::MAX);
    disk[0x200 + 0x1f4..][..8].copy_from_slice(&2_u64.to_le_bytes());
    disk[0x200 + 0x1fc..][..2].copy_from_slice(&sectors.to_le_bytes());
    // The code that unpacks, with the length in front.
    let mut packed = vec![0x90; 1024];
    packed[12..16].copy_from_slice(&2000_u32.to_le_bytes());
    packed.extend_from_slice(data);
    packed.resize(usize::from(sectors).saturating_mul(512), 0);
    disk.extend(packed);
    let core = read(&MemoryDisk::new(disk), 1).expect("a disk in memory can be read");
    assert!(core.is_some());
}

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};

    #[test]
    fn seed_and_mutations_of_it() {
        let seed = include_bytes!("../seeds/core.lzma");
        let unpacked = super::unpack(seed, 1100).unwrap();
        let payload = super::parse(&unpacked, super::Width::Narrow).unwrap();
        assert_eq!(payload.prefix.as_deref(), Some("(,msdos1)/boot/grub"));
        assert_eq!(payload.config.as_deref(), Some(&b"search.fs_uuid 1234-ABCD root"[..]));
        let mut random = Random::new(9);
        super::run(seed);
        super::run(&unpacked);
        for round in 0..800 {
            let mut data = if round % 4 == 0 { unpacked.clone() } else { seed.to_vec() };
            let len = data.len();
            mutate(&mut data, len, &mut random);
            super::run(&data);
        }
    }
}
