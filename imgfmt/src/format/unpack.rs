//! Decoding of compressed clusters: deflate with and without its zlib frame, and zstd.

use std::fmt;
use std::sync::Mutex;

use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::DCtx;

use crate::error::Result;

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Deflate without a frame (RFC 1951).
    Deflate,
    /// Deflate in a zlib frame (RFC 1950).
    Zlib,
    /// Zstandard frames (RFC 8878).
    Zstd,
}

/// The state of one decoder, and a buffer for encoded bytes.
#[derive(Default)]
struct Tool {
    deflate: Option<Decompress>,
    zstd: Option<DCtx<'static>>,
    encoded: Vec<u8>,
}

/// Decoders that threads borrow for the length of a cluster.
#[derive(Default)]
pub(crate) struct Unpacker(Mutex<Vec<Tool>>);

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Unpacker {
    /// Calls `read` for the encoded bytes (it resizes and fills the buffer) and decodes them into `out`, which only a framed deflate stream may leave unfilled.
    /// What lies behind the encoded data is ignored. The inner result is how many bytes were decoded, or the reason why they do not decode.
    pub(crate) fn decode(
        &self,
        codec: Codec,
        out: &mut [u8],
        read: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<Result<usize, &'static str>> {
        let mut tool = self.0.lock().expect("no holder of the lock panics").pop().unwrap_or_default();
        let mut encoded = std::mem::take(&mut tool.encoded);
        let result = read(&mut encoded).map(|()| match codec {
            Codec::Deflate => tool.inflate(&encoded, out, false),
            Codec::Zlib => tool.inflate(&encoded, out, true),
            Codec::Zstd => tool.unzstd(&encoded, out),
        });
        tool.encoded = encoded;
        self.0.lock().expect("no holder of the lock panics").push(tool);
        result
    }
}

impl Tool {
    fn inflate(&mut self, encoded: &[u8], out: &mut [u8], framed: bool) -> Result<usize, &'static str> {
        let deflate = self.deflate.get_or_insert_with(|| Decompress::new(framed));
        deflate.reset(framed);
        let full = out.len();
        // One call suffices, since the output cannot grow. Without a frame nothing says where the data end but the full output.
        let status = deflate.decompress(encoded, out, FlushDecompress::Finish);
        let done = usize::try_from(deflate.total_out()).unwrap_or(usize::MAX);
        match status {
            Ok(Status::StreamEnd) if framed && done <= full => Ok(done),
            Ok(_) if !framed && done == full => Ok(done),
            Ok(_) => Err("compressed data end too soon"),
            Err(_) => Err("compressed data do not decode"),
        }
    }

    fn unzstd(&mut self, encoded: &[u8], out: &mut [u8]) -> Result<usize, &'static str> {
        let full = out.len();
        let zstd = self.zstd.get_or_insert_with(DCtx::create);
        let (mut encoded, mut out) = (encoded, out);
        while !out.is_empty() {
            let len = zstd_safe::find_frame_compressed_size(encoded).map_err(|_| "zstd data end too soon")?;
            let (frame, after) = encoded.split_at_checked(len).ok_or("zstd data end too soon")?;
            let done = zstd.decompress(out, frame).map_err(|_| "zstd data do not decode")?;
            if len == 0 {
                return Err("zstd data end too soon");
            }
            out = out.get_mut(done..).ok_or("zstd data do not decode")?;
            encoded = after;
        }
        Ok(full)
    }
}
