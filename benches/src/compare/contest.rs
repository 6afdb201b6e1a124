//! The rounds on one disk: every program does every job, one after the other, in an order that changes from round to round.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hikae_benches::measure::{Rounds, Took, run};
use serde_json::Value;

use crate::peers::{Job, PEERS, Peer};
use crate::stages::write_ranges;
use crate::{Arguments, Kind};

/// Who takes a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// The minimal program.
    Limit,
    /// hikae as it is without options.
    Hikae,
    /// hikae keeping what the programs that know no filesystem keep, at their level of zstd.
    HikaeAll,
    /// Another program.
    Peer(&'static Peer),
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Hikae => "hikae",
            Self::HikaeAll => "hikae all blocks",
            Self::Peer(peer) => peer.name,
        }
    }

    pub(crate) fn remark(self) -> &'static str {
        match self {
            Self::Limit => "the minimal program",
            Self::Hikae => "the whole command",
            Self::HikaeAll => "zstd 3, with unused clusters and the page file",
            Self::Peer(peer) => peer.remark,
        }
    }

    fn does(self, job: Job) -> bool {
        match self {
            // What lay on the disk before is not what the limit's file holds.
            Self::Limit => job != Job::Day,
            Self::Hikae => true,
            Self::HikaeAll => job == Job::Full,
            Self::Peer(peer) => peer.command(job).is_some(),
        }
    }

    /// Whether it takes part in a round of as many as count; 0 is the one that does not.
    fn is_in(self, round: u32, rounds: u32) -> bool {
        match self {
            Self::Peer(peer) if peer.rounds < rounds => (1..=peer.rounds).contains(&round),
            _ => true,
        }
    }

    /// The last job for which the program needs what it stored.
    fn last(self) -> Job {
        *Job::ALL.iter().rfind(|job| self.does(**job)).unwrap()
    }
}

/// A disk and all that was measured on it.
pub(crate) struct Contest<'a> {
    arguments: &'a Arguments,
    pub(crate) kind: Kind,
    folder: PathBuf,
    pub(crate) programs: Vec<Program>,
    /// By `key`, and for parts of a run by `key` and the part.
    pub(crate) rounds: Rounds,
    /// Bytes that a job added to what the program had stored, by `key`.
    pub(crate) stored: BTreeMap<String, u64>,
    /// Bytes that hikae and the limit read, by job.
    pub(crate) read: BTreeMap<Job, u64>,
    /// Pages of 4 KiB that differ in the changed disk, and what they are compressed one by one, in bytes.
    pub(crate) pages: (u64, u64),
}

/// The name of a measurement.
pub(crate) fn key(job: Job, program: &str) -> String {
    format!("{} {program}", job.name())
}

impl<'a> Contest<'a> {
    pub(crate) fn new(arguments: &'a Arguments, kind: Kind) -> Self {
        let wanted = |peer: &&Peer| {
            let named = arguments.peers.is_empty() || arguments.peers.iter().any(|name| peer.name.contains(name));
            named && peer.only.is_none_or(|only| only == kind)
        };
        let mut programs = vec![Program::Limit, Program::Hikae, Program::HikaeAll];
        programs.extend(PEERS.iter().filter(wanted).map(Program::Peer));
        Self {
            arguments,
            kind,
            folder: arguments.folder.canonicalize().unwrap(),
            programs,
            rounds: Rounds::default(),
            stored: BTreeMap::new(),
            read: BTreeMap::new(),
            pages: (0, 0),
        }
    }

    pub(crate) fn run(&mut self) {
        for job in [Job::Full, Job::Changed] {
            let bytes = write_ranges(&self.disk(job), &self.ranges(job));
            self.read.insert(job, bytes);
        }
        let (old, new, ranges) = (self.disk(Job::Full), self.disk(Job::Changed), self.ranges(Job::Changed));
        let level = self.arguments.level.to_string();
        let told = self.bench("bench-limit", &["pages", text(&old), text(&new), text(&ranges), "--level", &level]).1;
        self.pages = (told["pages"].as_u64().unwrap(), told["stored"].as_u64().unwrap());
        for round in 0..=self.arguments.rounds {
            let _ = std::fs::remove_dir_all(self.folder.join("stores"));
            for job in Job::ALL {
                eprintln!("{}: round {round} of {}, {}", self.kind.name(), self.arguments.rounds, job.title());
                for program in self.order(round) {
                    if program.does(job) && program.is_in(round, self.arguments.rounds) {
                        self.turn(round, program, job);
                    }
                }
            }
        }
        let _ = std::fs::remove_dir_all(self.folder.join("stores"));
    }

    /// Hikae and the limit follow each other, now one first, now the other; their place among the others moves.
    fn order(&self, round: u32) -> Vec<Program> {
        let at = usize::try_from(round).unwrap();
        let (mut ours, mut theirs) = (self.programs[..3].to_vec(), self.programs[3..].to_vec());
        if at.is_multiple_of(2) {
            ours.reverse();
            theirs.reverse();
        }
        let place = at % (theirs.len() + 1);
        theirs.splice(place..place, ours);
        theirs
    }

    fn disk(&self, job: Job) -> PathBuf {
        let suffix = match job {
            Job::Full | Job::Verify | Job::Unchanged => "",
            Job::Changed => "-changed",
            Job::Day => "-day",
        };
        self.folder.join(format!("{}-{}{suffix}.raw", self.kind.name(), self.arguments.size))
    }

    fn ranges(&self, job: Job) -> PathBuf {
        self.disk(job).with_extension("ranges")
    }

    /// The folder of what a program stores.
    fn store(&self, program: &str) -> PathBuf {
        self.folder.join("stores").join(program.replace(' ', "-"))
    }

    /// One program does one job.
    fn turn(&mut self, round: u32, program: Program, job: Job) {
        let store = self.store(program.name());
        if job == Job::Full {
            std::fs::create_dir_all(&store).unwrap();
            if let Program::Peer(peer) = program {
                self.peer(peer.prepare, job, &store);
            }
        }
        if job != Job::Verify {
            // Read into the page cache, whoever ran before.
            let mut file = std::fs::File::open(self.disk(job)).unwrap();
            std::io::copy(&mut file, &mut std::io::sink()).unwrap();
        }
        let before = bytes_in(&store);
        let took = match program {
            Program::Limit => self.limit(round, job, &store),
            Program::Hikae => self.hikae(job, &store, &[]),
            Program::HikaeAll => self.hikae(job, &store, &["--all-blocks", "--keep-swap", "--compression", "zstd:3"]),
            Program::Peer(peer) => self.peer(peer.command(job).unwrap(), job, &store),
        };
        let name = key(job, program.name());
        self.stored.insert(name.clone(), bytes_in(&store).saturating_sub(before));
        if round > 0 {
            self.rounds.add(&name, took);
        }
        if matches!(program, Program::Hikae) && job != Job::Verify {
            self.stages(round, job);
        }
        if job == program.last() {
            std::fs::remove_dir_all(&store).unwrap();
        }
    }

    /// Runs one of our programs that prints JSON.
    fn bench(&self, program: &str, args: &[&str]) -> (Took, Value) {
        let programs = std::env::current_exe().unwrap();
        let program = programs.with_file_name(program);
        let threads = self.arguments.threads.to_string();
        let (took, out) = run(text(&program), &[&["--threads", &threads], args].concat());
        (took, serde_json::from_str(&out).unwrap())
    }

    fn limit(&mut self, round: u32, job: Job, store: &Path) -> Took {
        let (disk, ranges) = (self.disk(job), self.ranges(job));
        let (first, more) = (store.join("full.bin"), store.join("changed.bin"));
        let level = self.arguments.level.to_string();
        let args: &[&str] = match job {
            Job::Full => &["store", text(&disk), text(&ranges), text(&first), "--level", &level],
            Job::Verify => &["decode", text(&first)],
            Job::Unchanged => &["hash", text(&disk), text(&ranges)],
            _ => &["store", text(&disk), text(&ranges), text(&more), "--level", &level, "--known", text(&first)],
        };
        let (took, told) = self.bench("bench-limit", args);
        if round > 0 {
            let sync = told["sync"].as_f64().unwrap();
            self.rounds.add(&key(job, "limit sync"), Took { wall: sync, ..Took::default() });
            self.rounds.add(&key(job, "limit work"), Took { wall: took.wall - sync, ..took });
        }
        took
    }

    fn hikae(&self, job: Job, store: &Path, options: &[&str]) -> Took {
        let (disk, image, threads) = (self.disk(job), store.join("disk.hik"), self.arguments.threads.to_string());
        let compression = format!("zstd:{}", self.arguments.level);
        let program = std::env::current_exe().unwrap().with_file_name("hikae");
        let args = match job {
            Job::Verify => vec!["verify", text(&image)],
            _ if options.is_empty() => vec!["capture", text(&disk), text(&image), "--compression", &compression],
            _ => vec!["capture", text(&disk), text(&image)],
        };
        run(text(&program), &[&args, options, &["--threads", &threads, "--json"]].concat()).0
    }

    fn peer(&self, command: &str, job: Job, store: &Path) -> Took {
        if command.is_empty() {
            return Took::default();
        }
        let part = self.disk(Job::Full).with_extension("part");
        let state = self.folder.join("stores").join("state");
        std::fs::create_dir_all(&state).unwrap();
        let fs = if self.kind == Kind::Ntfs { "ntfs" } else { "extfs" };
        let settings = [
            format!("DISK={}", text(&self.disk(job))),
            format!("PART={}", text(&part)),
            format!("FS={fs}"),
            format!("STORE={}", text(store)),
            format!("PATH={}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()),
            format!("HOME={}", text(&state)),
            format!("XDG_CACHE_HOME={}", text(&state)),
            format!("BORG_BASE_DIR={}", text(&state)),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes".into(),
            format!("RESTIC_REPOSITORY={}/repo", text(store)),
            "RESTIC_PASSWORD=bench".into(),
        ];
        let mut args: Vec<&str> = settings.iter().map(String::as_str).collect();
        args.extend(["bash", "-euo", "pipefail", "-c", command]);
        run("env", &args).0
    }

    /// A capture whose stages count apart: start-up, storing, closure check, fsync.
    fn stages(&mut self, round: u32, job: Job) {
        let (disk, store) = (self.disk(job), self.store("stages"));
        std::fs::create_dir_all(&store).unwrap();
        let image = store.join("disk.hik");
        let level = self.arguments.level.to_string();
        let (_, told) = self.bench("bench-compare", &["--level", &level, "--stages", text(&disk), text(&image)]);
        if round == 0 {
            return;
        }
        let sync = told["sync"].as_f64().unwrap();
        let commit = told["commit"].as_f64().unwrap();
        for (stage, took) in told["stages"].as_object().unwrap() {
            let number = |at: usize| took[at].as_f64().unwrap();
            let mut took = Took { wall: number(0), user: number(1), system: number(2), peak: 0 };
            let part = match stage.as_str() {
                "planning" => "start",
                "capturing" => "store",
                "checking that nothing is missing" => {
                    // The engine tells of no stage behind this one: what it commits is in it.
                    took.wall -= sync + commit;
                    "check"
                }
                _ => continue,
            };
            self.rounds.add(&key(job, part), took);
        }
        self.rounds.add(&key(job, "sync"), Took { wall: sync, ..Took::default() });
        self.rounds.add(&key(job, "commit"), Took { wall: commit, ..Took::default() });
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Bytes in all files below a folder.
fn bytes_in(folder: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        sum += if metadata.is_dir() { bytes_in(&entry.path()) } else { metadata.len() };
    }
    sum
}
