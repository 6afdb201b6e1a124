//! Runs programs and adds up what they took.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// Seconds by the clock.
    pub wall: f64,
    /// Seconds of processors in programs.
    pub user: f64,
    /// Seconds of processors in the kernel.
    pub system: f64,
    /// Most memory that the largest process held, in bytes; 0 where nobody looked.
    pub peak: u64,
}

impl Took {
    /// Seconds of processors, in programs and in the kernel.
    pub fn cpu(self) -> f64 {
        self.user + self.system
    }

    fn minus(self, earlier: Self) -> Self {
        Self {
            wall: self.wall - earlier.wall,
            user: self.user - earlier.user,
            system: self.system - earlier.system,
            peak: self.peak,
        }
    }
}

/// Ticks of the kernel's accounting in a second, on every Linux that there is.
const TICKS: f64 = 100.0;

/// User and system seconds of this process (`own`) or of its children that have ended, from `/proc/self/stat`.
fn processor_time(own: bool) -> (f64, f64) {
    times("/proc/self/stat", if own { 11 } else { 13 })
}

/// Two fields that follow each other of a file of the kernel's accounting, in seconds.
fn times(stat: &str, at: usize) -> (f64, f64) {
    let stat = std::fs::read_to_string(stat).unwrap();
    // Fields are counted behind the name, which may hold anything: utime is the twelfth.
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap().split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    (fields[at] / TICKS, fields[at + 1] / TICKS)
}

/// What this process took since it began to count.
pub fn own(since: Instant) -> Took {
    let (user, system) = processor_time(true);
    Took { wall: since.elapsed().as_secs_f64(), user, system, peak: 0 }
}

/// User and system seconds that another process has taken so far.
pub fn of_process(pid: u32) -> Took {
    let (user, system) = times(&format!("/proc/{pid}/stat"), 11);
    Took { user, system, ..Took::default() }
}

/// Most memory that another process has held so far, in bytes.
pub fn peak_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Runs a program to its end and returns what it took, its children included, and what it printed.
pub fn run(program: &str, args: &[&str]) -> (Took, String) {
    let mut command = Command::new("time");
    let peak = tempfile::NamedTempFile::new().unwrap();
    command.args(["--quiet", "--format=%M", "--output"]).arg(peak.path()).arg(program).args(args);
    // What earlier runs left to be written is not this one's.
    Command::new("sync").status().unwrap();
    let (begun, before) = (Instant::now(), processor_time(false));
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("time (of the package of that name) cannot be started: {error}"));
    let wall = begun.elapsed().as_secs_f64();
    let after = processor_time(false);
    assert!(output.status.success(), "{program} {args:?}: {}", output.status);
    let peak = std::fs::read_to_string(peak.path()).unwrap().trim().parse::<u64>().unwrap() * 1024;
    let took = Took { wall, user: after.0 - before.0, system: after.1 - before.1, peak };
    (took, String::from_utf8(output.stdout).unwrap())
}

/// All rounds of all measurements, by name.
#[derive(Debug, Default)]
pub struct Rounds(BTreeMap<String, Vec<Took>>);

/// Median, smallest and largest of some values.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Rounds {
    /// Adds a run to those of its name.
    pub fn add(&mut self, name: &str, took: Took) {
        self.0.entry(name.to_owned()).or_default().push(took);
    }

    /// Whether there are runs of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Runs of this name.
    pub fn count(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, Vec::len)
    }

    /// Median and range of one measure of the runs of a name, of which there must be some.
    pub fn spread(&self, name: &str, measure: fn(Took) -> f64) -> Spread {
        let mut values: Vec<f64> = self.0[name].iter().map(|took| measure(*took)).collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Spread { median, least: values[0], most: values[values.len() - 1] }
    }

    /// Most memory of the largest process in any run of a name, in bytes.
    pub fn peak(&self, name: &str) -> u64 {
        self.0[name].iter().map(|took| took.peak).max().unwrap_or(0)
    }

    /// A row of the table: processor and wall seconds, as medians with their range, and both as multiples of the limit's medians.
    pub fn row(&self, label: &str, name: &str, limit: &str) -> String {
        let user = self.spread(name, |took| took.user).median;
        let (cpu, wall) = (self.spread(name, Took::cpu), self.spread(name, |took| took.wall));
        let times = |value: Spread, measure| {
            let limit = self.spread(limit, measure).median;
            if limit > 0.0 { format!("{:.2}", value.median / limit) } else { "-".into() }
        };
        format!(
            "| {label} | {user:.2} | {cpu} | {wall} | {} | {} |",
            times(cpu, Took::cpu),
            times(wall, |took| took.wall)
        )
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} [{:.2}-{:.2}]", self.median, self.least, self.most)
    }
}

/// Stages of a run in this process, told by the engine.
#[derive(Debug)]
pub struct Stages {
    since: Instant,
    last: Took,
    name: String,
    sums: BTreeMap<String, Took>,
}

impl Stages {
    /// Begins to count, in a stage called `start`.
    #[expect(clippy::new_without_default, reason = "the clock starts here")]
    pub fn new() -> Self {
        let since = Instant::now();
        Self { since, last: own(since), name: "start".into(), sums: BTreeMap::new() }
    }

    /// Ends the stage before and begins another.
    pub fn begin(&mut self, name: &str) {
        let now = own(self.since);
        let took = now.minus(self.last);
        let sum = self.sums.entry(std::mem::replace(&mut self.name, name.to_owned())).or_default();
        *sum =
            Took { wall: sum.wall + took.wall, user: sum.user + took.user, system: sum.system + took.system, peak: 0 };
        self.last = now;
    }

    /// `[wall, user, system]` of each stage, as JSON.
    pub fn json(mut self) -> serde_json::Value {
        self.begin("end");
        self.sums
            .into_iter()
            .map(|(name, took)| (name, serde_json::json!([took.wall, took.user, took.system])))
            .collect()
    }
}
