//! Deterministic mutations of a seed, for the runs without a fuzzer.

/// A small generator of pseudo-random numbers (xorshift64*): the same seed gives the same run everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts a sequence; any seed will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("usize is at most 64 bits");
        usize::try_from(self.next_u64().checked_rem(bound).expect("a bound is not 0")).expect("below a usize")
    }
}

/// Values that break parsers more often than others do.
const EDGES: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0xff, 0xfe, 0x20, 0x40];

/// Changes one to four bytes of `bytes`, at places below `limit` (the part that holds metadata).
pub fn mutate(bytes: &mut [u8], limit: usize, random: &mut Random) {
    let limit = limit.min(bytes.len());
    if limit == 0 {
        return;
    }
    for _ in 0..=random.below(4) {
        let at = random.below(limit);
        let edge = EDGES[random.below(EDGES.len())];
        let flip = 1_u8 << random.below(8);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = if random.below(2) == 0 { edge } else { *byte ^ flip };
        }
    }
}
