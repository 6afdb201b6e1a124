//! What a whole restore would write: fitted to the target, with its tables.

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::partition::{Layout, Scheme, read_layout};
use crate::restore::facts::{Facts, Place};
use crate::restore::fit::{FitOptions, fit, fit_partition};
use crate::restore::guard::usable_partition;
use crate::restore::identity::ids::NewIds;
use crate::restore::identity::{Renewal, renew};
use crate::restore::tables::{self, Tables};
use crate::restore::wanted::Wanted;

/// What a session writes.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The scope as it shall be.
    pub wanted: Wanted,
    /// Its tables.
    pub tables: Tables,
    /// What was changed, and what is left to the user, in sentences.
    pub notes: Vec<String>,
    /// What a new identity changes.
    pub renewal: Option<Renewal>,
}

/// The sector size that a disk must have to fit; a file takes any.
fn sector_size(target: &Facts) -> Option<u32> {
    (target.place != Place::File).then_some(target.sector_size)
}

/// A whole disk onto the target, with new identities where `ids` says so.
pub fn whole_disk(
    source: &Arc<dyn Disk>,
    layout: &Layout,
    target: &Facts,
    grow: bool,
    ids: Option<&NewIds>,
) -> Result<Plan> {
    if let Place::Part { number, .. } = target.place
        && layout.scheme != Scheme::None
    {
        let name = target.given.display();
        return Err(Error::Refused(format!(
            "{name} is partition {number} of a disk, and the source is a disk with a table of its own: name the disk, or one partition of the source with --partition"
        )));
    }
    let mut fitted = fit(source, layout, target.len, FitOptions { grow, sector_size: sector_size(target) })?;
    let renewal = ids.map(|ids| renew(&mut fitted.wanted, ids)).transpose()?;
    fitted.notes.extend(renewal.iter().flat_map(Renewal::sentences));
    let tables = tables::of_disk(&fitted.wanted, &read_layout(&fitted.wanted)?)?;
    Ok(Plan { wanted: fitted.wanted, tables, notes: fitted.notes, renewal })
}

/// Partition `from` of the source into partition `to` of the target.
pub fn partition(source: &Arc<dyn Disk>, layout: &Layout, from: u32, target: &Facts, to: u32) -> Result<Plan> {
    let found = layout.partitions.iter().find(|partition| partition.number == from);
    let found = found.ok_or_else(|| Error::NotFound(format!("the source has no partition {from}")))?;
    let place = usable_partition(target, to)?;
    let len = place.end.saturating_sub(place.start);
    let mut fitted = fit_partition(source, found, place.start, len, sector_size(target))?;
    let there = target.layout.partitions.iter().find(|partition| partition.number == to);
    if let Some(there) =
        there.filter(|there| layout.scheme == target.layout.scheme && there.type_code != found.type_code)
    {
        fitted.notes.push(format!(
            "the table of the target calls partition {to} {:?}, and the source called it {:?}: that is not changed",
            name_of(there),
            name_of(found)
        ));
    }
    let tables = tables::of_filesystem(&fitted.wanted)?;
    Ok(Plan { wanted: fitted.wanted, tables, notes: fitted.notes, renewal: None })
}

fn name_of(partition: &crate::partition::Partition) -> &str {
    if partition.type_name.is_empty() { &partition.type_code } else { partition.type_name }
}

/// The tables that the scope of a target has now.
pub fn tables_now(scope: &dyn Disk, target: &Facts, is_partition: bool) -> Result<Tables> {
    if is_partition { tables::of_filesystem(scope) } else { tables::of_disk(scope, &target.layout) }
}
