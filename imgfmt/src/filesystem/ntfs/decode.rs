//! What the decompressors share: an output that cannot be overrun, a bit reader, and canonical Huffman codes.
//!
//! A decoder fails with a phrase that names the broken rule; who knows where the bytes lie makes an error of it.

use crate::bytes::le16;

/// The rule that compressed bytes break.
pub type Broken = &'static str;

const PAST_END: Broken = "it decompresses to more bytes than it says";

/// The bytes that a decoder has written, and room for the rest.
#[derive(Debug)]
pub(super) struct Output<'a> {
    buf: &'a mut [u8],
    at: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, at: 0 }
    }

    /// Bytes written.
    pub(super) fn len(&self) -> usize {
        self.at
    }

    /// Whether no room is left.
    pub(super) fn is_full(&self) -> bool {
        self.at >= self.buf.len()
    }

    pub(super) fn literal(&mut self, byte: u8) -> Result<(), Broken> {
        *self.buf.get_mut(self.at).ok_or(PAST_END)? = byte;
        self.at = self.at.saturating_add(1);
        Ok(())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let end = self.at.saturating_add(bytes.len());
        self.buf.get_mut(self.at..end).ok_or(PAST_END)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    /// Repeats `len` bytes from `offset` bytes back; they may overlap what they become.
    pub(super) fn copy(&mut self, offset: usize, len: usize) -> Result<(), Broken> {
        let from = self.at.checked_sub(offset).ok_or("a match points before its start")?;
        let end = self.at.saturating_add(len);
        if end > self.buf.len() {
            return Err(PAST_END);
        }
        if offset == 0 {
            return Err("a match points at itself");
        }
        // Each round copies all that is there, so a short period doubles.
        while self.at < end {
            let part = self.at.saturating_sub(from).min(end.saturating_sub(self.at));
            self.buf.copy_within(from..from.saturating_add(part), self.at);
            self.at = self.at.saturating_add(part);
        }
        Ok(())
    }

    /// Writes zeros up to the end.
    pub(super) fn fill_with_zeros(&mut self) {
        if let Some(rest) = self.buf.get_mut(self.at..) {
            rest.fill(0);
        }
        self.at = self.buf.len();
    }
}

/// Reads bits, the highest first, from little-endian 16-bit units, as XPRESS and LZX have them. Past the end come zeros.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    src: &'a [u8],
    /// Byte of the next unit that is not in `bits`.
    next: usize,
    /// Bits read ahead, from bit 63 downwards; zero below.
    bits: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(src: &'a [u8]) -> Self {
        Self { src, next: 0, bits: 0, count: 0 }
    }

    /// Makes at least 32 bits ready.
    fn refill(&mut self) {
        while self.count <= 48 {
            let unit = le16(self.src, self.next).unwrap_or(0);
            self.bits |= u64::from(unit) << (48_u32.saturating_sub(self.count));
            self.count = self.count.saturating_add(16);
            self.next = self.next.saturating_add(2);
        }
    }

    /// The next `count` bits (at most 17), not taken yet.
    fn peek(&mut self, count: u32) -> u32 {
        if self.count < 32 {
            self.refill();
        }
        // In two steps, since a shift by 64 is none.
        u32::try_from((self.bits >> 32) >> (32_u32.saturating_sub(count))).expect("at most 32 bits are left")
    }

    fn skip(&mut self, count: u32) {
        self.bits <<= count;
        self.count = self.count.saturating_sub(count);
    }

    /// Takes `count` bits, at most 17.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let value = self.peek(count);
        self.skip(count);
        value
    }

    /// Gives back whole units that were read ahead, down to fewer than 16 bits above `keep`.
    fn rewind(&mut self, keep: u32) {
        while self.count >= keep.saturating_add(16) {
            self.count = self.count.saturating_sub(16);
            self.next = self.next.saturating_sub(2);
        }
        self.bits &= u64::MAX.checked_shl(64_u32.saturating_sub(self.count)).unwrap_or(0);
    }

    /// Takes bytes that lie behind the bits: behind the units that a reader has, which keeps at least `keep` bits ready.
    pub(super) fn bytes(&mut self, len: usize, keep: u32) -> Result<&'a [u8], Broken> {
        self.peek(1);
        self.rewind(keep);
        let end = self.next.saturating_add(len);
        let bytes = self.src.get(self.next..end).ok_or("it ends inside of its data")?;
        self.next = end;
        Ok(bytes)
    }

    /// Drops the rest of the unit that is being read, or a whole one where none is.
    pub(super) fn align(&mut self) {
        self.peek(1);
        match self.count.checked_rem(16) {
            Some(rest @ 1..) => self.skip(rest),
            _ => self.skip(16),
        }
    }

    /// Fails where bits were taken that are not there.
    pub(super) fn check_end(&self) -> Result<(), Broken> {
        let ahead = usize::try_from(self.count.checked_div(8).unwrap_or(0)).unwrap_or(0);
        if self.next.saturating_sub(ahead) > self.src.len() {
            return Err("it ends inside of its data");
        }
        Ok(())
    }
}

/// Codes up to this many bits are found with one look.
const TABLE_BITS: u32 = 11;
/// Longest code.
const MAX_BITS: usize = 16;
/// Most symbols of a code.
const MAX_SYMBOLS: usize = 512;

/// A canonical Huffman code: codes ascend with their length, and within one length with their symbol.
pub(super) struct Huffman {
    /// By the next `TABLE_BITS` bits: symbol and length (low four bits), or 0 where the code is longer or there is none.
    table: [u16; 1 << TABLE_BITS],
    /// Symbols in the order of their codes.
    symbols: [u16; MAX_SYMBOLS],
    /// By length: the first code, how many there are, and where the first one's symbol is.
    lengths: [(u32, u32, u32); MAX_BITS + 1],
}

impl std::fmt::Debug for Huffman {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Huffman").field("lengths", &self.lengths).finish_non_exhaustive()
    }
}

impl Huffman {
    /// A code without symbols.
    pub(super) fn new() -> Self {
        Self { table: [0; 1 << TABLE_BITS], symbols: [0; MAX_SYMBOLS], lengths: [(0, 0, 0); MAX_BITS + 1] }
    }

    /// Sets the code of which symbol `n` has `lens[n]` bits, 0 to 16 of them, 0 for a symbol that does not occur. A code that leaves bit
    /// patterns unused is taken; meeting one of them is what fails.
    pub(super) fn set(&mut self, lens: &[u8]) -> Result<(), Broken> {
        self.table.fill(0);
        self.lengths.fill((0, 0, 0));
        for len in lens {
            let slot = self.lengths.get_mut(usize::from(*len)).ok_or("a Huffman code is too long")?;
            slot.1 = slot.1.saturating_add(1);
        }
        self.lengths[0] = (0, 0, 0);
        let mut code = 0_u32;
        let mut first = 0_u32;
        for (len, slot) in (0_u32..).zip(self.lengths.iter_mut()) {
            code <<= 1;
            *slot = (code, slot.1, first);
            code = code.saturating_add(slot.1);
            first = first.saturating_add(slot.1);
            if code > 1 << len {
                return Err("a Huffman code has more codes than there are");
            }
        }
        let mut next = self.lengths;
        for (symbol, len) in (0_u16..).zip(lens) {
            if *len == 0 {
                continue;
            }
            let (code, _, at) = &mut next[usize::from(*len)];
            if let Some(slot) = usize::try_from(*at).ok().and_then(|at| self.symbols.get_mut(at)) {
                *slot = symbol;
            }
            let len = u32::from(*len);
            if len <= TABLE_BITS {
                let free = TABLE_BITS.saturating_sub(len);
                let start = usize::try_from(*code << free).unwrap_or(usize::MAX);
                let entry = symbol << 4 | u16::try_from(len).expect("at most 11");
                let end = start.saturating_add(1 << free);
                self.table.get_mut(start..end).ok_or("a Huffman code has more codes than there are")?.fill(entry);
            }
            *code = code.saturating_add(1);
            *at = at.saturating_add(1);
        }
        Ok(())
    }

    /// Takes the next symbol.
    pub(super) fn take(&self, bits: &mut BitReader<'_>) -> Result<usize, Broken> {
        let ahead = bits.peek(16);
        let index = usize::try_from(ahead >> (16 - TABLE_BITS)).expect("eleven bits");
        let entry = self.table[index];
        if entry != 0 {
            bits.skip(u32::from(entry & 15));
            return Ok(usize::from(entry >> 4));
        }
        for (len, (code, count, first)) in (0_u32..).zip(self.lengths) {
            let within = (ahead >> 16_u32.saturating_sub(len)).checked_sub(code).filter(|within| *within < count);
            if let Some(within) = within {
                bits.skip(len);
                let at = usize::try_from(first.saturating_add(within)).unwrap_or(usize::MAX);
                return self.symbols.get(at).map(|symbol| usize::from(*symbol)).ok_or("a Huffman code has no symbol");
            }
        }
        Err("a Huffman code has no symbol")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_from_the_top_of_each_unit_and_bytes_from_behind_them() {
        let mut bits = BitReader::new(&[0x34, 0x12, 0xcd, 0xab, 0x11, 0x22, 0xff, 0x7f]);
        assert_eq!((bits.take(4), bits.take(8), bits.take(17)), (1, 0x23, 0x4abcd >> 3));
        let mut bits = BitReader::new(&[0x34, 0x12, 0xcd, 0xab, 0x11, 0x22, 0xff, 0x7f]);
        assert_eq!(bits.take(4), 1);
        // A reader that keeps 16 bits has both of the first units now.
        assert_eq!(bits.bytes(1, 16).unwrap(), [0x11]);
        assert_eq!((bits.take(12), bits.take(16)), (0x234, 0xabcd));
        assert_eq!(bits.take(16), 0xff22);
        assert!(bits.check_end().is_ok());
        assert_eq!(bits.take(17), 0);
        assert!(bits.check_end().is_err());
    }

    #[test]
    fn aligning_drops_a_rest_or_a_whole_unit() {
        let mut bits = BitReader::new(&[0, 0, 1, 2, 3, 4]);
        bits.take(3);
        bits.align();
        assert_eq!(bits.bytes(2, 0).unwrap(), [1, 2]);
        let mut bits = BitReader::new(&[0, 0, 1, 2, 3, 4]);
        bits.align();
        assert_eq!(bits.bytes(4, 0).unwrap(), [1, 2, 3, 4]);
        assert!(bits.bytes(1, 0).is_err());
    }

    #[test]
    fn codes_short_and_long() {
        // Symbols 0 to 14 have 1 to 15 bits, 15 and 16 have 16: all codes of ones and a zero, but the last.
        let mut lens: Vec<u8> = (1..=16).collect();
        lens.push(16);
        let mut huffman = Huffman::new();
        huffman.set(&lens).unwrap();
        // 0, 10, fifteen ones and a zero, sixteen ones.
        let stream: String = format!("010{}0{}", "1".repeat(15), "1".repeat(16));
        let padded = format!("{stream:0<48}");
        let bytes: Vec<u8> = (0..3)
            .flat_map(|unit| u16::from_str_radix(&padded[unit * 16..unit * 16 + 16], 2).unwrap().to_le_bytes())
            .collect();
        let mut bits = BitReader::new(&bytes);
        let symbols: Vec<_> = (0..4).map(|_| huffman.take(&mut bits).unwrap()).collect();
        assert_eq!(symbols, [0, 1, 15, 16]);
    }

    #[test]
    fn codes_that_cannot_be_are_refused() {
        let mut huffman = Huffman::new();
        assert!(huffman.set(&[1, 1, 1]).is_err());
        assert!(huffman.set(&[17]).is_err());
        huffman.set(&[0, 2, 0]).unwrap();
        assert_eq!(huffman.take(&mut BitReader::new(&[0, 0])).unwrap(), 1);
        assert!(huffman.take(&mut BitReader::new(&[0, 0x80])).is_err());
    }

    #[test]
    fn matches_repeat_and_stay_inside() {
        let mut buf = [0; 9];
        let mut out = Output::new(&mut buf);
        out.bytes(b"ab").unwrap();
        out.copy(2, 5).unwrap();
        assert!(out.copy(8, 1).is_err() && out.copy(0, 1).is_err() && out.copy(1, 3).is_err());
        out.copy(1, 2).unwrap();
        assert!(out.is_full() && out.literal(0).is_err());
        assert_eq!(&buf, b"abababaaa");
    }
}
