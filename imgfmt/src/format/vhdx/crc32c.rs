//! CRC-32C (Castagnoli), the checksum of VHDX's structures.

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[k][b]`: the checksum of byte `b` followed by `k` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

#[expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "computed by the compiler, which fails on an overflow"
)]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
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
        let look = |table: usize, byte: u8| {
            TABLES.get(table).and_then(|table| table.get(usize::from(byte))).copied().unwrap_or(0)
        };
        let (eights, rest) = bytes.as_chunks::<8>();
        let mut crc = self.0;
        for eight in eights {
            let [a, b, c, d, e, f, g, h] = *eight;
            let [i, j, k, l] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
            crc = look(7, i) ^ look(6, j) ^ look(5, k) ^ look(4, l) ^ look(3, e) ^ look(2, f) ^ look(1, g) ^ look(0, h);
        }
        for byte in rest {
            let [low, ..] = crc.to_le_bytes();
            crc = (crc >> 8) ^ look(0, low ^ byte);
        }
        self.0 = crc;
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

    fn of(bytes: &[u8]) -> u32 {
        let mut crc = Crc32c::start();
        crc.update(bytes);
        crc.finish()
    }

    #[test]
    fn the_published_values_come_out() {
        // RFC 3720, B.4.
        assert_eq!(of(b"123456789"), 0xe306_9283);
        assert_eq!(of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(of(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(of(&(0..32).collect::<Vec<_>>()), 0x46dd_794e);
    }

    #[test]
    fn pieces_and_the_whole_are_the_same() {
        let bytes: Vec<u8> = (0..1000_u32).map(|n| (n * 7 % 251) as u8).collect();
        for cut in 0..40 {
            let mut crc = Crc32c::start();
            crc.update(&bytes[..cut]);
            crc.update(&bytes[cut..]);
            assert_eq!(crc.finish(), of(&bytes));
        }
    }
}
