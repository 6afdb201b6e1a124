//! Frames: how a stored object is written into a pack and checked when it comes back.
//!
//! Source: docs/format.md section 3.2.

use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, Result};
use crate::image::id::{Id, Place};
use crate::image::layout::{Codec, FRAME_HEADER_LEN, FRAME_MAGIC, FrameRaw, FrameType};

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it holds.
    pub frame_type: FrameType,
    /// How it is stored.
    pub codec: Codec,
    /// Bytes of payload.
    pub payload_len: u32,
    /// Bytes after decoding.
    pub logical_len: u32,
    /// Where the base of a difference lies.
    pub base: Option<Place>,
    /// Proves the decoded payload.
    pub id: Id,
}

/// Appends a whole frame (header and payload) to `out`. Returns its length.
///
/// `payload` must not be longer than `u32::MAX` minus a header: callers hold it to the limits of the frame's type.
pub fn append(
    out: &mut Vec<u8>,
    frame_type: FrameType,
    codec: Codec,
    base: Option<Place>,
    id: Id,
    logical_len: usize,
    payload: &[u8],
) -> u32 {
    let len = |len: usize| u32::try_from(len).expect("payloads are far below 4 GiB");
    let base_raw = base.unwrap_or(Place { pack: 0, offset: 0, len: 0 });
    let mut header = FrameRaw {
        magic: FRAME_MAGIC,
        checksum: 0.into(),
        frame_type: frame_type.number(),
        codec: codec.number(),
        flags: 0.into(),
        payload_len: len(payload.len()).into(),
        logical_len: len(logical_len).into(),
        base_pack: base_raw.pack.into(),
        base_len: base_raw.len.into(),
        reserved: 0.into(),
        base_offset: base_raw.offset.into(),
        id: id.0,
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.as_bytes().get(8..).expect("a header is longer than 8 bytes"));
    hasher.update(payload);
    header.checksum = hasher.finalize().into();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(payload);
    len(FRAME_HEADER_LEN.saturating_add(payload.len()))
}

/// Parses a frame header and checks it against the limits of its type; the checksum is for [`split`].
///
/// `place` is for messages only.
pub fn parse_header(bytes: &[u8], chunk_size: u32, place: Place) -> Result<Frame> {
    let corrupt = |reason| Error::corrupt(format_args!("frame in pack {}", place.pack), place.offset, reason);
    let (raw, _) = FrameRaw::read_from_prefix(bytes).map_err(|_| corrupt("it is cut short"))?;
    if raw.magic != FRAME_MAGIC {
        return Err(corrupt("no frame starts here"));
    }
    let frame_type = FrameType::from_number(raw.frame_type).ok_or_else(|| corrupt("its type is unknown"))?;
    let codec = Codec::from_number(raw.codec).ok_or_else(|| corrupt("its codec is unknown"))?;
    if raw.flags.get() != 0 || raw.reserved.get() != 0 {
        return Err(corrupt("a reserved field is not 0"));
    }
    let (payload_len, logical_len) = (raw.payload_len.get(), raw.logical_len.get());
    if logical_len > frame_type.max_logical_len(chunk_size) {
        return Err(corrupt("its decoded length is past the limit of its type"));
    }
    if payload_len > logical_len {
        return Err(corrupt("its payload is longer than what it decodes to"));
    }
    let base = Place { pack: raw.base_pack.get(), offset: raw.base_offset.get(), len: raw.base_len.get() };
    let base = match (codec, base) {
        (Codec::ZstdWithBase, _) if frame_type != FrameType::Chunk => {
            return Err(corrupt("only a chunk can be a difference"));
        }
        (Codec::ZstdWithBase, base) => Some(base),
        (_, Place { pack: 0, offset: 0, len: 0 }) => None,
        _ => return Err(corrupt("it names a base but is no difference")),
    };
    Ok(Frame { frame_type, codec, payload_len, logical_len, base, id: Id(raw.id) })
}

/// Splits a whole frame into header and payload, after checking header, length and checksum.
pub fn split(bytes: &[u8], chunk_size: u32, place: Place) -> Result<(Frame, &[u8])> {
    let corrupt = |reason| Error::corrupt(format_args!("frame in pack {}", place.pack), place.offset, reason);
    let frame = parse_header(bytes, chunk_size, place)?;
    let payload = bytes.get(FRAME_HEADER_LEN..).ok_or_else(|| corrupt("it is cut short"))?;
    if u32::try_from(payload.len()).ok() != Some(frame.payload_len) {
        return Err(corrupt("its length differs from the one in its pointer"));
    }
    let stored = crate::bytes::le32(bytes, 4);
    if stored != Some(crc32fast::hash(bytes.get(8..).unwrap_or_default())) {
        return Err(corrupt("its checksum does not match"));
    }
    Ok((frame, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { pack: 3, offset: 0x1000, len: 0 };

    #[test]
    fn every_flipped_byte_of_a_frame_is_noticed() {
        let payload = b"hello, reserve";
        let mut bytes = Vec::new();
        append(&mut bytes, FrameType::Chunk, Codec::Stored, None, Id::of_chunk(payload), payload.len(), payload);
        assert_eq!(split(&bytes, 4096, PLACE).unwrap().1, payload);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(split(&damaged, 4096, PLACE).is_err(), "byte {at} bit {bit}");
            }
        }
        for len in 0..bytes.len() {
            assert!(split(&bytes[..len], 4096, PLACE).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_length_past_the_limit_is_refused_by_the_header_alone() {
        let mut bytes = Vec::new();
        append(&mut bytes, FrameType::Chunk, Codec::Zstd, None, Id::NONE, 4097, b"x");
        assert!(parse_header(&bytes, 4096, PLACE).is_err());
        assert!(parse_header(&bytes, 8192, PLACE).is_ok());
    }
}
