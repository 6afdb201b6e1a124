//! VHDX files.

use imgfmt::format::Format;

/// Holds any bytes as a VHDX file, as they are and with the checksums that they need to get further.
pub fn run(data: &[u8]) {
    crate::formats::check(Format::Vhdx, data);
    let mut sealed = data.to_vec();
    for (at, len) in [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 65_536), (256 << 10, 65_536)] {
        seal(&mut sealed, at, len);
    }
    for at in (1 << 20..sealed.len().min(2 << 20)).step_by(4096) {
        let Some([b'l', b'o', b'g', b'e', _, _, _, _, a, b, c, d]) = sealed.get(at..at.saturating_add(12)) else {
            continue;
        };
        let len = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        seal(&mut sealed, at, len.min(1 << 16));
    }
    crate::formats::check(Format::Vhdx, &sealed);
}

/// Puts the CRC-32C of a structure into its bytes 4 to 7.
fn seal(bytes: &mut [u8], at: usize, len: usize) {
    let Some(part) = bytes.get_mut(at..at.saturating_add(len)) else { return };
    let Some(field) = part.get_mut(4..8) else { return };
    field.fill(0);
    let crc = !part.iter().fold(u32::MAX, |crc, byte| {
        let mut low = (crc ^ u32::from(*byte)) & 0xff;
        for _ in 0..8 {
            low = if low & 1 == 1 { (low >> 1) ^ 0x82f6_3b78 } else { low >> 1 };
        }
        (crc >> 8) ^ low
    });
    part[4..8].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{on_mutations, opens};

    #[test]
    fn seeds_and_mutations_of_them() {
        let seed = include_bytes!("../seeds/log.vhdx.zst");
        opens(Format::Vhdx, seed, false);
        let (bat, metadata) = (2 << 20, 3 << 20);
        let places = [
            0x1_0000..0x1_0050,
            0x2_0000..0x2_0050,
            0x3_0000..0x3_0050,
            0x10_0000..0x10_0080,
            0x10_2000..0x10_2080,
            bat..bat + 64,
            metadata..metadata + 0xe0,
            metadata + 0x1_0000..metadata + 0x1_0080,
        ];
        on_mutations(seed, 400, &places, run);
    }
}
