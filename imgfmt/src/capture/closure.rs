//! The closure check: from the image alone, is everything there that the metadata reach?
//!
//! It never reads an allocation map, so a map that claims too little is found out here even where the plan believed it.

use std::sync::Arc;

use crate::capture::plan::PartitionPlan;
use crate::disk::{Disk, ExtentKind, Slice};
use crate::error::{Error, Result, full_message};
use crate::filesystem;

/// Walks the filesystem of a partition as the image holds it. The error is a phrase for the record.
pub fn check(generation: &Arc<dyn Disk>, kept: &PartitionPlan) -> Result<(), String> {
    walk(generation, kept).map_err(|error| full_message(&error))
}

fn walk(generation: &Arc<dyn Disk>, kept: &PartitionPlan) -> Result<()> {
    let slice: Arc<dyn Disk> = Arc::new(Slice::open(Arc::clone(generation), kept.partition.range.clone())?);
    let Some(filesystem) = filesystem::open(&slice)? else {
        return Err(Error::NotFound("the filesystem is not recognised in the image".into()));
    };
    filesystem.walk(&mut |reached| {
        let mut at = reached.range.start;
        while at < reached.range.end {
            let extent = slice.extent_at(at)?;
            if extent.kind == ExtentKind::Absent {
                return Err(Error::NotFound(format!(
                    "{} {} needs bytes {at:#x} to {:#x}, which were not kept",
                    reached.owner_kind,
                    reached.owner,
                    extent.end().min(reached.range.end)
                )));
            }
            at = extent.end();
        }
        Ok(())
    })
}
