//! LZX as WIM files and system compression have it: chunks of at most 32 KiB, each by itself.
//!
//! Source: [MS-PATCH] "LZX DELTA Compression and Decompression" for the stream; the WIM specification for what differs: a window
//! of 32 KiB, the short block size, no delta, and call addresses that are translated in every chunk for a file of 12,000,000 bytes.

use crate::bytes::le32;
use crate::filesystem::ntfs::decode::{BitReader, Broken, Huffman, Output};

/// Longest chunk: the window.
pub const MAX_CHUNK: usize = 32 << 10;
/// A window of 32 KiB has so many position slots.
const SLOTS: usize = 30;
const MAIN_SYMBOLS: usize = 256 + SLOTS * 8;
const LENGTH_SYMBOLS: usize = 249;
/// The file size that call addresses are translated for.
const CALL_SIZE: i32 = 12_000_000;

/// Decompresses a chunk into all of `dst`, at most [`MAX_CHUNK`] bytes.
pub fn decompress(src: &[u8], dst: &mut [u8]) -> Result<(), Broken> {
    if dst.len() > MAX_CHUNK {
        return Err("it is longer than its window");
    }
    let mut decoder = Decoder {
        bits: BitReader::new(src),
        recent: [1; 3],
        main_lens: [0; MAIN_SYMBOLS],
        length_lens: [0; LENGTH_SYMBOLS],
        main: Huffman::new(),
        length: Huffman::new(),
        aligned: Huffman::new(),
    };
    let mut out = Output::new(dst);
    while !out.is_full() {
        decoder.block(&mut out)?;
    }
    decoder.bits.check_end()?;
    undo_call_translation(dst);
    Ok(())
}

struct Decoder<'a> {
    bits: BitReader<'a>,
    recent: [usize; 3],
    /// Code lengths stay from block to block: each block gives the differences.
    main_lens: [u8; MAIN_SYMBOLS],
    length_lens: [u8; LENGTH_SYMBOLS],
    main: Huffman,
    length: Huffman,
    aligned: Huffman,
}

impl Decoder<'_> {
    fn block(&mut self, out: &mut Output<'_>) -> Result<(), Broken> {
        let kind = self.bits.take(3);
        let len = if self.bits.take(1) == 1 { MAX_CHUNK } else { usize::try_from(self.bits.take(16)).unwrap_or(0) };
        let end = out.len().saturating_add(len);
        if len == 0 {
            return Err("a block is empty");
        }
        match kind {
            1 => {
                self.read_codes()?;
                self.matches(out, end, false)
            }
            2 => {
                let mut lens = [0; 8];
                lens.iter_mut().for_each(|len| *len = u8::try_from(self.bits.take(3)).expect("three bits"));
                self.aligned.set(&lens)?;
                self.read_codes()?;
                self.matches(out, end, true)
            }
            3 => self.stored(out, len),
            _ => Err("a block is of no known kind"),
        }
    }

    fn stored(&mut self, out: &mut Output<'_>, len: usize) -> Result<(), Broken> {
        self.bits.align();
        let recent = self.bits.bytes(12, 0)?;
        for (offset, at) in self.recent.iter_mut().zip([0, 4, 8]) {
            let raw = le32(recent, at).and_then(|raw| usize::try_from(raw).ok());
            *offset = raw.filter(|raw| *raw != 0).ok_or("a recent offset is 0")?;
        }
        out.bytes(self.bits.bytes(len, 0)?)?;
        if len % 2 == 1 && !out.is_full() {
            self.bits.bytes(1, 0)?;
        }
        Ok(())
    }

    fn read_codes(&mut self) -> Result<(), Broken> {
        let (literals, matches) = self.main_lens.split_at_mut(256);
        read_lens(&mut self.bits, literals)?;
        read_lens(&mut self.bits, matches)?;
        read_lens(&mut self.bits, &mut self.length_lens)?;
        self.main.set(&self.main_lens)?;
        self.length.set(&self.length_lens)
    }

    fn matches(&mut self, out: &mut Output<'_>, end: usize, aligned: bool) -> Result<(), Broken> {
        while out.len() < end && !out.is_full() {
            let symbol = self.main.take(&mut self.bits)?;
            let Some(matched) = symbol.checked_sub(256) else {
                out.literal(u8::try_from(symbol).expect("below 256"))?;
                continue;
            };
            let mut len = matched & 7;
            if len == 7 {
                len = self.length.take(&mut self.bits)?.saturating_add(7);
            }
            let slot = matched >> 3;
            let offset = match slot {
                0..3 => {
                    self.recent.swap(0, slot);
                    self.recent[0]
                }
                _ => {
                    let offset = self.offset(slot, aligned)?;
                    self.recent = [offset, self.recent[0], self.recent[1]];
                    offset
                }
            };
            out.copy(offset, len.saturating_add(2))?;
        }
        Ok(())
    }

    fn offset(&mut self, slot: usize, aligned: bool) -> Result<usize, Broken> {
        // Slots go in pairs of one length: 3 is 3, 4 and 6 with 1 bit, 8 and 12 with 2, and so on; the first three are recent offsets.
        let extra = u32::try_from((slot >> 1).saturating_sub(1)).expect("a slot is below 30");
        let base = match slot {
            3 => 3,
            _ => (2 | slot & 1) << extra,
        };
        let extra = if slot == 3 { 0 } else { extra };
        let more = if aligned && extra >= 3 {
            let high = self.bits.take(extra.saturating_sub(3)) << 3;
            usize::try_from(high).unwrap_or(0) | self.aligned.take(&mut self.bits)?
        } else {
            usize::try_from(self.bits.take(extra)).unwrap_or(0)
        };
        Ok(base.saturating_add(more).saturating_sub(2))
    }
}

/// Reads code lengths as differences to those that `lens` holds, themselves in a small code.
fn read_lens(bits: &mut BitReader<'_>, lens: &mut [u8]) -> Result<(), Broken> {
    let mut pre_lens = [0; 20];
    pre_lens.iter_mut().for_each(|len| *len = u8::try_from(bits.take(4)).expect("four bits"));
    let mut code = Huffman::new();
    code.set(&pre_lens)?;
    let difference = |before: u8, symbol: usize| -> Result<u8, Broken> {
        let symbol = u8::try_from(symbol).ok().filter(|symbol| *symbol < 17).ok_or("a run of runs")?;
        Ok(if before >= symbol {
            before.saturating_sub(symbol)
        } else {
            before.saturating_add(17).saturating_sub(symbol)
        })
    };
    let mut at = 0_usize;
    while let Some(before) = lens.get(at).copied() {
        let symbol = code.take(bits)?;
        let (value, run) = match symbol {
            17 => (0, bits.take(4).saturating_add(4)),
            18 => (0, bits.take(5).saturating_add(20)),
            19 => {
                let run = bits.take(1).saturating_add(4);
                (difference(before, code.take(bits)?)?, run)
            }
            _ => (difference(before, symbol)?, 1),
        };
        // A run may reach past the last symbol.
        let end = at.saturating_add(usize::try_from(run).unwrap_or(0)).min(lens.len());
        lens.get_mut(at..end).unwrap_or_default().fill(value);
        at = end;
    }
    Ok(())
}

/// Turns the absolute addresses of x86 calls (E8) back into relative ones.
fn undo_call_translation(data: &mut [u8]) {
    // Nothing in the last 10 bytes was translated.
    let end = data.len().saturating_sub(10);
    let mut at = 0_usize;
    while let Some(found) = data.get(at..end).and_then(|rest| rest.iter().position(|byte| *byte == 0xe8)) {
        let call = at.saturating_add(found);
        let position = i32::try_from(call).unwrap_or(i32::MAX);
        if let Some(operand) = data.get_mut(call.saturating_add(1)..call.saturating_add(5)) {
            let absolute = i32::from_le_bytes([operand[0], operand[1], operand[2], operand[3]]);
            let relative = match absolute {
                0..CALL_SIZE => Some(absolute.wrapping_sub(position)),
                i32::MIN..0 if absolute >= position.wrapping_neg() => Some(absolute.wrapping_add(CALL_SIZE)),
                _ => None,
            };
            if let Some(relative) = relative {
                operand.copy_from_slice(&relative.to_le_bytes());
            }
        }
        at = call.saturating_add(5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [`text`] compressed by wimlib 1.13.5 in a WIM of LZX chunks.
    const PACKED: &str = "9b2000a20000470170753000c777f83881718185685f4ca9fd1eefffc37b9431c89493abd1e1a983d2d8cc94f2c162624662\
        c21ea8c0626332610676a644000200004602606424600704fe7e6127eb4d02f81e0dc6c692c5bc3ce4e1df79808400000000\
        110dc01084800efcfdbaf7fbb5eb77b370351d66c6de7c1df5353576f8f9716ddff76f7d43e111fd77a6ddf64a9dd0bc4b34\
        b7d31a89a166397346556663818ae8bf5c1de08a02f1cecf8958970922dbcdd089652f6bad4e70687979eb771101d822b3cc\
        33145d982a1d31b96c6b6d71d57702e2f32559d28a095b175e3d3dc36d2e1fef5c01201edf5ec43a4c48a6a934b472199f5e\
        b0b270687c79d6b42202e645acf80dc517168387a558b18dc8c52bfa04c49b4b59c28a098b17938d26f1491a6f73f67b27fd\
        f158fa02fff212312e1355f6a6a1dacfaea542cf6db30fce4f2ef50f08381789a8c314b31835b55e62a2dcd65debdd2efb68\
        64a1666f2ce2c584670b54c1316368f773c8bc776a1c1d2b7b8fd0eff7ddc92363917c8fdbaf779e7ff512fe19814b7efdd9\
        8d0aeb08eff3b87690aa273ab24895fb372613bc0080";

    /// Lines and calls, the addresses of which are small, large and negative.
    fn text() -> Vec<u8> {
        let mut text = Vec::new();
        for n in 0..120_i32 {
            text.extend(format!("line {n} of a text; ").as_bytes());
            if n % 3 == 0 {
                let address = if n % 2 == 1 { n * 1000 - i32::try_from(text.len()).unwrap() } else { n * 7 };
                text.push(0xe8);
                text.extend(address.to_le_bytes());
            }
        }
        text
    }

    fn packed() -> Vec<u8> {
        (0..PACKED.len() / 2).map(|at| u8::from_str_radix(&PACKED[at * 2..at * 2 + 2], 16).unwrap()).collect()
    }

    #[test]
    fn what_wimlib_compressed_comes_back() {
        let mut out = vec![0; text().len()];
        decompress(&packed(), &mut out).unwrap();
        assert!(out == text());
    }

    #[test]
    fn stored_blocks_are_copied_and_give_recent_offsets() {
        // Kind 3, 16 bits of length 3, aligned; offsets 1, 1, 1; three bytes and a byte of padding; then the same with 1.
        let block = |len: u16, bytes: &[u8]| {
            let header = 3_u32 << 29 | u32::from(len) << 12;
            let mut raw = u16::try_from(header >> 16).unwrap().to_le_bytes().to_vec();
            raw.extend(u16::try_from(header & 0xffff).unwrap().to_le_bytes());
            raw.extend([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
            raw.extend(bytes);
            raw
        };
        let mut src = block(3, b"abc\0");
        src.extend(block(1, b"d"));
        let mut out = [0; 4];
        decompress(&src, &mut out).unwrap();
        assert_eq!(&out, b"abcd");
        src[4] = 0;
        assert!(decompress(&src, &mut out).is_err(), "a recent offset of 0");
    }

    #[test]
    fn chunks_that_lie_are_refused() {
        let mut out = vec![0; text().len()];
        for len in [0, 1, 10, 100, 400, packed().len() - 2] {
            assert!(decompress(&packed()[..len], &mut out).is_err(), "cut to {len}");
        }
        assert!(decompress(&packed(), &mut vec![0; MAX_CHUNK + 1]).is_err());
        assert!(decompress(&[0; 64], &mut out).is_err(), "no kind of block");
    }
}
