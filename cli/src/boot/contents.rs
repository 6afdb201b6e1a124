//! What can be checked of a disk that does not boot: its filesystems.

use std::sync::Arc;

use imgfmt::capture::closure;
use imgfmt::capture::plan::{PlanOptions, plan};
use imgfmt::disk::Slice;
use imgfmt::error::full_message;
use imgfmt::filesystem;
use imgfmt::{Disk, Error, Result};
use serde_json::{Value, json};

/// What was found in one partition.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Its number.
    pub(crate) partition: u32,
    /// What is in it; empty where nothing is recognised.
    pub(crate) filesystem: String,
    /// How that is.
    pub(crate) state: State,
}

/// How a filesystem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Everything that its metadata reach is there.
    Whole,
    /// It is not, and this is why.
    Damaged(String),
    /// hikae does not read it, and this is why.
    NotChecked(String),
}

impl Checked {
    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        let (state, reason) = match &self.state {
            State::Whole => ("whole", None),
            State::Damaged(reason) => ("damaged", Some(reason)),
            State::NotChecked(reason) => ("not checked", Some(reason)),
        };
        json!({"partition": self.partition, "filesystem": self.filesystem, "state": state, "reason": reason})
    }

    /// In words.
    pub(crate) fn line(&self) -> String {
        let what = if self.filesystem.is_empty() { "unknown" } else { &self.filesystem };
        let state = match &self.state {
            State::Whole => "whole: everything that its metadata reach is there and can be read".to_owned(),
            State::Damaged(reason) => format!("DAMAGED: {reason}"),
            State::NotChecked(reason) => format!("not checked: {reason}"),
        };
        format!("partition {}: {what}, {state}", self.partition)
    }
}

/// Walks the metadata of each filesystem that hikae reads.
pub(crate) fn check(disk: &Arc<dyn Disk>) -> Result<Vec<Checked>> {
    let plan = plan(disk, &PlanOptions::default())?;
    let mut checked = Vec::new();
    for kept in &plan.partitions {
        let slice: Arc<dyn Disk> = Arc::new(Slice::open(Arc::clone(disk), kept.partition.range.clone())?);
        let state = match filesystem::open(&slice) {
            Ok(Some(_)) => closure::check(disk, kept).map_or_else(State::Damaged, |()| State::Whole),
            Ok(None) => State::NotChecked("no filesystem that hikae reads".into()),
            Err(error @ Error::Unsupported { .. }) => State::NotChecked(full_message(&error)),
            Err(error) => State::Damaged(full_message(&error)),
        };
        checked.push(Checked { partition: kept.partition.number, filesystem: kept.filesystem.clone(), state });
    }
    Ok(checked)
}
