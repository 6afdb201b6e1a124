//! What verify runs and boot tests found, kept beside the image: derived, and worth nothing without the root it names.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::id::{Place, image_id_hex};
use crate::image::record::Record;
use crate::image::store::PackStore;

/// The text of `NAME.hik.verdicts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// Image id: another image with the same name and the same disk has been proven by nobody yet.
    #[serde(default)]
    pub image: String,
    /// By number. A root id alone is no key: it says nothing of places, and of two generations with one root the copy of one can be damaged.
    #[serde(default)]
    pub generations: BTreeMap<u32, Verdict>,
    /// By number: the last boot test of a generation.
    #[serde(default)]
    pub boots: BTreeMap<u32, BootVerdict>,
    /// Frames that were found damaged: pack, offset, length.
    #[serde(default)]
    pub damaged: Vec<(u32, u64, u32)>,
}

/// What is known of one generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Root id, 64 hexadecimal digits: a generation with another root was not the one that was looked at.
    pub root: String,
    /// When it was verified, RFC 3339, UTC.
    pub verified: String,
    /// Whether every byte of it was proven.
    pub whole: bool,
}

/// What a boot test of one generation found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootVerdict {
    /// Root id, as in [`Verdict`].
    pub root: String,
    /// When it was tested, RFC 3339, UTC.
    pub tested: String,
    /// "boots", "probably boots", "does not boot", "undecided" or "data only".
    pub verdict: String,
    /// Whether it counts as booting.
    pub boots: bool,
    /// What shows it: "serial text", "guest agent", "screen text", "idle picture" or "none".
    pub evidence: String,
    /// "BIOS" or "UEFI"; empty where nothing was started.
    pub firmware: String,
}

impl Verdicts {
    /// Reads those of the image `id`; empty where the file is missing, makes no sense, or is of another image.
    pub fn read(store: &dyn PackStore, id: [u8; 16]) -> Self {
        let image = image_id_hex(&id);
        let text = std::fs::read(store.side_file("verdicts")).unwrap_or_default();
        let found: Option<Self> = serde_json::from_slice(&text).ok();
        found.filter(|found| found.image == image).unwrap_or(Self { image, ..Self::default() })
    }

    /// Whether a generation was found to be whole; `None` where it was never looked at.
    pub fn of(&self, record: &Record) -> Option<bool> {
        let verdict = self.generations.get(&record.generation)?;
        (verdict.root == record.root.id).then_some(verdict.whole)
    }

    /// The last boot test of a generation; `None` where there was none.
    pub fn boot_of(&self, record: &Record) -> Option<&BootVerdict> {
        self.boots.get(&record.generation).filter(|verdict| verdict.root == record.root.id)
    }

    /// Replaces the file.
    pub fn write(&self, store: &dyn PackStore) -> Result<()> {
        let (path, temporary) = (store.side_file("verdicts"), store.side_file("verdicts.new"));
        let json = serde_json::to_vec_pretty(self).expect("text, numbers and truth values are valid JSON");
        std::fs::write(&temporary, json).map_err(|error| Error::io("write", &temporary, error))?;
        std::fs::rename(&temporary, &path).map_err(|error| Error::io("rename", &temporary, error))
    }
}

/// Places that the last verify found damaged, so that a capture stores anew what lay there.
pub fn damaged_places(store: &dyn PackStore, id: [u8; 16]) -> HashSet<Place> {
    Verdicts::read(store, id).damaged.into_iter().map(|(pack, offset, len)| Place { pack, offset, len }).collect()
}
