//! XPRESS with Huffman codes: system compression in chunks of 4, 8 or 16 KiB.
//!
//! Source: [MS-XCA] 2.1 and 2.2.

use crate::bytes::{array, le16};
use crate::filesystem::ntfs::decode::{BitReader, Broken, Huffman, Output};

/// Bytes of code lengths before the data: 512 of 4 bits.
const LENGTHS: usize = 256;

/// Decompresses a chunk into all of `dst`, at most 64 KiB.
pub fn decompress(src: &[u8], dst: &mut [u8]) -> Result<(), Broken> {
    let packed: [u8; LENGTHS] = array(src, 0).ok_or("it is shorter than its code lengths")?;
    let mut lens = [0; LENGTHS * 2];
    for (pair, byte) in lens.chunks_exact_mut(2).zip(packed) {
        pair.copy_from_slice(&[byte & 15, byte >> 4]);
    }
    let mut huffman = Huffman::new();
    huffman.set(&lens)?;
    let mut bits = BitReader::new(src.get(LENGTHS..).unwrap_or_default());
    let mut out = Output::new(dst);
    while !out.is_full() {
        let symbol = huffman.take(&mut bits)?;
        let Some(matched) = symbol.checked_sub(256) else {
            out.literal(u8::try_from(symbol).expect("below 256"))?;
            continue;
        };
        let mut len = matched & 15;
        if len == 15 {
            // The encoder's reader has 16 bits at least; longer lengths lie behind them.
            let more = bits.bytes(1, 16)?.first().copied().unwrap_or(0);
            len = usize::from(more).saturating_add(15);
            if more == 255 {
                len = usize::from(le16(bits.bytes(2, 16)?, 0).unwrap_or(0));
                if len < 15 {
                    return Err("a match has a length that a shorter form holds");
                }
            }
        }
        let offset_bits = u32::try_from(matched >> 4).expect("below 16");
        let offset = usize::try_from(1_u32 << offset_bits | bits.take(offset_bits)).expect("seventeen bits");
        out.copy(offset, len.saturating_add(3))?;
    }
    bits.check_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first example of [MS-XCA] 3.2: the letters a to z.
    fn alphabet() -> Vec<u8> {
        let mut src = vec![0; 48];
        src.extend([0x50, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x45, 0x44, 0x04]);
        src.resize(128, 0);
        // Symbol 256 ends the stream.
        src.push(0x04);
        src.resize(256, 0);
        src.extend([
            0xd8, 0x52, 0x3e, 0xd7, 0x94, 0x11, 0x5b, 0xe9, 0x19, 0x5f, 0xf9, 0xd6, 0x7c, 0xdf, 0x8d, 0x04, 0, 0, 0, 0,
        ]);
        src
    }

    #[test]
    fn the_example_of_the_specification() {
        let mut out = [0; 26];
        decompress(&alphabet(), &mut out).unwrap();
        assert_eq!(&out, b"abcdefghijklmnopqrstuvwxyz");
    }

    #[test]
    fn long_matches_have_their_lengths_in_bytes() {
        // The second example of [MS-XCA] 3.2: "abc" a hundred times.
        let mut src = vec![0_u8; 256];
        src[48] = 0x30;
        src[49] = 0x23;
        src[128] = 0x02;
        // Length 15 and more, offset of 1 bit: symbol 256 + 16 + 15.
        src[143] = 0x20;
        src.extend([0xa8, 0xdc, 0x00, 0x00, 0xff, 0x26, 0x01]);
        let mut out = vec![0; 300];
        decompress(&src, &mut out).unwrap();
        assert_eq!(out, b"abc".repeat(100));
    }

    #[test]
    fn chunks_that_lie_are_refused() {
        let mut out = [0; 26];
        assert!(decompress(&[0; 255], &mut out).is_err(), "no room for the code lengths");
        assert!(decompress(&alphabet()[..260], &mut out).is_err(), "cut short");
        let mut over = alphabet();
        over[10] = 0x11;
        over[11] = 0x11;
        assert!(decompress(&over, &mut out).is_err(), "codes of one bit for more than two symbols");
    }
}
