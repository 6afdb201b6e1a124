//! Checksums of metadata: CRC-32C with `metadata_csum`, CRC-16 of group descriptors with `uninit_bg`.

use crate::crc32c;

/// CRC-16 with the polynomial 0x8005, bits reversed, as `uninit_bg` uses it.
pub fn crc16(state: u16, bytes: &[u8]) -> u16 {
    let mut state = state;
    for byte in bytes {
        state ^= u16::from(*byte);
        for _ in 0..8 {
            state = if state & 1 == 0 { state >> 1 } else { (state >> 1) ^ 0xa001 };
        }
    }
    state
}

/// CRC-32C of `bytes` as if the bytes of `holes` (ascending, two or four bytes each) were zero: checksums cover the structure that they
/// lie in.
pub fn crc32c_without(seed: u32, bytes: &[u8], holes: &[(usize, usize)]) -> u32 {
    let mut state = seed;
    let mut at = 0;
    for (hole, len) in holes {
        let zeros = [0; 4];
        state = crc32c::update(state, bytes.get(at..*hole).unwrap_or_default());
        state = crc32c::update(state, zeros.get(..*len).unwrap_or_default());
        at = hole.saturating_add(*len);
    }
    crc32c::update(state, bytes.get(at..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_of_known_bytes() {
        // CRC-16/MODBUS: the same polynomial and start value.
        assert_eq!(crc16(!0, b"123456789"), 0x4b37);
    }

    #[test]
    fn holes_count_as_zeros() {
        let bytes: Vec<u8> = (1..=64).collect();
        let mut zeroed = bytes.clone();
        zeroed[4..8].fill(0);
        zeroed[30..32].fill(0);
        assert_eq!(crc32c_without(7, &bytes, &[(4, 4), (30, 2)]), crc32c::update(7, &zeroed));
    }
}
