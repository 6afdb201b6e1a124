//! VHD files.

use imgfmt::format::Format;

/// Holds any bytes as a VHD file, as they are and with the checksums that they need to get further.
pub fn run(data: &[u8]) {
    crate::formats::check(Format::Vhd, data);
    let mut sealed = data.to_vec();
    let end = data.len().saturating_sub(512);
    for footer in [0, end] {
        seal(&mut sealed, footer, 512, 64);
    }
    let at = data.get(16..24).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    seal(&mut sealed, usize::try_from(at).unwrap_or(usize::MAX), 1024, 36);
    crate::formats::check(Format::Vhd, &sealed);
}

/// Puts the complement of the sum of a structure into the four bytes at `field`.
fn seal(bytes: &mut [u8], at: usize, len: usize, field: usize) {
    let Some(part) = bytes.get_mut(at..at.saturating_add(len)) else { return };
    part[field..field.saturating_add(4)].fill(0);
    let sum = part.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()));
    part[field..field.saturating_add(4)].copy_from_slice(&(!sum).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{on_mutations, opens};

    #[test]
    fn seeds_and_mutations_of_them() {
        let dynamic = include_bytes!("../seeds/dynamic.vhd.zst");
        opens(Format::Vhd, dynamic, false);
        on_mutations(dynamic, 700, &[0..92, 512..600, 1536..1544], run);
        let differencing = include_bytes!("../seeds/differencing.vhd.zst");
        opens(Format::Vhd, differencing, true);
        on_mutations(differencing, 700, &[0..92, 512..600, 1088..1300, 1536..1544, 2048..2600], run);
    }
}
