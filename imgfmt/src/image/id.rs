//! What a stored object is (its id) and where it lies (its place).

use std::fmt;

/// BLAKE3-256 of an object's decoded content; which hash over which bytes depends on the object's type.
///
/// Source: docs/format.md section 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub [u8; 32]);

impl Id {
    /// The id of no object.
    pub const NONE: Self = Self([0; 32]);

    /// The id of a chunk with these decoded bytes.
    pub fn of_chunk(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The id of any other object: derived under the context of its type.
    pub fn derived(context: &str, bytes: &[u8]) -> Self {
        Self(blake3::derive_key(context, bytes))
    }

    /// Parses 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

/// Where a frame lies. Sixteen bytes when stored: pack, length, offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Pack number.
    pub pack: u32,
    /// Offset of the frame's header in the pack, in bytes.
    pub offset: u64,
    /// Length of the whole frame in bytes, header included.
    pub len: u32,
}

impl Place {
    /// Length of a stored place in bytes.
    pub const ENCODED_LEN: usize = 16;

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pack.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
    }

    /// Reads the stored form at `at`; `None` where `bytes` is too short.
    pub fn decode(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            pack: crate::bytes::le32(bytes, at)?,
            len: crate::bytes::le32(bytes, at.checked_add(4)?)?,
            offset: crate::bytes::le64(bytes, at.checked_add(8)?)?,
        })
    }

    /// First byte after the frame; saturated.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pack {} at byte {:#x}", self.pack, self.offset)
    }
}

/// What and where: how a node names a chunk or another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer {
    /// Proves the content.
    pub id: Id,
    /// Finds it.
    pub place: Place,
}

/// Hexadecimal digits of an image id.
pub fn image_id_hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
