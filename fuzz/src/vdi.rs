//! VDI files.

use imgfmt::format::Format;

/// Holds any bytes as a VDI file.
pub fn run(data: &[u8]) {
    crate::formats::check(Format::Vdi, data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::{on_mutations, opens};

    #[test]
    fn seeds_and_mutations_of_them() {
        let seed = include_bytes!("../seeds/dynamic.vdi.zst");
        opens(Format::Vdi, seed, false);
        on_mutations(seed, 2000, &[0x40..0x54, 0x154..0x1d0, 0x200..0x210], run);
    }
}
