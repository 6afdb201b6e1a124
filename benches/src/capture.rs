//! Captures real disks, proves and restores them, each step next to the limit (`bench-limit`) doing the same, and prints tables.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use clap::Parser;
use hikae_benches::measure::{Rounds, Stages, Took, run};
use imgfmt::capture::plan::{PlanOptions, plan};
use imgfmt::capture::planned::PlannedDisk;
use imgfmt::capture::{CaptureOptions, CaptureSource, capture};
use imgfmt::engine::{Cancel, Progress, Run};
use imgfmt::image::codec::Compression;
use imgfmt::image::record::Source;
use imgfmt::image::{FolderStore, PackStore, WriterOptions};
use imgfmt::source::FileDisk;
use imgfmt::{Disk, ExtentKind};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Arguments {
    /// Size of each disk in MiB, up to 3072.
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Rounds that count; one more comes first and does not.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Only this one.
    #[arg(long, value_parser = ["ntfs", "ext4"])]
    disk: Option<String>,
    /// Where disks and images lie: about six times the size of a disk.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// zstd level of both.
    #[arg(long, default_value_t = 1)]
    level: i32,
    /// Threads of both.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Captures a disk in this process and prints what each stage took (used by the rounds).
    #[arg(long, num_args = 2, value_names = ["SOURCE", "IMAGE"], hide = true)]
    stages: Option<Vec<PathBuf>>,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(paths) = &arguments.stages {
        println!("{}", stages(&arguments, &paths[0], &paths[1]));
        return;
    }
    std::fs::create_dir_all(&arguments.folder).unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for kind in ["ntfs", "ext4"] {
        if arguments.disk.as_deref().is_some_and(|only| only != kind) {
            continue;
        }
        let status = Command::new(top.join("make-disk"))
            .args([kind, &arguments.size.to_string()])
            .arg(&arguments.folder)
            .status()
            .unwrap();
        assert!(status.success(), "make-disk failed");
        Bench::new(&arguments, kind).run();
    }
}

/// Hands the engine's stages to [`Stages`].
struct Watch(Mutex<Stages>);

impl Progress for Watch {
    fn begin(&self, stage: &str, _: u64) {
        self.0.lock().unwrap().begin(stage);
    }
    fn advance(&self, _: u64) {}
    fn note(&self, message: &str) {
        eprintln!("{message}");
    }
}

/// One capture, as the command line does it, with what each of its stages took.
fn stages(arguments: &Arguments, source: &Path, image: &Path) -> Value {
    let watch = Watch(Mutex::new(Stages::new()));
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(source, 512).unwrap());
    let identity = Source { path: source.display().to_string(), kind: "file".into(), ..Source::default() };
    let source = CaptureSource { disk, identity, physical_sector_size: 512 };
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(image, &[]).unwrap());
    let writer = WriterOptions { compression: Compression::Zstd(arguments.level), ..WriterOptions::default() };
    let options = CaptureOptions { writer, ..CaptureOptions::default() };
    let cancel = Cancel::default();
    let run = Run { threads: arguments.threads, cancel: &cancel, progress: &watch };
    let captured = capture(&source, store, &options, run).unwrap();
    json!({
        "stages": watch.0.into_inner().unwrap().json(),
        "sync": captured.timings.sync.as_secs_f64(),
        "commit": captured.timings.commit.as_secs_f64(),
        "record": captured.record,
    })
}

/// Writes the runs that a capture of `disk` reads, for the limit. Returns their bytes.
fn write_ranges(disk: &Path, out: &Path) -> u64 {
    let source: Arc<dyn Disk> = Arc::new(FileDisk::open(disk, 512).unwrap());
    let plan = plan(&source, PlanOptions::default()).unwrap();
    let planned = PlannedDisk::new(source, &plan.unwanted, &plan.elided);
    let (mut text, mut at, mut sum) = (String::new(), 0, 0);
    while at < planned.len() {
        let extent = planned.extent_at(at).unwrap();
        if extent.kind == ExtentKind::Data {
            writeln!(text, "{} {}", extent.offset, extent.len).unwrap();
            sum += extent.len;
        }
        at = extent.end();
    }
    std::fs::write(out, text).unwrap();
    sum
}

/// The rounds on one disk.
struct Bench<'a> {
    arguments: &'a Arguments,
    kind: &'a str,
    folder: PathBuf,
    programs: PathBuf,
    rounds: Rounds,
    /// Bytes: of the disk, read, stored by the limit, by hikae, by qemu-img; added by the changed disk to both.
    facts: Vec<(&'static str, u64)>,
}

impl<'a> Bench<'a> {
    fn new(arguments: &'a Arguments, kind: &'a str) -> Self {
        let programs = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let folder = arguments.folder.canonicalize().unwrap();
        Self { arguments, kind, folder, programs, rounds: Rounds::default(), facts: Vec::new() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn program(&self, name: &str) -> String {
        self.programs.join(name).to_str().unwrap().to_owned()
    }

    fn remove(&self, prefixes: &[&str]) {
        for entry in std::fs::read_dir(&self.folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                std::fs::remove_file(&path).unwrap();
            }
        }
    }

    fn limit(&mut self, round: u32, name: &str, args: &[&str]) -> Value {
        let threads = self.arguments.threads.to_string();
        let (took, out) = run(&self.program("bench-limit"), &[&["--threads", &threads], args].concat());
        let told: Value = serde_json::from_str(&out).unwrap();
        if round > 0 {
            self.rounds.add(name, took);
            let sync = Took { wall: told["sync"].as_f64().unwrap(), ..Took::default() };
            self.rounds.add(&format!("{name} sync"), sync);
        }
        told
    }

    fn hikae(&mut self, round: u32, name: &str, args: &[&str]) -> Value {
        let threads = self.arguments.threads.to_string();
        let (took, out) = run(&self.program("hikae"), &[args, &["--threads", &threads, "--json"]].concat());
        if round > 0 {
            self.rounds.add(name, took);
        }
        serde_json::from_str(&out).unwrap()
    }

    /// A capture whose stages count apart: start-up, storing, closure check, fsync.
    fn stages(&mut self, round: u32, name: &str, source: &str, image: &str) -> Value {
        let (threads, level) = (self.arguments.threads.to_string(), self.arguments.level.to_string());
        let me = self.program("bench-capture");
        let (_, out) = run(&me, &["--threads", &threads, "--level", &level, "--stages", source, image]);
        let told: Value = serde_json::from_str(&out).unwrap();
        if round == 0 {
            return told;
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
            self.rounds.add(&format!("{name} {part}"), took);
        }
        self.rounds.add(&format!("{name} sync"), Took { wall: sync, ..Took::default() });
        self.rounds.add(&format!("{name} commit"), Took { wall: commit, ..Took::default() });
        told
    }

    fn run(mut self) {
        let base = format!("{}-{}", self.kind, self.arguments.size);
        let (disk, changed) = (self.path(&format!("{base}.raw")), self.path(&format!("{base}-changed.raw")));
        let (ranges, changed_ranges) = (self.path("ranges"), self.path("changed.ranges"));
        let read = write_ranges(Path::new(&disk), Path::new(&ranges));
        write_ranges(Path::new(&changed), Path::new(&changed_ranges));
        self.facts.push(("read", read));
        for round in 0..=self.arguments.rounds {
            eprintln!("{}: round {round} of {}", self.kind, self.arguments.rounds);
            self.round(round, (&disk, &ranges), (&changed, &changed_ranges));
        }
        self.remove(&["b.", "s.", "l.", "m.", "q.", "e.", "d.", "r."]);
        self.print();
    }

    fn round(&mut self, round: u32, (disk, ranges): (&str, &str), (changed, changed_ranges): (&str, &str)) {
        self.remove(&["b.", "s.", "l.", "m.", "q.", "e.", "d.", "r."]);
        let (image, staged, limit, more) =
            (self.path("b.hik"), self.path("s.hik"), self.path("l.bin"), self.path("m.bin"));
        let (level, compression) = (self.arguments.level.to_string(), format!("zstd:{}", self.arguments.level));
        let store = ["store", disk, ranges, &limit, "--level", &level];
        let capture = |disk| ["capture", disk, image.as_str(), "--compression", compression.as_str()];

        // Which of the two comes first alternates: the page cache remembers.
        let first = round.is_multiple_of(2);
        if first {
            self.limit(round, "full limit", &store);
        }
        let ours = self.hikae(round, "full", &capture(disk));
        self.stages(round, "full", disk, &staged);
        if !first {
            self.limit(round, "full limit", &store);
        }
        let packed = self.path("q.qcow2");
        let args = ["convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", disk, &packed];
        let (took, _) = run("qemu-img", &args);
        if round > 0 {
            self.rounds.add("full qemu", took);
        } else {
            self.facts.push(("hikae stored", ours["record"]["counts"]["stored"].as_u64().unwrap()));
            self.facts.push(("limit stored", std::fs::metadata(&limit).unwrap().len()));
            self.facts.push(("qemu-img stored", std::fs::metadata(&packed).unwrap().len()));
            let closures: Vec<_> =
                ours["record"]["partitions"].as_array().unwrap().iter().map(|p| &p["closure"]).collect();
            eprintln!("closure: {closures:?}");
        }
        self.remove(&["q."]);

        let (out, theirs) = (self.path("e.raw"), self.path("d.raw"));
        for half in 0..2 {
            if (half == 0) == first {
                self.limit(round, "verify limit", &["decode", &limit]);
                self.limit(round, "export limit", &["decode", &limit, &theirs]);
                self.limit(round, "restore limit", &["decode", &limit, &theirs]);
            } else {
                self.hikae(round, "verify", &["verify", &image]);
                self.hikae(round, "export", &["export", "--overwrite", &image, &out]);
                self.hikae(round, "restore", &["restore", "--yes", &image, &self.path("r.raw")]);
            }
        }
        if round == 0 {
            // Both hold what was wanted, and zeros elsewhere; the limit's file ends with its last chunk.
            let len = std::fs::metadata(&theirs).unwrap().len().min(std::fs::metadata(&out).unwrap().len());
            run("cmp", &["-n", &len.to_string(), &out, &theirs]);
            run("cmp", &[&out, &self.path("r.raw")]);
        }
        self.remove(&["e.", "d.", "r."]);

        for half in 0..2 {
            if (half == 0) == first {
                self.limit(round, "unchanged limit", &["hash", disk, ranges]);
            } else {
                self.hikae(round, "unchanged", &capture(disk));
                self.stages(round, "unchanged", disk, &staged);
            }
        }
        let known = ["store", changed, changed_ranges, &more, "--level", &level, "--known", &limit];
        for half in 0..2 {
            if (half == 0) == first {
                self.limit(round, "changed limit", &known);
            } else {
                let ours = self.hikae(round, "changed", &capture(changed));
                self.stages(round, "changed", changed, &staged);
                if round == 0 {
                    self.facts.push((
                        "hikae added for the changed disk",
                        ours["record"]["counts"]["stored"].as_u64().unwrap(),
                    ));
                }
            }
        }
        if round == 0 {
            self.facts.push(("limit added for the changed disk", std::fs::metadata(&more).unwrap().len()));
        }
    }

    fn print(&self) {
        let (size, rounds) = (self.arguments.size, self.arguments.rounds);
        println!("\n### {} of {size} MiB, zstd {}, {rounds} rounds\n", self.kind, self.arguments.level);
        for (what, bytes) in &self.facts {
            println!("- {what}: {:.1} MiB", *bytes as f64 / 1_048_576.0);
        }
        println!(
            "\n| | user s | CPU s [range] | wall s [range] | x limit CPU | x limit wall |\n|---|--:|--:|--:|--:|--:|"
        );
        let row = |label: &str, name: &str, limit: &str| println!("{}", self.rounds.row(label, name, limit));
        for (what, name) in [("full capture", "full"), ("unchanged", "unchanged"), ("3 % changed", "changed")] {
            let limit = format!("{name} limit");
            row(&format!("**{what}**: limit"), &limit, &limit);
            row(&format!("{what}: hikae, whole command"), name, &limit);
            row("- of it storing", &format!("{name} store"), &limit);
            row("- of it closure check", &format!("{name} check"), &limit);
            row("- of it start-up", &format!("{name} start"), &limit);
            row("- of it fsync (the limit's beside it below)", &format!("{name} sync"), &limit);
            if name != "unchanged" {
                row("- fsync of the limit", &format!("{limit} sync"), &limit);
            }
            if name == "full" {
                row("full capture: qemu-img convert -c, zstd", "full qemu", &limit);
            }
        }
        for (what, name) in [("verify", "verify"), ("export", "export"), ("restore to a file", "restore")] {
            let limit = format!("{name} limit");
            row(&format!("**{what}**: limit"), &limit, &limit);
            row(&format!("{what}: hikae"), name, &limit);
        }
    }
}
