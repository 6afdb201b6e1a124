//! Identifiers for disk files that are made here: virtual machines know a disk by them, so each file has its own, and the same file has the same
//! ones tomorrow.

use uuid::Uuid;

/// What the hash of an identifier is for, so that no other use of these values gives the same ones.
const CONTEXT: &str = "hikae 2026-11-25 identifiers of virtual disk files";

/// Where the identifiers of one disk file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    seed: [u8; 32],
    created: u64,
}

impl Identity {
    /// The identity of what `parts` name, such as an image and a generation, made at `created` (seconds since 1970).
    pub fn of(parts: &[&str], created: u64) -> Self {
        Self { seed: hash(&[], parts), created }
    }

    /// An identity that nothing else has.
    pub fn random(created: u64) -> Self {
        Self::of(&[&Uuid::new_v4().to_string()], created)
    }

    /// The identity of a part of it, or of it with something over it.
    pub fn of_part(&self, part: &str) -> Self {
        Self { seed: hash(&self.seed, &[part]), created: self.created }
    }

    /// When its content was made, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// The identifier for a purpose; never zero, of version 4.
    pub fn uuid(&self, purpose: &str) -> Uuid {
        let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = hash(&self.seed, &[purpose]);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A number for a purpose.
    pub fn number(&self, purpose: &str) -> u32 {
        let [a, b, c, d, ..] = hash(&self.seed, &[purpose]);
        u32::from_le_bytes([a, b, c, d])
    }
}

/// Each part with its length, so that no two lists of parts look alike.
fn hash(seed: &[u8], parts: &[&str]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(seed);
    for part in parts {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_has_the_same_identifiers_and_every_other_thing_has_others() {
        let identity = Identity::of(&["image", "generation"], 7);
        assert_eq!(identity, Identity::of(&["image", "generation"], 7));
        assert_eq!(identity.uuid("disk"), identity.clone().uuid("disk"));
        let others = [
            Identity::of(&["imagegeneration"], 7).uuid("disk"),
            Identity::of(&["imagegeneration", ""], 7).uuid("disk"),
            Identity::of(&["image", "other"], 7).uuid("disk"),
            identity.of_part("overlay").uuid("disk"),
            identity.uuid("modification"),
            Identity::random(7).uuid("disk"),
        ];
        for other in others {
            assert_ne!(other, identity.uuid("disk"));
            assert_eq!(other.get_version_num(), 4);
        }
        assert_ne!(identity.number("a"), identity.number("b"));
    }
}
