//! New identities for a copy: another disk signature, other GUIDs, and what names them repaired where that is safe.
//!
//! All of it is patches of the wanted disk, so a session writes them like everything else: files with the body, tables last.
//! `docs/restore.md` section 7 says what is promised.

pub mod ids;
mod repair;

use std::sync::Arc;

use crate::bytes::le32;
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::partition::edit::Gpt;
use crate::partition::gpt::guid_text;
use crate::partition::{Layout, Scheme, read_layout, signature};
use crate::restore::identity::ids::{Mapping, NewIds};
use crate::restore::wanted::Wanted;
use crate::startup::reference::{Identity, Reference};
use crate::startup::{Startup, examine};

/// Where the disk signature lies in the first sector.
const SIGNATURE: u64 = 440;

/// Something that is another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// "disk signature", "GUID of partition 2".
    pub what: String,
    /// As it was.
    pub old: String,
    /// As it is.
    pub new: String,
}

/// A file that names something by what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The volume that holds it: "partition 2".
    pub volume: String,
    /// Path of the file. Untrusted text.
    pub path: String,
    /// Where in the file. Untrusted text.
    pub place: String,
    /// What it said.
    pub old: String,
    /// What it says, or should say.
    pub new: String,
    /// Why it was left as it was; `None` where it is repaired.
    pub left: Option<String>,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.left.is_some() { "NOT repaired" } else { "repaired" };
        write!(f, "{state}: {} in {}, {}: {} -> {}", self.path, self.volume, self.place, self.old, self.new)?;
        self.left.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

/// What a new identity changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// The identities.
    pub renewed: Vec<Renewed>,
    /// The files that name them.
    pub named: Vec<Named>,
    /// What could not be looked at.
    pub notes: Vec<String>,
}

impl Renewal {
    /// All of it in sentences.
    pub fn sentences(&self) -> Vec<String> {
        let renewed = self.renewed.iter().map(|new| format!("new {}: {} (was {})", new.what, new.new, new.old));
        let named = self.named.iter().map(ToString::to_string);
        let notes = self.notes.iter().map(|note| format!("not looked at: {note}"));
        let kept = "UUIDs and serial numbers of filesystems stay as they are".to_owned();
        renewed.chain([kept]).chain(named).chain(notes).collect()
    }

    /// Files that still name what was.
    pub fn left(&self) -> impl Iterator<Item = &Named> {
        self.named.iter().filter(|named| named.left.is_some())
    }
}

/// Gives the wanted disk new identities, and repairs what names them.
pub fn renew(wanted: &mut Wanted, ids: &NewIds) -> Result<Renewal> {
    let layout = read_layout(wanted)?;
    check(wanted, &layout)?;
    let before = examine(&shared(wanted))?;
    let mut renewal = Renewal::default();
    let mut trial = wanted.clone();
    let mapping = match layout.scheme {
        Scheme::Gpt | Scheme::HybridGpt => renew_gpt(&mut trial, ids, &mut renewal)?,
        Scheme::Mbr | Scheme::None => renew_mbr(&mut trial, &layout, ids, &mut renewal)?,
    };
    let (repaired, left) = repair::files(&mut trial, &before, &mapping)?;
    let after = examine(&shared(&trial))?;
    for reference in repaired {
        let left = (!leads_to_the_same(&before, &after, reference, &mapping))
            .then(|| "it does not read back as it should".to_owned());
        renewal.named.push(named(&before, reference, &mapping, left));
    }
    for (reference, reason) in left {
        renewal.named.push(named(&before, reference, &mapping, Some(reason)));
    }
    renewal.notes = before.notes;
    *wanted = trial;
    Ok(renewal)
}

fn shared(wanted: &Wanted) -> Arc<dyn Disk> {
    Arc::new(wanted.clone())
}

/// Refuses disks whose identity stands in more than the table.
fn check(wanted: &Wanted, layout: &Layout) -> Result<()> {
    if layout.scheme == Scheme::None {
        return Err(Error::Refused(
            "the disk has no partition table, and so no identity that --new-ids could change: UUIDs of filesystems are changed with their own tools".into(),
        ));
    }
    let ldm = layout.partitions.iter().find_map(signature::container_type);
    let whole = signature::recognise(wanted)?.filter(|found| found.whole).map(|found| found.name);
    if let Some(kind) = ldm.or(whole) {
        return Err(Error::Refused(format!(
            "{kind} keeps the identity of the disk in its own database: a copy cannot get a new one with --new-ids"
        )));
    }
    Ok(())
}

/// Another signature for an MBR.
fn renew_mbr(wanted: &mut Wanted, layout: &Layout, ids: &NewIds, renewal: &mut Renewal) -> Result<Mapping> {
    let mut mapping = Mapping::default();
    renew_signature(wanted, ids, renewal, &mut mapping)?;
    for partition in &layout.partitions {
        mapping.add_partuuid(&partition.id);
    }
    Ok(mapping)
}

fn renew_signature(wanted: &mut Wanted, ids: &NewIds, renewal: &mut Renewal, mapping: &mut Mapping) -> Result<()> {
    let bytes = read_vec(wanted, SIGNATURE, 4)?;
    let old = le32(&bytes, 0).unwrap_or(0);
    let new = ids.signature(old);
    mapping.signature = Some((old, new));
    wanted.patch(SIGNATURE, &new.to_le_bytes());
    let text = |signature: u32| format!("{signature:08x}");
    renewal.renewed.push(Renewed { what: "disk signature".into(), old: text(old), new: text(new) });
    Ok(())
}

/// Other GUIDs for the disk and its partitions, in both copies of the GPT.
fn renew_gpt(wanted: &mut Wanted, ids: &NewIds, renewal: &mut Renewal) -> Result<Mapping> {
    let missing = || Error::NotFound("the disk has no intact GPT".into());
    let mut gpt = Gpt::read(wanted)?.ok_or_else(missing)?;
    let mut mapping = Mapping::default();
    let mut push = |what: String, old: [u8; 16], new: [u8; 16]| {
        renewal.renewed.push(Renewed { what, old: guid_text(&old), new: guid_text(&new) });
    };
    let (old, new) = (gpt.disk_guid(), ids.guid("disk"));
    gpt.set_disk_guid(new);
    mapping.disk = Some((old, new));
    push("disk GUID".into(), old, new);
    for number in gpt.numbers() {
        let old = gpt.partition_guid(number)?;
        let new = ids.guid(&format!("partition {number}"));
        gpt.set_partition_guid(number, new)?;
        mapping.partitions.push((old, new));
        push(format!("GUID of partition {number}"), old, new);
    }
    // A backup that lies elsewhere would keep the old ones.
    for place in gpt.places().iter().filter(|place| place.start > 0) {
        wanted.zero(place.start, place.end.saturating_sub(place.start));
    }
    for patch in gpt.render(wanted.len())? {
        wanted.patch(patch.offset, &patch.bytes);
    }
    // A protective MBR has no signature as a rule; where it has one, the copy gets another.
    if read_vec(wanted, SIGNATURE, 4)? != [0; 4] {
        renew_signature(wanted, ids, renewal, &mut mapping)?;
    }
    Ok(mapping)
}

fn named(startup: &Startup, reference: &Reference, mapping: &Mapping, left: Option<String>) -> Named {
    Named {
        volume: startup.volumes.get(reference.volume).name.clone(),
        path: reference.path.clone(),
        place: reference.place.clone(),
        old: reference.names.to_string(),
        new: renewed(&reference.names, mapping).to_string(),
        left,
    }
}

/// What a reference says once the identities are new.
fn renewed(names: &Identity, mapping: &Mapping) -> Identity {
    match names {
        Identity::DiskSignature(old) => Identity::DiskSignature(mapping.signature(*old)),
        Identity::MbrPartition { signature, start } => {
            Identity::MbrPartition { signature: mapping.signature(*signature), start: *start }
        }
        Identity::GptPartition { disk, partition } => Identity::GptPartition {
            disk: disk.map(|disk| mapping.disk(disk)),
            partition: mapping.partition(*partition),
        },
        Identity::PartUuid(old) => Identity::PartUuid(mapping.partuuid(old)),
        other => other.clone(),
    }
}

/// Says whether a repaired reference names on the new disk what it named on the old one.
fn leads_to_the_same(before: &Startup, after: &Startup, reference: &Reference, mapping: &Mapping) -> bool {
    let wanted = renewed(&reference.names, mapping);
    let same = |other: &&Reference| {
        other.volume == reference.volume && other.path == reference.path && other.place == reference.place
    };
    let mut found = after.references.iter().filter(same);
    found.any(|other| {
        other.names == wanted
            && other.names.on_this_disk(&after.volumes) == reference.names.on_this_disk(&before.volumes)
    })
}
