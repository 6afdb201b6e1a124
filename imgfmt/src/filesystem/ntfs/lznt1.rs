//! LZNT1: the compression of NTFS streams.
//!
//! Source: [MS-XCA] 2.5.

use crate::bytes::le16;
use crate::filesystem::ntfs::decode::{Broken, Output};

/// Bytes that a chunk decompresses to, unless it is the last one.
const CHUNK: usize = 4096;

/// Decompresses a compression unit into all of `dst`; what its chunks do not fill is zero.
pub fn decompress(src: &[u8], dst: &mut [u8]) -> Result<(), Broken> {
    let mut rest = src;
    let mut chunks = dst.chunks_mut(CHUNK);
    loop {
        // The clusters of a unit are longer than its chunks; a header of 0, or no room for one, ends them.
        let header = le16(rest, 0).unwrap_or(0);
        if header == 0 {
            break;
        }
        let Some(out) = chunks.next() else { return Err("it has more chunks than its unit") };
        let len = usize::from(header & 0x0fff).saturating_add(1);
        let data = rest.get(2..len.saturating_add(2)).ok_or("a chunk ends behind its unit")?;
        rest = rest.get(len.saturating_add(2)..).unwrap_or_default();
        let mut out = Output::new(out);
        if header & 0x8000 == 0 {
            out.bytes(data)?;
        } else {
            chunk(data, &mut out)?;
        }
        out.fill_with_zeros();
    }
    chunks.for_each(|out| out.fill(0));
    Ok(())
}

fn chunk(mut data: &[u8], out: &mut Output<'_>) -> Result<(), Broken> {
    while let Some((&flags, after)) = data.split_first() {
        data = after;
        for bit in 0..8 {
            if data.is_empty() {
                return Ok(());
            }
            if flags & (1 << bit) == 0 {
                let (&byte, after) = data.split_first().expect("checked above");
                out.literal(byte)?;
                data = after;
            } else {
                let token = le16(data, 0).ok_or("a match is cut short")?;
                data = data.get(2..).unwrap_or_default();
                // As many bits for the offset as the place in the chunk needs, at least 4; the rest are the length.
                let last = u16::try_from(out.len().saturating_sub(1)).unwrap_or(u16::MAX);
                let offset_bits = (16_u32.saturating_sub(last.leading_zeros())).clamp(4, 12);
                let len_bits = 16_u32.saturating_sub(offset_bits);
                let offset = usize::from(token >> len_bits).saturating_add(1);
                let len = usize::from(token & (0xffff >> offset_bits)).saturating_add(3);
                out.copy(offset, len)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of [MS-XCA] 3.3.
    const EXAMPLE: &str = "38b08846232000204720410010a24701a045204400084501507900c04520\
        0524138805b4024a44ef0358028c091601484500be009e000401189000";
    const EXAMPLE_TEXT: &str = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# \
                                G F# E D E A F# F# G A A G F# E D D E F# E D D\0";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_example_of_the_specification() {
        let mut out = vec![7; 142];
        decompress(&hex(EXAMPLE), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), EXAMPLE_TEXT);
    }

    #[test]
    fn stored_chunks_and_zeros_behind_short_ones() {
        let mut src = 0x3fff_u16.to_le_bytes().to_vec();
        src.extend([9; 4096]);
        // One literal in a compressed chunk, then the end and garbage that no one reads.
        src.extend([0x01, 0xb0, 0x00, 5, 0, 0, 0xaa]);
        let mut out = vec![7; 3 * 4096];
        decompress(&src, &mut out).unwrap();
        assert!(out[..4096].iter().all(|byte| *byte == 9));
        assert_eq!(out[4096], 5);
        assert!(out[4097..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn chunks_that_lie_are_refused() {
        let mut out = [0; 4096];
        assert!(decompress(&[0x05, 0xb0, 0], &mut out).is_err(), "longer than the unit");
        assert!(decompress(&[0x02, 0xb0, 1, 0, 0], &mut out).is_err(), "a match before the start");
        assert!(decompress(&[0x02, 0xb0, 2, 5, 0], &mut out).is_err(), "half a match");
        assert!(decompress(&[0x03, 0xb0, 2, 5, 0xff, 0x0f], &mut out[..100]).is_err(), "past the end");
        let two = [0x01, 0xb0, 0, 5, 0x01, 0xb0, 0, 5];
        assert!(decompress(&two, &mut out).is_err(), "two chunks in the room of one");
    }
}
