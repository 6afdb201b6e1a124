//! New identities, all of them derived from one seed, so that an interrupted run goes on with the same ones.

use crate::partition::gpt::guid_text;
use crate::startup::reference::Form;

/// What the derived bytes are for: part of every hash.
const CONTEXT: &str = "hikae restore --new-ids 2026-11 identities";

/// The source of new identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewIds {
    seed: String,
}

impl NewIds {
    /// Random ones.
    pub fn random() -> Self {
        Self { seed: uuid::Uuid::new_v4().simple().to_string() }
    }

    /// Those of an earlier run; the seed is what [`NewIds::seed`] gave.
    pub fn from_seed(seed: &str) -> Self {
        Self { seed: seed.into() }
    }

    /// The seed, as the undo file keeps it.
    pub fn seed(&self) -> &str {
        &self.seed
    }

    fn bytes(&self, what: &str) -> [u8; 32] {
        blake3::derive_key(CONTEXT, format!("{} {what}", self.seed).as_bytes())
    }

    /// A random GUID (version 4 of RFC 9562) in the order of bytes on the disk.
    pub fn guid(&self, what: &str) -> [u8; 16] {
        let mut guid: [u8; 16] = std::array::from_fn(|at| self.bytes(what).get(at).copied().unwrap_or(0));
        // The first three fields are little-endian: the version is the high digit of byte 7.
        guid[7] = guid[7] & 0x0f | 0x40;
        guid[8] = guid[8] & 0x3f | 0x80;
        guid
    }

    /// A disk signature of eight digits that is not `old`.
    pub fn signature(&self, old: u32) -> u32 {
        let [a, b, c, d, ..] = self.bytes("disk signature");
        let new = u32::from_le_bytes([a, b, c, d]) | 0x1000_0000;
        if new == old { new ^ 1 } else { new }
    }
}

/// Old identities with the new ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Of the MBR.
    pub signature: Option<(u32, u32)>,
    /// Of the disk.
    pub disk: Option<([u8; 16], [u8; 16])>,
    /// Of the partitions.
    pub partitions: Vec<([u8; 16], [u8; 16])>,
    /// The numbers of partitions of an MBR disk, as PARTUUID has them: "-01".
    numbers: Vec<String>,
}

impl Mapping {
    /// Adds a partition of an MBR disk by its PARTUUID.
    pub fn add_partuuid(&mut self, partuuid: &str) {
        self.numbers.extend(partuuid.get(8..).map(str::to_owned));
    }

    /// The new signature for an old one.
    pub fn signature(&self, old: u32) -> u32 {
        self.signature.filter(|(from, _)| *from == old).map_or(old, |(_, new)| new)
    }

    /// The new GUID of the disk for an old one.
    pub fn disk(&self, old: [u8; 16]) -> [u8; 16] {
        self.disk.filter(|(from, _)| *from == old).map_or(old, |(_, new)| new)
    }

    /// The new GUID of a partition for an old one.
    pub fn partition(&self, old: [u8; 16]) -> [u8; 16] {
        self.partitions.iter().find(|(from, _)| *from == old).map_or(old, |(_, new)| *new)
    }

    /// The new PARTUUID for an old one, with letters as big as they were.
    pub fn partuuid(&self, old: &str) -> String {
        let guid = self.partitions.iter().find(|(from, _)| guid_text(from).eq_ignore_ascii_case(old));
        let mbr = || {
            let (from, new) = self.signature?;
            let (signature, number) = old.split_at_checked(8)?;
            let same = signature.eq_ignore_ascii_case(&format!("{from:08x}"));
            (same && self.numbers.iter().any(|known| known == number)).then(|| format!("{new:08x}{number}"))
        };
        let new = guid.map(|(_, new)| guid_text(new)).or_else(mbr).unwrap_or_else(|| old.to_owned());
        if old.chars().any(|c| c.is_ascii_uppercase()) { new.to_uppercase() } else { new.to_lowercase() }
    }

    /// Says whether bytes name something that is another one now.
    pub fn touches(&self, form: Form, old: &[u8]) -> bool {
        let text = std::str::from_utf8(old).ok();
        match form {
            Form::SignatureText => {
                let old = text.and_then(|text| u32::from_str_radix(text, 16).ok());
                old.is_some_and(|old| self.signature(old) != old)
            }
            _ => self.bytes(form, old).is_some(),
        }
    }

    /// The bytes that take the place of `old`, of the same length; `None` where there are none.
    pub fn bytes(&self, form: Form, old: &[u8]) -> Option<Vec<u8>> {
        let new = match form {
            Form::PartUuidText => self.partuuid(std::str::from_utf8(old).ok()?).into_bytes(),
            Form::SignatureText => {
                let text = std::str::from_utf8(old).ok()?;
                let new = format!("{:08x}", self.signature(u32::from_str_radix(text, 16).ok()?));
                let upper = text.chars().any(|c| c.is_ascii_uppercase());
                if upper { new.to_uppercase().into_bytes() } else { new.into_bytes() }
            }
            Form::Signature => self.signature(u32::from_le_bytes(old.try_into().ok()?)).to_le_bytes().to_vec(),
            Form::PartitionGuid => self.partition(old.try_into().ok()?).to_vec(),
            Form::DiskGuid => self.disk(old.try_into().ok()?).to_vec(),
        };
        (new.len() == old.len() && new != old).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_their_seed_and_are_of_version_4() {
        let ids = NewIds::random();
        let again = NewIds::from_seed(ids.seed());
        assert_eq!(ids.guid("disk"), again.guid("disk"));
        assert_ne!(ids.guid("disk"), ids.guid("partition 1"));
        assert_ne!(ids.guid("disk"), NewIds::random().guid("disk"));
        let text = guid_text(&ids.guid("disk"));
        assert_eq!(&text[14..15], "4", "{text}");
        assert!("89AB".contains(&text[19..20]), "{text}");
        let signature = ids.signature(0);
        assert_ne!(ids.signature(signature), signature);
        assert_eq!(format!("{signature:x}").len(), 8);
    }

    #[test]
    fn names_keep_their_form_and_length() {
        let mut mapping = Mapping { signature: Some((0xb007_b007, 0x1234_abcd)), ..Mapping::default() };
        mapping.add_partuuid("b007b007-01");
        assert_eq!(mapping.partuuid("b007b007-01"), "1234abcd-01");
        assert_eq!(mapping.partuuid("B007B007-01"), "1234ABCD-01");
        assert_eq!(mapping.partuuid("b007b007-02"), "b007b007-02", "there is no such partition");
        assert_eq!(mapping.bytes(Form::SignatureText, b"B007B007"), Some(b"1234ABCD".to_vec()));
        assert_eq!(mapping.bytes(Form::SignatureText, b"0b007b007"), None, "of another length");
        assert_eq!(mapping.bytes(Form::Signature, &[7, 0xb0, 7, 0xb0]), Some(vec![0xcd, 0xab, 0x34, 0x12]));
        assert_eq!(mapping.bytes(Form::Signature, &[1, 2, 3, 4]), None, "another disk's");
    }
}
