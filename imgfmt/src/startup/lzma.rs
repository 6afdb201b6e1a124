//! LZMA without a header, as it lies in GRUB's core image: lc 3, lp 0, pb 2, no end mark.
//!
//! Source: LZMA specification (Igor Pavlov, 2015), whose names are kept.

use crate::error::{Error, Result};

const LC: u32 = 3;
const PB_MASK: usize = 3;
/// Where every probability begins: half of 2^11.
const HALF: u16 = 1024;
const TOP: u32 = 1 << 24;
const STATES: usize = 12;
const LEN_TO_POS_STATES: usize = 4;
const MATCH_MIN_LEN: usize = 2;

fn corrupt(at: usize, reason: &'static str) -> Error {
    Error::corrupt("LZMA stream", u64::try_from(at).unwrap_or(u64::MAX), reason)
}

/// The range decoder.
struct Coder<'a> {
    input: &'a [u8],
    at: usize,
    range: u32,
    code: u32,
}

impl<'a> Coder<'a> {
    fn new(input: &'a [u8]) -> Result<Self> {
        let head: [u8; 5] =
            input.get(..5).and_then(|head| head.try_into().ok()).ok_or_else(|| corrupt(0, "it is cut short"))?;
        if head[0] != 0 {
            return Err(corrupt(0, "it does not start with zero"));
        }
        let code = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        Ok(Self { input, at: 5, range: u32::MAX, code })
    }

    fn normalize(&mut self) -> Result<()> {
        if self.range < TOP {
            let byte = self.input.get(self.at).ok_or_else(|| corrupt(self.at, "it is cut short"))?;
            self.at = self.at.saturating_add(1);
            self.range <<= 8;
            self.code = (self.code << 8) | u32::from(*byte);
        }
        Ok(())
    }

    fn bit(&mut self, probability: &mut u16) -> Result<bool> {
        self.normalize()?;
        let bound = (self.range >> 11).wrapping_mul(u32::from(*probability));
        if self.code < bound {
            self.range = bound;
            *probability = probability.saturating_add((2048_u16.saturating_sub(*probability)) >> 5);
            Ok(false)
        } else {
            self.range = self.range.wrapping_sub(bound);
            self.code = self.code.wrapping_sub(bound);
            *probability = probability.saturating_sub(*probability >> 5);
            Ok(true)
        }
    }

    fn direct(&mut self, bits: u32) -> Result<u32> {
        let mut result = 0_u32;
        for _ in 0..bits {
            self.normalize()?;
            self.range >>= 1;
            let one = self.code >= self.range;
            if one {
                self.code = self.code.wrapping_sub(self.range);
            }
            result = (result << 1) | u32::from(one);
        }
        Ok(result)
    }

    /// A tree of `bits` bits, the highest first.
    fn tree(&mut self, probabilities: &mut [u16], bits: u32) -> Result<usize> {
        let mut node = 1_usize;
        for _ in 0..bits {
            let probability = probabilities.get_mut(node).ok_or_else(|| corrupt(self.at, "a tree is too deep"))?;
            node = (node << 1) | usize::from(self.bit(probability)?);
        }
        Ok(node.wrapping_sub(1 << bits))
    }

    /// The same, the lowest bit first. Probabilities are counted from `base`.
    fn reverse_tree(&mut self, probabilities: &mut [u16], base: usize, bits: u32) -> Result<usize> {
        let (mut node, mut result) = (1_usize, 0_usize);
        for bit in 0..bits {
            let at = base.saturating_add(node);
            let probability = probabilities.get_mut(at).ok_or_else(|| corrupt(self.at, "a tree is too deep"))?;
            let one = usize::from(self.bit(probability)?);
            node = (node << 1) | one;
            result |= one << bit;
        }
        Ok(result)
    }
}

/// Lengths of matches.
struct Lengths {
    choice: [u16; 2],
    low: [[u16; 8]; 4],
    mid: [[u16; 8]; 4],
    high: [u16; 256],
}

impl Lengths {
    fn new() -> Self {
        Self { choice: [HALF; 2], low: [[HALF; 8]; 4], mid: [[HALF; 8]; 4], high: [HALF; 256] }
    }

    fn decode(&mut self, coder: &mut Coder<'_>, pos_state: usize) -> Result<usize> {
        let [first, second] = &mut self.choice;
        if !coder.bit(first)? {
            return coder.tree(self.low.get_mut(pos_state & PB_MASK).expect("four of them"), 3);
        }
        if !coder.bit(second)? {
            let length = coder.tree(self.mid.get_mut(pos_state & PB_MASK).expect("four of them"), 3)?;
            return Ok(length.saturating_add(8));
        }
        Ok(coder.tree(&mut self.high, 8)?.saturating_add(16))
    }
}

/// Unpacks `len` bytes. `len` is bounded by the caller.
pub fn unpack(input: &[u8], len: usize) -> Result<Vec<u8>> {
    let mut coder = Coder::new(input)?;
    let mut out: Vec<u8> = Vec::new();
    let mut literals = vec![[HALF; 0x300]; 1 << LC];
    let mut is_match = [[HALF; 4]; STATES];
    let mut is_rep = [HALF; STATES];
    let mut is_rep_g0 = [HALF; STATES];
    let mut is_rep_g1 = [HALF; STATES];
    let mut is_rep_g2 = [HALF; STATES];
    let mut is_rep0_long = [[HALF; 4]; STATES];
    let mut pos_slots = [[HALF; 64]; LEN_TO_POS_STATES];
    let mut specials = [HALF; 128];
    let mut align = [HALF; 16];
    let (mut match_lens, mut rep_lens) = (Lengths::new(), Lengths::new());
    let mut reps = [0_usize; 4];
    let mut state = 0_usize;
    while out.len() < len {
        let pos_state = out.len() & PB_MASK;
        if !coder.bit(&mut is_match[state][pos_state])? {
            let before = out.last().copied().unwrap_or(0);
            let table = literals.get_mut(usize::from(before >> (8 - LC))).expect("three bits");
            let byte = literal(&mut coder, table, state, &out, reps[0])?;
            out.push(byte);
            state = match state {
                0..=3 => 0,
                4..=9 => state.wrapping_sub(3),
                _ => state.wrapping_sub(6),
            };
            continue;
        }
        let mut length;
        if coder.bit(&mut is_rep[state])? {
            if out.is_empty() {
                return Err(corrupt(coder.at, "a match comes before all data"));
            }
            if !coder.bit(&mut is_rep_g0[state])? {
                if !coder.bit(&mut is_rep0_long[state][pos_state])? {
                    state = if state < 7 { 9 } else { 11 };
                    repeat(&mut out, reps[0], 1, len)?;
                    continue;
                }
            } else {
                let distance;
                if !coder.bit(&mut is_rep_g1[state])? {
                    distance = reps[1];
                } else {
                    if !coder.bit(&mut is_rep_g2[state])? {
                        distance = reps[2];
                    } else {
                        distance = reps[3];
                        reps[3] = reps[2];
                    }
                    reps[2] = reps[1];
                }
                reps[1] = reps[0];
                reps[0] = distance;
            }
            length = rep_lens.decode(&mut coder, pos_state)?;
            state = if state < 7 { 8 } else { 11 };
        } else {
            reps = [0, reps[0], reps[1], reps[2]];
            length = match_lens.decode(&mut coder, pos_state)?;
            state = if state < 7 { 7 } else { 10 };
            let slots = pos_slots.get_mut(length.min(3)).expect("four of them");
            reps[0] = distance(&mut coder, slots, &mut specials, &mut align)?;
        }
        length = length.saturating_add(MATCH_MIN_LEN);
        repeat(&mut out, reps[0], length, len)?;
    }
    Ok(out)
}

fn literal(coder: &mut Coder<'_>, table: &mut [u16; 0x300], state: usize, out: &[u8], rep0: usize) -> Result<u8> {
    let mut symbol = 1_usize;
    if state >= 7 {
        let at = out.len().checked_sub(rep0.saturating_add(1));
        let mut byte =
            at.and_then(|at| out.get(at)).copied().ok_or_else(|| corrupt(coder.at, "a distance is too great"))?;
        while symbol < 0x100 {
            let match_bit = usize::from(byte >> 7);
            byte <<= 1;
            let probability = table.get_mut(((1 + match_bit) << 8) | symbol).expect("below 0x300");
            let bit = usize::from(coder.bit(probability)?);
            symbol = (symbol << 1) | bit;
            if match_bit != bit {
                break;
            }
        }
    }
    while symbol < 0x100 {
        let probability = table.get_mut(symbol).expect("below 0x100");
        symbol = (symbol << 1) | usize::from(coder.bit(probability)?);
    }
    Ok(u8::try_from(symbol & 0xff).expect("one byte"))
}

fn distance(coder: &mut Coder<'_>, slots: &mut [u16; 64], specials: &mut [u16], align: &mut [u16]) -> Result<usize> {
    let slot = coder.tree(slots, 6)?;
    if slot < 4 {
        return Ok(slot);
    }
    let bits = u32::try_from((slot >> 1).saturating_sub(1)).unwrap_or(0);
    let base = (2 | (slot & 1)) << bits;
    if slot < 14 {
        let place = base.saturating_sub(slot);
        return Ok(base.saturating_add(coder.reverse_tree(specials, place, bits)?));
    }
    let high = usize::try_from(coder.direct(bits.saturating_sub(4))?).unwrap_or(0) << 4;
    Ok(base.saturating_add(high).saturating_add(coder.reverse_tree(align, 0, 4)?))
}

/// Copies `length` bytes from `distance + 1` bytes before the end, up to `len` in all.
fn repeat(out: &mut Vec<u8>, distance: usize, length: usize, len: usize) -> Result<()> {
    let start = out.len().checked_sub(distance.saturating_add(1));
    let mut at = start.ok_or_else(|| corrupt(out.len(), "a distance is too great"))?;
    for _ in 0..length.min(len.saturating_sub(out.len())) {
        let byte = out.get(at).copied().unwrap_or(0);
        out.push(byte);
        at = at.saturating_add(1);
    }
    Ok(())
}

// They need xz, which Windows lacks.
#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xz_packed_comes_back() {
        // `xz --format=lzma --lzma1=lc=3,lp=0,pb=2`, without its header of 13 bytes.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let mut text = Vec::new();
        for n in 0_u32..20_000 {
            text.extend_from_slice(format!("{} ", n.wrapping_mul(2_654_435_761) >> (n % 20)).as_bytes());
            if n % 7 == 0 {
                text.extend_from_slice(b"the same words over and over, the same words");
            }
        }
        std::fs::write(&path, &text).unwrap();
        let xz = std::process::Command::new("xz")
            .args(["--format=lzma", "--lzma1=preset=6,lc=3,lp=0,pb=2", "-c"])
            .arg(&path)
            .output()
            .expect("xz is needed by this test");
        assert!(xz.status.success());
        assert!(unpack(&xz.stdout[13..], text.len()).unwrap() == text);
        assert!(unpack(&xz.stdout[13..100], text.len()).is_err());
        assert!(unpack(&[1; 100], 100).is_err());
    }
}
