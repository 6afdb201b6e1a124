//! Runs programs and adds up what they took.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What one run took, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Took {
    pub(crate) wall: f64,
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Took {
    pub(crate) fn cpu(self) -> f64 {
        self.user + self.system
    }

    fn minus(self, earlier: Self) -> Self {
        Self { wall: self.wall - earlier.wall, user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

/// Ticks of the kernel's accounting in a second, on every Linux that there is.
const TICKS: f64 = 100.0;

/// User and system seconds of this process (`own`) or of its children that have ended, from `/proc/self/stat`.
fn processor_time(own: bool) -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Fields are counted behind the name, which may hold anything: utime is the twelfth.
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap().split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let at = if own { 11 } else { 13 };
    (fields[at] / TICKS, fields[at + 1] / TICKS)
}

/// What this process took since it began to count.
pub(crate) fn own(since: Instant) -> Took {
    let (user, system) = processor_time(true);
    Took { wall: since.elapsed().as_secs_f64(), user, system }
}

/// Runs a program to its end and returns what it took and what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> (Took, String) {
    // What earlier runs left to be written is not this one's.
    Command::new("sync").status().unwrap();
    let (begun, before) = (Instant::now(), processor_time(false));
    let output = Command::new(program)
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
    let wall = begun.elapsed().as_secs_f64();
    let after = processor_time(false);
    assert!(output.status.success(), "{program} {args:?}: {}", output.status);
    let took = Took { wall, user: after.0 - before.0, system: after.1 - before.1 };
    (took, String::from_utf8(output.stdout).unwrap())
}

/// All rounds of all measurements, by name.
#[derive(Debug, Default)]
pub(crate) struct Rounds(BTreeMap<String, Vec<Took>>);

impl Rounds {
    pub(crate) fn add(&mut self, name: &str, took: Took) {
        self.0.entry(name.to_owned()).or_default().push(took);
    }

    /// Median, smallest and largest of one measure.
    fn spread(&self, name: &str, measure: fn(Took) -> f64) -> (f64, f64, f64) {
        let mut values: Vec<f64> = self.0[name].iter().map(|took| measure(*took)).collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        (median, values[0], values[values.len() - 1])
    }

    /// A row of the table: processor and wall seconds, as medians with their range, and both as multiples of the limit's medians.
    pub(crate) fn row(&self, label: &str, name: &str, limit: &str) -> String {
        let (user, ..) = self.spread(name, |took| took.user);
        let (cpu, least, most) = self.spread(name, Took::cpu);
        let (wall, shortest, longest) = self.spread(name, |took| took.wall);
        let times = |value: f64, measure| {
            let (limit, ..) = self.spread(limit, measure);
            if limit > 0.0 { format!("{:.2}", value / limit) } else { "-".into() }
        };
        format!(
            "| {label} | {user:.2} | {cpu:.2} [{least:.2}-{most:.2}] | {wall:.2} [{shortest:.2}-{longest:.2}] | {} | {} |",
            times(cpu, Took::cpu),
            times(wall, |took| took.wall)
        )
    }
}

/// Stages of a run in this process, told by the engine.
#[derive(Debug)]
pub(crate) struct Stages {
    since: Instant,
    last: Took,
    name: String,
    sums: BTreeMap<String, Took>,
}

impl Stages {
    pub(crate) fn new() -> Self {
        let since = Instant::now();
        Self { since, last: own(since), name: "start".into(), sums: BTreeMap::new() }
    }

    /// Ends the stage before and begins another.
    pub(crate) fn begin(&mut self, name: &str) {
        let now = own(self.since);
        let took = now.minus(self.last);
        let sum = self.sums.entry(std::mem::replace(&mut self.name, name.to_owned())).or_default();
        *sum = Took { wall: sum.wall + took.wall, user: sum.user + took.user, system: sum.system + took.system };
        self.last = now;
    }

    /// `[wall, user, system]` of each stage, as JSON.
    pub(crate) fn json(mut self) -> serde_json::Value {
        self.begin("end");
        self.sums
            .into_iter()
            .map(|(name, took)| (name, serde_json::json!([took.wall, took.user, took.system])))
            .collect()
    }
}
