//! LVM2's description of a volume group, inside a physical volume whose checksums match.

use std::sync::Arc;

use imgfmt::disk::{Disk, MemoryDisk, buf_len};
use imgfmt::volume::lvm2::label::checksum;
use imgfmt::volume::lvm2::{PhysicalVolume, assemble, metadata};

/// Start value of LVM's CRC-32.
const INITIAL_CRC: u32 = 0xf597_a6cf;
/// Where the metadata area lies, in bytes of the volume.
const AREA: usize = 4096;
/// Bytes of the volume.
const LEN: usize = 2 << 20;
/// Id of the volume, as its label holds it; the seed's text has it with hyphens.
const ID: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at.saturating_add(value.len())].copy_from_slice(value);
}

/// A physical volume that holds `text`.
fn volume(text: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0_u8..251).cycle().take(LEN).collect();
    bytes[..1 << 20].fill(0);
    // The label, in sector 1: volume, no data area, one metadata area.
    put(&mut bytes, 512, b"LABELONE");
    put(&mut bytes, 520, &1_u64.to_le_bytes());
    put(&mut bytes, 532, &32_u32.to_le_bytes());
    put(&mut bytes, 536, b"LVM2 001");
    put(&mut bytes, 544, ID);
    put(&mut bytes, 600, &u64::try_from(AREA).expect("small").to_le_bytes());
    put(&mut bytes, 608, &(1_u64 << 19).to_le_bytes());
    let crc = checksum(INITIAL_CRC, &bytes[532..1024]);
    put(&mut bytes, 528, &crc.to_le_bytes());
    // The area: its header and one description behind it.
    put(&mut bytes, 4100, b" LVM2 x[5A%r0N*>");
    put(&mut bytes, 4116, &1_u32.to_le_bytes());
    put(&mut bytes, 4120, &u64::try_from(AREA).expect("small").to_le_bytes());
    put(&mut bytes, 4128, &(1_u64 << 19).to_le_bytes());
    put(&mut bytes, 4136, &512_u64.to_le_bytes());
    put(&mut bytes, 4144, &buf_len(text).to_le_bytes());
    put(&mut bytes, 4152, &checksum(INITIAL_CRC, text).to_le_bytes());
    let crc = checksum(INITIAL_CRC, &bytes[4100..4608]);
    put(&mut bytes, 4096, &crc.to_le_bytes());
    put(&mut bytes, 4608, text);
    bytes
}

/// Opens a volume with this description. What is mapped can be read to its end, and its extents tile it.
pub fn run(text: &[u8]) {
    let text = &text[..text.len().min(100_000)];
    if text.is_empty() {
        return;
    }
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(volume(text)));
    let parsed = metadata::parse(text);
    let opened = PhysicalVolume::open(&disk);
    assert_eq!(parsed.is_ok(), opened.is_ok(), "the label and both checksums are right, so only the text decides");
    let Ok(Some(physical)) = opened else { return };
    for logical in assemble(&[physical]) {
        assert!(!logical.name.contains('/') && !logical.name.is_empty());
        let Ok(mapped) = logical.disk else { continue };
        let mut at = 0;
        for _ in 0..1000 {
            if at >= mapped.len() {
                break;
            }
            let extent = mapped.extent_at(at).expect("it lies inside");
            assert!(extent.offset == at && extent.len > 0 && extent.end() <= mapped.len());
            at = extent.end();
        }
        let len = mapped.len().min(4096);
        let mut buf = vec![0; usize::try_from(len).expect("small")];
        for at in [0, mapped.len().saturating_sub(len)] {
            mapped.read_at(&mut buf, at).expect("all of it lies on the volume");
        }
        assert!(mapped.read_at(&mut [0], mapped.len()).is_err());
    }
}

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};

    const SEED: &str = r#"vg { id = "x" seqno = 3 extent_size = 128 physical_volumes {
        pv0 { id = "abcdef-ghij-klmn-opqr-stuv-wxyz-012345" device = "/dev/sda" pe_start = 2048 pe_count = 16 } }
        logical_volumes {
            a { status = ["READ", "VISIBLE"] segment_count = 2
                segment1 { start_extent = 0 extent_count = 3 type = "striped" stripe_count = 1 stripes = ["pv0", 2] }
                segment2 { start_extent = 3 extent_count = 1 type = "zero" } }
            b { status = ["VISIBLE"] segment_count = 1
                segment1 { start_extent = 0 extent_count = 4 type = "striped" stripe_count = 2 stripe_size = 8
                    stripes = ["pv0", 6, "pv0", 9] } }
            c { status = ["VISIBLE"] segment_count = 1 segment1 { start_extent = 0 extent_count = 1 type = "raid1" } } } }
        # written by hand
        contents = "Text Format Volume Group""#;

    #[test]
    fn the_seed_is_read() {
        let disk: std::sync::Arc<dyn imgfmt::Disk> =
            std::sync::Arc::new(imgfmt::disk::MemoryDisk::new(super::volume(SEED.as_bytes())));
        let physical = super::PhysicalVolume::open(&disk).unwrap().unwrap();
        let logical = super::assemble(&[physical]);
        let lens: Vec<_> = logical.iter().map(|volume| volume.disk.as_ref().map(|disk| disk.len()).ok()).collect();
        assert_eq!(lens, [Some(4 << 16), Some(4 << 16), None]);
    }

    #[test]
    fn seed_and_mutations_of_it() {
        let mut random = Random::new(1);
        super::run(SEED.as_bytes());
        for _ in 0..1500 {
            let mut text = SEED.as_bytes().to_vec();
            let len = text.len();
            mutate(&mut text, len, &mut random);
            // Numbers of any length, which flips of bits hardly make.
            if random.below(2) == 0 {
                let digits: Vec<usize> = (0..len).filter(|at| text[*at].is_ascii_digit()).collect();
                let at = digits[random.below(digits.len())];
                let count = random.below(20);
                text.splice(at..at, std::iter::repeat_n(b'9', count));
            }
            super::run(&text);
        }
    }
}
