//! A whole disk, as `info --boot` looks at it.
//!
//! The oracle: every spot of a reference lies inside its file, and a chain that is called broken says why.

use std::sync::Arc;

use imgfmt::disk::{Disk, MemoryDisk};
use imgfmt::startup::chain::{Severity, Verdict};
use imgfmt::startup::examine;

/// Examines `data` as a disk.
pub fn run(data: &[u8]) {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(data.to_vec()));
    let Ok(startup) = examine(&disk) else { return };
    for chain in [&startup.bios, &startup.uefi] {
        let heavy = |severity| chain.findings.iter().any(|finding| finding.severity == severity);
        match chain.verdict() {
            Verdict::Broken => assert!(heavy(Severity::Broken)),
            Verdict::Whole => assert!(!heavy(Severity::Broken) && !heavy(Severity::Doubt)),
            Verdict::Doubtful => assert!(!heavy(Severity::Broken)),
            Verdict::Absent => {}
        }
    }
    for reference in &startup.references {
        let volume = startup.volumes.get(reference.volume);
        let files = volume.files().expect("the file was read");
        let content = files.open(reference.node, None).expect("the file was read");
        for spot in &reference.spots {
            assert!(spot.range.start < spot.range.end && spot.range.end <= content.len(), "{reference:?}");
        }
        let _ = reference.names.on_this_disk(&startup.volumes);
    }
}

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};

    #[test]
    fn seed_and_mutations_of_it() {
        let mut seed = vec![0; 1 << 20];
        let len = zstd_safe::decompress(&mut seed[..], include_bytes!("../seeds/startup.img.zst")).unwrap();
        seed.truncate(len);
        let disk: std::sync::Arc<dyn imgfmt::Disk> = std::sync::Arc::new(imgfmt::disk::MemoryDisk::new(seed.clone()));
        let startup = imgfmt::startup::examine(&disk).unwrap();
        let paths: std::collections::BTreeSet<_> =
            startup.references.iter().map(|reference| reference.path.to_ascii_lowercase()).collect();
        assert_eq!(paths.len(), 7, "{paths:?}");
        assert!(startup.uefi.steps.iter().any(|step| step.contains("is GRUB")), "{:?}", startup.uefi);
        super::run(&seed);
        // Sectors that hold something: boot sector, tables, folders, files.
        let places: Vec<usize> =
            (0..len / 512).filter(|at| seed[at * 512..][..512].iter().any(|byte| *byte != 0)).collect();
        let names: [&[u8]; 5] = [b"NTLDR      ", b"BOOTMGR    ", b"IO      SYS", b"KERNEL  SYS", b""];
        let mut random = Random::new(3);
        for round in 0..3000 {
            let mut disk = seed.clone();
            let name = names[round % names.len()];
            disk[300..300 + name.len()].copy_from_slice(name);
            if name.is_empty() {
                disk[3..11].copy_from_slice(b"SYSLINUX");
            }
            let start = places[random.below(places.len())] * 512;
            mutate(&mut disk[start..][..512], 512, &mut random);
            super::run(&disk);
        }
    }
}
