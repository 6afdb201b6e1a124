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

/// CRC-32 with the polynomial 0x04c11db7, highest bit first: `crc32_be` of Linux, of old journals.
pub fn crc32_be(state: u32, bytes: &[u8]) -> u32 {
    let mut state = state;
    for byte in bytes {
        let [high, ..] = state.to_be_bytes();
        state = (state << 8) ^ CRC32_BE[usize::from(high ^ byte)];
    }
    state
}

/// What each byte does to [`crc32_be`].
static CRC32_BE: [u32; 256] = crc32_be_table();

#[expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler, which checks it"
)]
const fn crc32_be_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            value = if value >> 31 == 0 { value << 1 } else { (value << 1) ^ 0x04c1_1db7 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
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
    fn crc32_be_of_known_bytes() {
        // CRC-32/MPEG-2: the same polynomial and start value.
        assert_eq!(crc32_be(!0, b"123456789"), 0x0376_e6e7);
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
