//! A partition alone, shown as a whole disk: hypervisors and Windows want a table, so one is made up around it.
//!
//! The layout is in docs/mount.md, section "A partition alone".

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, Slice, buf_len};
use crate::error::{Error, Result, full_message};
use crate::format::Format;
use crate::format::identity::Identity;
use crate::partition::signature::recognise;
use crate::partition::single::{Ids, START, Table};
use crate::partition::{Scheme, read_layout};
use crate::view::pieces::{Builder, View};
use crate::view::{Offer, offers};

/// Shows a partition as a disk with a table, whose identifiers come from `identity`. The error is a phrase.
pub fn with_table(partition: Arc<dyn Disk>, identity: &Identity) -> Result<View, String> {
    let ids = Ids {
        signature: identity.number("disk signature"),
        disk: identity.uuid("disk GUID"),
        partition: identity.uuid("partition GUID"),
    };
    let table = Table::around(&partition, &ids).map_err(|error| full_message(&error))?;
    let back = table.disk_len.saturating_sub(buf_len(&table.back));
    let file = Builder::new(partition).bytes(table.front).zeros_to(START).disk().zeros_to(back).bytes(table.back);
    Ok(file.build())
}

/// How the names of files begin that show a partition alone with a table around it.
pub const WITH_TABLE: &str = "with-table";

/// Says whether a disk is a partition alone: something is recognised in it, and no table.
pub fn is_partition_alone(disk: &dyn Disk) -> bool {
    // What cannot be read is told where it is read.
    let has_no_table = read_layout(disk).is_ok_and(|layout| layout.scheme == Scheme::None);
    has_no_table && recognise(disk).is_ok_and(|signature| signature.is_some())
}

/// The identity of partition `number` of a disk where it is shown with a table around it.
pub fn identity_of_partition(disk: &Identity, number: u32) -> Identity {
    disk.of_part(&format!("{WITH_TABLE} {number}"))
}

/// The bytes of partition `number`. Fails with [`Error::NotFound`] where the table has none, and with [`Error::Refused`] where it makes no sense.
pub fn find_partition(disk: &dyn Disk, number: u32) -> Result<Range<u64>> {
    let layout = read_layout(disk)?;
    let found = layout.partitions.iter().find(|partition| partition.number == number);
    let found = found.ok_or_else(|| Error::NotFound(format!("the disk has no partition {number}")))?;
    match found.unusable {
        Some(reason) => Err(Error::Refused(format!("partition {number} {reason}"))),
        None => Ok(found.range.clone()),
    }
}

/// Shows partition `number` of a disk as a disk with a table around it. `identity` is the disk's.
pub fn partition_with_table(disk: &Arc<dyn Disk>, number: u32, identity: &Identity) -> Result<Arc<View>> {
    let range = find_partition(disk, number)?;
    let partition = Slice::open(Arc::clone(disk), range)?;
    let view = with_table(Arc::new(partition), &identity_of_partition(identity, number));
    view.map(Arc::new)
        .map_err(|reason| Error::Refused(format!("partition {number} cannot be shown as a disk: {reason}")))
}

/// Shows a disk in every format ([`offers`]), and a partition alone with a table around it too.
pub fn offers_of_disk(disk: &Arc<dyn Disk>, identity: &Identity) -> Vec<Offer> {
    let mut all = offers(disk, "disk", identity);
    if is_partition_alone(disk) {
        let identity = identity_of_partition(identity, 1);
        match with_table(Arc::clone(disk), &identity) {
            Ok(whole) => {
                let whole: Arc<dyn Disk> = Arc::new(whole);
                all.extend(offers(&whole, WITH_TABLE, &identity));
            }
            Err(reason) => {
                all.push(Offer { name: format!("{WITH_TABLE}.raw"), format: Format::Raw, view: Err(reason) });
            }
        }
    }
    all
}
