//! Chunks as the minimal programs store them: one after the other in a file, and a list of where each lies.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use zstd_safe::DCtx;

/// Bytes of a chunk.
pub const CHUNK: usize = 64 << 10;

/// A stored chunk: number on the disk, place in the file, and what it must hash to.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Number on the disk.
    pub chunk: u64,
    /// Byte in the file.
    pub offset: u64,
    /// Stored bytes; [`CHUNK`] where it is not compressed.
    pub len: usize,
    /// BLAKE3 of its content.
    pub hash: [u8; 32],
}

const ENTRY_LEN: usize = 56;

impl Entry {
    /// Reads, decodes and hashes the chunk into `bytes`, which are [`CHUNK`] long.
    pub fn read(&self, input: &File, decompress: &mut DCtx<'_>, payload: &mut [u8], bytes: &mut [u8]) {
        if self.len == CHUNK {
            input.read_exact_at(bytes, self.offset).unwrap();
        } else {
            input.read_exact_at(&mut payload[..self.len], self.offset).unwrap();
            assert_eq!(decompress.decompress(bytes, &payload[..self.len]), Ok(CHUNK));
        }
        assert_eq!(*blake3::hash(bytes).as_bytes(), self.hash);
    }

    /// Reads, decodes and hashes a chunk that was compressed against `base`.
    pub fn read_difference(
        &self,
        input: &File,
        decompress: &mut DCtx<'_>,
        payload: &mut Vec<u8>,
        base: &[u8],
        bytes: &mut [u8],
    ) {
        payload.resize(self.len.max(CHUNK), 0);
        input.read_exact_at(&mut payload[..self.len], self.offset).unwrap();
        // For one call, so the context borrows nothing.
        assert_eq!(decompress.decompress_using_dict(bytes, &payload[..self.len], base), Ok(CHUNK));
        assert_eq!(*blake3::hash(bytes).as_bytes(), self.hash);
    }

    /// As it stands in the list.
    pub fn encode(&self) -> Vec<u8> {
        let len = u64::try_from(self.len).unwrap();
        [&self.chunk.to_le_bytes()[..], &self.offset.to_le_bytes(), &len.to_le_bytes(), &self.hash].concat()
    }

    fn decode(raw: &[u8]) -> Self {
        let number = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().unwrap());
        let hash = raw[24..].try_into().unwrap();
        Self { chunk: number(0), offset: number(8), len: usize::try_from(number(16)).unwrap(), hash }
    }
}

/// The list of a file of chunks.
pub fn read_index(path: &Path) -> Vec<Entry> {
    std::fs::read(path.with_extension("index")).unwrap().chunks_exact(ENTRY_LEN).map(Entry::decode).collect()
}
