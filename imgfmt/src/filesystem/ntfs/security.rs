//! $Secure: the security descriptors of all files, each kept once.
//!
//! Source: the Linux-NTFS project's documentation of $Secure. `$SII` finds a descriptor's entry in the stream `$SDS` by its id.

use crate::bytes::{le32, le64};
use crate::error::Result;
use crate::filesystem::ntfs::attribute::{Stream, Value, Want};
use crate::filesystem::ntfs::index::Index;
use crate::filesystem::ntfs::names::stored;
use crate::filesystem::ntfs::record::attribute_type;
use crate::filesystem::ntfs::volume::{Volume, system_file};

/// Bytes before a descriptor in `$SDS`: hash, id, offset, length.
const HEADER: u32 = 20;
/// Longest security descriptor, in bytes: more than twice that of Windows.
pub(super) const MAX_LEN: u32 = 256 << 10;

/// The descriptors of a volume.
#[derive(Debug)]
pub(super) struct Secure {
    by_id: Index,
    descriptors: Stream,
}

impl Secure {
    /// Opens $Secure; `None` where the volume has none (version 1.2).
    pub(super) fn open(volume: &Volume) -> Result<Option<Self>> {
        let want = |of| if of == attribute_type::DATA { Want::Whole } else { Index::want(of) };
        let file = volume.file(system_file::SECURE, &want)?;
        let descriptors = file.attribute(attribute_type::DATA, &stored("$SDS")).map(|stream| &stream.value);
        let Some(Value::NonResident(descriptors)) = descriptors else { return Ok(None) };
        let by_id = Index::open(volume, &file, &stored("$SII"))?;
        Ok(by_id.map(|by_id| Self { by_id, descriptors: descriptors.clone() }))
    }

    /// The descriptor with this id; `None` where there is none.
    pub(super) fn descriptor(&self, volume: &Volume, id: u32) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.by_id.find(volume, &|key| id.cmp(&le32(key, 0).unwrap_or(0)))? else {
            return Ok(None);
        };
        let corrupt = |reason| volume.corrupt_record(system_file::SECURE, reason);
        let place = le64(&found, 8).zip(le32(&found, 16));
        let (offset, len) = place.ok_or_else(|| corrupt("an entry of $SII is cut short"))?;
        let len = len.checked_sub(HEADER).filter(|len| *len <= MAX_LEN);
        let len = len.ok_or_else(|| corrupt("a security descriptor has a length out of range"))?;
        let mut entry = vec![0; usize::try_from(HEADER.saturating_add(len)).expect("bounded above")];
        volume.read_stream(&self.descriptors, &mut entry, offset)?;
        if le32(&entry, 4) != Some(id) {
            return Err(corrupt("a security descriptor is not the one that $SII says"));
        }
        entry.drain(..usize::try_from(HEADER).expect("twenty"));
        Ok(Some(entry))
    }
}
