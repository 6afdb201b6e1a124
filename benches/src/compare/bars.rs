//! What hikae must reach, as ratios to the limit and to the others of the same run.

use hikae_benches::measure::Took;

use crate::contest::{Contest, key};
use crate::peers::Job;

/// A ratio of medians with what it may be at most.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) at_most: f64,
    /// Of wall seconds, or of bytes.
    pub(crate) ratio: f64,
    /// Of user and system seconds; `None` for bytes.
    pub(crate) cpu: Option<f64>,
}

impl Bar {
    pub(crate) fn is_met(&self) -> bool {
        self.ratio <= self.at_most
    }
}

/// All bars whose programs took part.
pub(crate) fn bars(contest: &Contest<'_>) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut time = |what: &str, at_most: f64, job: Job, ours: &str, theirs: &str| {
        let (ours, theirs) = (key(job, ours), key(job, theirs));
        if !contest.rounds.has(&ours) || !contest.rounds.has(&theirs) {
            return;
        }
        let ratio = |measure: fn(Took) -> f64| {
            contest.rounds.spread(&ours, measure).median / contest.rounds.spread(&theirs, measure).median
        };
        let what = format!("{}: {what}", job.title());
        bars.push(Bar { what, at_most, ratio: ratio(|took| took.wall), cpu: Some(ratio(Took::cpu)) });
    };
    time("storing, to the limit without its fsync", 1.15, Job::Full, "store", "limit work");
    for (ours, note) in [("hikae", ""), ("hikae all blocks", ", same blocks and level")] {
        time(&format!("to qemu-img zstd{note}"), 0.5, Job::Full, ours, "qemu-img zstd");
        time(&format!("to restic{note}"), 0.5, Job::Full, ours, "restic");
        time(&format!("to borg zstd{note}"), 0.6, Job::Full, ours, "borg zstd");
    }
    time("to partclone + zstd", 1.0, Job::Full, "hikae", "partclone + zstd");
    time("storing, to reading and hashing", 1.15, Job::Unchanged, "store", "limit work");
    for peer in ["restic", "borg lz4", "borg zstd"] {
        time(&format!("to {peer}"), 0.3, Job::Unchanged, "hikae", peer);
    }
    time("storing, to the limit of differences without its fsync", 1.3, Job::Changed, "store", "limit work");
    time("to decoding and hashing", 1.0 / 0.85, Job::Verify, "hikae", "limit");

    let stored = |job: Job, program: &str| contest.stored.get(&key(job, program)).map(|bytes| *bytes as f64);
    let mut bytes = |what: &str, at_most: f64, ours: Option<f64>, theirs: Option<f64>| {
        if let Some((ours, theirs)) = ours.zip(theirs) {
            bars.push(Bar { what: what.into(), at_most, ratio: ours / theirs, cpu: None });
        }
    };
    for peer in ["qemu-img zstd", "borg zstd"] {
        let what = format!("bytes of the same blocks at the same level: to {peer}");
        bytes(&what, 1.03, stored(Job::Full, "hikae all blocks"), stored(Job::Full, peer));
    }
    let pages = Some(contest.pages.1 as f64);
    bytes("bytes of 3 % of the pages: to the pages compressed one by one", 1.3, stored(Job::Changed, "hikae"), pages);
    bars
}
