//! Compression of frame payloads. A thread keeps one [`Compressor`] and one [`Decompressor`], whose contexts are reused.

use std::fmt;
use std::str::FromStr;

use zstd_safe::{CCtx, CParameter, DCtx};

use crate::error::{Error, Result};
use crate::image::layout::Codec;

/// How new chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// LZ4 blocks.
    Lz4,
    /// Zstandard at this level, 1 to 19.
    Zstd(i32),
}

impl Default for Compression {
    /// zstd at level 1: at 64 KiB a higher level costs a third more time for one or two per cent.
    fn default() -> Self {
        Self::Zstd(1)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("none", "") => Ok(Self::None),
            ("lz4", "") => Ok(Self::Lz4),
            ("zstd", "") => Ok(Self::default()),
            ("zstd", level) => match level.parse() {
                Ok(level @ 1..=19) => Ok(Self::Zstd(level)),
                _ => Err(format!("{level:?} is no level of zstd: 1 to 19 are")),
            },
            _ => Err(format!("{text:?} is no compression: none, lz4, zstd or zstd:LEVEL are")),
        }
    }
}

/// A payload is kept compressed only where that saves at least this part of it (1/16).
const MIN_GAIN_SHIFT: u32 = 4;

/// Compresses payloads; one per thread.
pub struct Compressor {
    zstd: CCtx<'static>,
    compression: Compression,
    out: Vec<u8>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Compressor {
    /// Makes the contexts.
    pub fn new(compression: Compression) -> Self {
        let mut zstd = CCtx::create();
        if let Compression::Zstd(level) = compression {
            // The level was checked by `Compression::from_str`; zstd clamps what it does not know.
            let _ = zstd.set_parameter(CParameter::CompressionLevel(level));
        }
        Self { zstd, compression, out: Vec::new() }
    }

    /// Compresses `bytes`. Returns how, and the payload: `bytes` itself where it does not shrink enough.
    pub fn compress<'a>(&'a mut self, bytes: &'a [u8]) -> (Codec, &'a [u8]) {
        let enough = bytes.len().saturating_sub(bytes.len() >> MIN_GAIN_SHIFT);
        let (codec, len) = match self.compression {
            Compression::None => return (Codec::Stored, bytes),
            Compression::Lz4 => {
                self.out.resize(lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
                (Codec::Lz4, lz4_flex::block::compress_into(bytes, &mut self.out).ok())
            }
            Compression::Zstd(_) => {
                self.out.resize(zstd_safe::compress_bound(bytes.len()), 0);
                (Codec::Zstd, self.zstd.compress2(self.out.as_mut_slice(), bytes).ok())
            }
        };
        match len.and_then(|len| self.out.get(..len)) {
            Some(out) if out.len() < enough => (codec, out),
            _ => (Codec::Stored, bytes),
        }
    }

    /// Compresses `bytes` as a difference to `base` into `out`. Returns its length, or `None` where it does not shrink.
    ///
    /// The level is fixed: matches in the base do nearly all of the work.
    pub fn compress_difference(&mut self, bytes: &[u8], base: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        out.resize(zstd_safe::compress_bound(bytes.len()), 0);
        let out = out.as_mut_slice();
        let len = if base.len() > LARGE_BASE || is_taken_for_dictionary(base) {
            let mut zstd = CCtx::create();
            zstd.set_parameter(CParameter::CompressionLevel(DIFFERENCE_LEVEL)).ok()?;
            if base.len() > LARGE_BASE {
                // The window holds base and chunk, the table every other position of the base: with those of the level most of the base
                // is forgotten before it is needed.
                let log2 = base.len().next_power_of_two().ilog2();
                zstd.set_parameter(CParameter::WindowLog(log2.saturating_add(1))).ok()?;
                zstd.set_parameter(CParameter::HashLog(log2.saturating_sub(1))).ok()?;
                zstd.set_parameter(CParameter::MinMatch(6)).ok()?;
            }
            zstd.ref_prefix(base).ok()?;
            zstd.compress2(out, bytes)
        } else {
            self.zstd.compress_using_dict(out, bytes, base, DIFFERENCE_LEVEL)
        };
        len.ok().filter(|len| *len < bytes.len())
    }
}

/// Says whether zstd would take these bytes for a dictionary in its own format, not for what they are, where it is not told.
///
/// Telling it needs a context that borrows the base, and making one for each chunk costs a tenth of a capture of small changes.
/// Source: RFC 8878 section 5, `Magic_Number`.
fn is_taken_for_dictionary(base: &[u8]) -> bool {
    base.starts_with(&0xEC30_A437_u32.to_le_bytes())
}

/// Longest base, in bytes, for which zstd's own parameters of the level do.
const LARGE_BASE: usize = 128 << 10;

/// zstd level of difference chunks.
const DIFFERENCE_LEVEL: i32 = 1;

/// Decompresses payloads; one per thread.
pub struct Decompressor {
    zstd: DCtx<'static>,
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self { zstd: DCtx::create() }
    }
}

/// What a payload that does not decode is called in messages.
fn undecodable(reason: &'static str) -> Error {
    Error::corrupt("frame payload", 0, reason)
}

impl Decompressor {
    /// Decodes a payload of any codec but [`Codec::ZstdWithBase`] into `out`, whose length is the logical length.
    /// Fails where it does not decode to exactly that many bytes; `out` then holds anything.
    pub fn decode(&mut self, codec: Codec, payload: &[u8], out: &mut [u8]) -> Result<()> {
        let want = out.len();
        let len = match codec {
            Codec::Stored => {
                if payload.len() != want {
                    return Err(undecodable("stored bytes are not as long as the frame says"));
                }
                out.copy_from_slice(payload);
                want
            }
            Codec::Zstd => self.zstd.decompress(out, payload).map_err(|_| undecodable("zstd data do not decode"))?,
            Codec::Lz4 => {
                lz4_flex::block::decompress_into(payload, out).map_err(|_| undecodable("LZ4 data do not decode"))?
            }
            Codec::ZstdWithBase => return Err(undecodable("a difference was met where only whole objects may be")),
        };
        if len == want { Ok(()) } else { Err(undecodable("fewer bytes were stored than the frame says")) }
    }

    /// Decodes a difference to `base` into `out`, whose length is the logical length.
    pub fn decode_difference(&mut self, payload: &[u8], base: &[u8], out: &mut [u8]) -> Result<()> {
        let want = out.len();
        let len = if is_taken_for_dictionary(base) {
            let mut zstd = DCtx::create();
            zstd.ref_prefix(base).map_err(|_| undecodable("the base cannot be used"))?;
            zstd.decompress(out, payload)
        } else {
            self.zstd.decompress_using_dict(out, payload, base)
        };
        match len {
            Ok(len) if len == want => Ok(()),
            Ok(_) => Err(undecodable("fewer bytes were stored than the frame says")),
            Err(_) => Err(undecodable("zstd data do not decode with their base")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_back_what_it_took() {
        let text = b"the copy kept in reserve, ".repeat(2000);
        for compression in [Compression::Lz4, Compression::Zstd(1), Compression::Zstd(19)] {
            let mut compressor = Compressor::new(compression);
            let (codec, payload) = compressor.compress(&text);
            assert!(payload.len() < text.len() / 4, "{compression}");
            let mut out = vec![0; text.len()];
            Decompressor::default().decode(codec, payload, &mut out).unwrap();
            assert_eq!(out, text);
            let mut longer = vec![0; text.len() + 1];
            assert!(Decompressor::default().decode(codec, payload, &mut longer).is_err());
            let mut shorter = vec![0; text.len() - 1];
            assert!(Decompressor::default().decode(codec, payload, &mut shorter).is_err());
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored() {
        let mut noise = vec![0; 65536];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let mut compressor = Compressor::new(Compression::Zstd(3));
        assert_eq!(compressor.compress(&noise).0, Codec::Stored);
    }

    /// A base without a pattern, and the same with one page changed.
    fn base_and_new() -> (Vec<u8>, Vec<u8>) {
        base_and_new_of(65536)
    }

    /// The same in another length, in bytes.
    fn base_and_new_of(len: usize) -> (Vec<u8>, Vec<u8>) {
        let mut base = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut base);
        let mut new = base.clone();
        blake3::Hasher::new().update(b"x").finalize_xof().fill(&mut new[8192..12288]);
        (base, new)
    }

    #[test]
    fn a_small_change_of_incompressible_bytes_costs_little() {
        let (base, new) = base_and_new();
        let (mut compressor, mut decompressor) = (Compressor::new(Compression::default()), Decompressor::default());
        let (mut out, mut back) = (Vec::new(), vec![0; new.len()]);
        // Whole chunks between differences: neither leaves anything behind in the context that they share.
        for _ in 0..3 {
            let len = compressor.compress_difference(&new, &base, &mut out).unwrap();
            assert!(len < 4096 + 128, "{len}");
            decompressor.decode_difference(&out[..len], &base, &mut back).unwrap();
            assert_eq!(back, new);
            let text = b"the copy kept in reserve, ".repeat(2000);
            let (codec, payload) = compressor.compress(&text);
            let mut whole = vec![0; text.len()];
            decompressor.decode(codec, payload, &mut whole).unwrap();
            assert_eq!(whole, text);
        }
    }

    #[test]
    fn a_small_change_costs_little_in_chunks_of_every_length() {
        let (mut compressor, mut decompressor) = (Compressor::new(Compression::default()), Decompressor::default());
        for log2 in 14..=22 {
            let (base, new) = base_and_new_of(1 << log2);
            let (mut out, mut back) = (Vec::new(), vec![0; new.len()]);
            let len = compressor.compress_difference(&new, &base, &mut out).unwrap();
            assert!(len < 4096 + 1024, "{len} bytes in a chunk of 2^{log2}");
            decompressor.decode_difference(&out[..len], &base, &mut back).unwrap();
            assert!(back == new, "2^{log2}");
        }
    }

    #[test]
    fn a_base_that_looks_like_a_dictionary_of_zstd_is_taken_as_it_is() {
        let (mut base, new) = base_and_new();
        base[..4].copy_from_slice(&[0x37, 0xa4, 0x30, 0xec]);
        let (mut out, mut back) = (Vec::new(), vec![0; new.len()]);
        let len = Compressor::new(Compression::default()).compress_difference(&new, &base, &mut out).unwrap();
        assert!(len < 4096 + 128, "{len}");
        Decompressor::default().decode_difference(&out[..len], &base, &mut back).unwrap();
        assert_eq!(back, new);
    }

    #[test]
    fn either_way_of_naming_the_base_decodes_what_the_other_made() {
        let (base, new) = base_and_new();
        let (mut out, mut back) = (vec![0; zstd_safe::compress_bound(new.len())], vec![0; new.len()]);
        let mut prefix = CCtx::create();
        prefix.ref_prefix(&base).unwrap();
        let len = prefix.compress2(out.as_mut_slice(), &new).unwrap();
        Decompressor::default().decode_difference(&out[..len], &base, &mut back).unwrap();
        assert_eq!(back, new);
        let len = Compressor::new(Compression::default()).compress_difference(&new, &base, &mut out).unwrap();
        back.fill(0);
        let mut prefix = DCtx::create();
        prefix.ref_prefix(&base).unwrap();
        assert_eq!(prefix.decompress(back.as_mut_slice(), &out[..len]), Ok(new.len()));
        assert_eq!(back, new);
    }
}
