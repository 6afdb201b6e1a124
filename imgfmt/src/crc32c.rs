//! CRC-32C (Castagnoli), the checksum of ext4, VHDX, btrfs and others.

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][b]`: what a byte `b` does to the checksum when `n` bytes follow it.
static TABLES: [[u32; 256]; 8] = tables();

#[expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler, which checks every index and sum"
)]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 0 { value >> 1 } else { (value >> 1) ^ POLYNOMIAL };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before: u32 = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// Continues the register `state` over `bytes`: no inversion before or after, as ext4 chains its checksums.
pub fn update(state: u32, bytes: &[u8]) -> u32 {
    let mut state = state;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let [a, b, c, d] = state.to_le_bytes();
        let [e, f, g, h, i, j, k, l] = *word;
        state = TABLES[7][usize::from(a ^ e)]
            ^ TABLES[6][usize::from(b ^ f)]
            ^ TABLES[5][usize::from(c ^ g)]
            ^ TABLES[4][usize::from(d ^ h)]
            ^ TABLES[3][usize::from(i)]
            ^ TABLES[2][usize::from(j)]
            ^ TABLES[1][usize::from(k)]
            ^ TABLES[0][usize::from(l)];
    }
    for byte in rest {
        let [low, ..] = state.to_le_bytes();
        state = (state >> 8) ^ TABLES[0][usize::from(low ^ byte)];
    }
    state
}

/// The checksum of `bytes` as most formats store it.
pub fn checksum(bytes: &[u8]) -> u32 {
    !update(!0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_are_found() {
        // RFC 3720, B.4.
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn pieces_chain() {
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in 0..bytes.len() {
            assert_eq!(update(update(!0, &bytes[..cut]), &bytes[cut..]), update(!0, &bytes));
        }
    }
}
