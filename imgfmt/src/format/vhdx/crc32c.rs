//! How VHDX uses CRC-32C.

use crate::crc32c;

/// A checksum over bytes that come in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc32c(u32);

impl Crc32c {
    /// Of no bytes yet.
    pub(super) fn start() -> Self {
        Self(u32::MAX)
    }

    /// Adds bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::update(self.0, bytes);
    }

    /// The checksum.
    pub(super) fn finish(self) -> u32 {
        !self.0
    }
}

/// The checksum of a structure whose own checksum lies at byte 4 and counts as 0.
pub(super) fn of_structure(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::start();
    crc.update(bytes.get(..4).unwrap_or(bytes));
    crc.update(&[0; 4]);
    crc.update(bytes.get(8..).unwrap_or_default());
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_structure_leaves_out_its_own_place() {
        let mut bytes: Vec<u8> = (0..=255).collect();
        let before = of_structure(&bytes);
        bytes[4..8].fill(9);
        assert_eq!(of_structure(&bytes), before);
        bytes[4..8].fill(0);
        assert_eq!(crc32c::checksum(&bytes), before);
        bytes[8] ^= 1;
        assert_ne!(of_structure(&bytes), before);
    }
}
