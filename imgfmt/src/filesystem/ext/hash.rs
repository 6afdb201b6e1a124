//! Hashes of names, by which large directories are ordered.

use crate::filesystem::ext::superblock::Superblock;

/// Superblock flag: bytes of names count as unsigned.
const UNSIGNED_HASH: u32 = 0x2;
/// The hash behind every other.
const END: u32 = 0xffff_fffe;
/// Where the state starts when the superblock has no seed.
const NO_SEED: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// How names are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The first one.
    Legacy,
    /// Half of MD4.
    HalfMd4,
    /// The Tiny Encryption Algorithm.
    Tea,
}

/// An algorithm, and how it takes bytes from 0x80 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Whether bytes count as signed, as the machine had it on which the filesystem was made.
    pub signed: bool,
}

impl Hash {
    /// The hash that the root of a hash tree names by number; `None` for one that is not known.
    pub fn from_version(version: u8, superblock: &Superblock) -> Option<Self> {
        let algorithm = match version {
            0 => Algorithm::Legacy,
            1 => Algorithm::HalfMd4,
            2 => Algorithm::Tea,
            _ => return None,
        };
        Some(Self { algorithm, signed: superblock.flags & UNSIGNED_HASH == 0 })
    }

    fn extend(self, byte: u8) -> u32 {
        if self.signed { i32::from(byte.cast_signed()).cast_unsigned() } else { u32::from(byte) }
    }
}

/// The hash of a name. Its lowest bit is 0.
///
/// Source: `fs/ext4/hash.c` of Linux.
pub fn hash(kind: Hash, name: &[u8], seed: [u32; 4]) -> u32 {
    let mut state = if seed == [0; 4] { NO_SEED } else { seed };
    let value = match kind.algorithm {
        Algorithm::Legacy => legacy(kind, name),
        Algorithm::HalfMd4 => {
            let mut rest = name;
            while !rest.is_empty() {
                half_md4(&mut state, &words::<8>(kind, rest));
                rest = rest.get(32..).unwrap_or_default();
            }
            state[1]
        }
        Algorithm::Tea => {
            let mut rest = name;
            while !rest.is_empty() {
                tea(&mut state, &words::<4>(kind, rest));
                rest = rest.get(16..).unwrap_or_default();
            }
            state[0]
        }
    } & !1;
    // The last value means the end of a directory to readers of it.
    if value == END { END.wrapping_sub(2) } else { value }
}

fn legacy(kind: Hash, name: &[u8]) -> u32 {
    let (mut hash0, mut hash1) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
    for byte in name {
        let mixed = hash0 ^ kind.extend(*byte).wrapping_mul(7_152_373);
        let mut hash = hash1.wrapping_add(mixed);
        if hash & 0x8000_0000 != 0 {
            hash = hash.wrapping_sub(0x7fff_ffff);
        }
        hash1 = hash0;
        hash0 = hash;
    }
    hash0 << 1
}

/// The start of `bytes` as words, filled up with their length.
fn words<const N: usize>(kind: Hash, bytes: &[u8]) -> [u32; N] {
    let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    let fill = u32::from_le_bytes([len; 4]);
    let mut words = [fill; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(4)) {
        for byte in chunk {
            *word = kind.extend(*byte).wrapping_add(*word << 8);
        }
    }
    words
}

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    const CHOOSE: Mix = |x, y, z| z ^ (x & (y ^ z));
    const MAJORITY: Mix = |x, y, z| (x & y).wrapping_add((x ^ y) & z);
    const PARITY: Mix = |x, y, z| x ^ y ^ z;
    const ROUNDS: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (CHOOSE, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (MAJORITY, 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (PARITY, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, add, order, turns) in ROUNDS {
        for (index, turn) in order.into_iter().zip(turns.into_iter().cycle()) {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(input[index]).wrapping_add(add);
            (a, b, c, d) = (d, sum.rotate_left(turn), b, c);
        }
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

fn tea(state: &mut [u32; 4], input: &[u32; 4]) {
    let [a, b, c, d] = *input;
    let (mut low, mut high, mut sum) = (state[0], state[1], 0_u32);
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        let mix = |value: u32, left: u32, right: u32| {
            (value << 4).wrapping_add(left) ^ value.wrapping_add(sum) ^ (value >> 5).wrapping_add(right)
        };
        low = low.wrapping_add(mix(high, a, b));
        high = high.wrapping_add(mix(low, c, d));
    }
    state[0] = state[0].wrapping_add(low);
    state[1] = state[1].wrapping_add(high);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_debugfs() {
        // debugfs dx_hash of e2fsprogs 1.47.0.
        let long = b"a-name-longer-than-thirty-two-bytes-of-text";
        for (algorithm, expected) in [
            (Algorithm::Legacy, [0xe74b_53e2, 0xe99f_45be, 0x7a1c_0186, 0x3ce3_9f90]),
            (Algorithm::HalfMd4, [0xd5fa_7d7a, 0x28a0_0d14, 0x9b00_ae4c, 0xaaca_20ac]),
            (Algorithm::Tea, [0x6d0e_a4c0, 0xb1f6_b710, 0x7dab_09ca, 0x7851_c1cc]),
        ] {
            let names: [&[u8]; 4] = [b"a", b"some name", long, b"n\xc3\xa4me-\xff"];
            for (name, expected) in names.into_iter().zip(expected) {
                assert_eq!(hash(Hash { algorithm, signed: true }, name, [0; 4]), expected, "{algorithm:?} {name:?}");
            }
        }
        // With the seed 0a1b2c3d-0000-4444-8888-123456789abc.
        let seed = [0x3d2c_1b0a, 0x4444_0000, 0x3412_8888, 0xbc9a_7856];
        let kind = Hash { algorithm: Algorithm::HalfMd4, signed: true };
        assert_eq!(hash(kind, b"seeded", seed), 0x6402_973e);
    }

    #[test]
    fn signed_bytes_differ_from_unsigned_ones_above_0x7f_only() {
        for algorithm in [Algorithm::Legacy, Algorithm::HalfMd4, Algorithm::Tea] {
            let both = |name: &[u8]| [true, false].map(|signed| hash(Hash { algorithm, signed }, name, [0; 4]));
            let [signed, unsigned] = both(b"plain");
            assert_eq!(signed, unsigned);
            let [signed, unsigned] = both(b"pl\xe4in");
            assert_ne!(signed, unsigned);
        }
    }
}
