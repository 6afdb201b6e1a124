//! Measures restores and clones against the limit and the peers: one table, as benches/README.md has it.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use serde_json::Value;

use hikae_benches::measure::{Rounds, Took, run};

#[derive(Debug, Parser)]
struct Arguments {
    /// Size of the disk in MiB, up to 3072.
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Rounds that count; one more comes first and does not.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// What the disk is filled with.
    #[arg(long, default_value = "ntfs", value_parser = ["ntfs", "ext4"])]
    disk: String,
    /// Where disks and images lie: about eight times the size of the disk.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Threads of hikae and of the limit.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.folder).unwrap();
    let size = arguments.size.to_string();
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("make-disk");
    let status = Command::new(make).args([&arguments.disk, &size]).arg(&arguments.folder).status().unwrap();
    assert!(status.success(), "make-disk failed");
    Bench::new(arguments).run();
}

/// A loop device for the length of the bench.
struct Loop(String);

impl Loop {
    fn new(file: &str) -> Self {
        Self(run("losetup", &["--show", "-f", file]).1.trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Best effort: the bench is over.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

struct Bench {
    arguments: Arguments,
    folder: PathBuf,
    programs: PathBuf,
    rounds: Rounds,
    /// Bytes that hikae wrote, by what it did.
    written: Vec<(&'static str, u64)>,
}

/// What is run on a device or file.
type Case = fn(&mut Bench, u32);

impl Bench {
    fn new(arguments: Arguments) -> Self {
        let programs = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let folder = arguments.folder.canonicalize().unwrap();
        Self { arguments, folder, programs, rounds: Rounds::default(), written: Vec::new() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn disk(&self, suffix: &str) -> String {
        self.path(&format!("{}-{}{suffix}.raw", self.arguments.disk, self.arguments.size))
    }

    fn program(&self, name: &str) -> String {
        self.programs.join(name).to_str().unwrap().to_owned()
    }

    fn add(&mut self, round: u32, name: &str, took: Took) {
        if round > 0 {
            self.rounds.add(name, took);
        }
    }

    fn other(&mut self, round: u32, name: &str, program: &str, args: &[&str]) {
        let (took, _) = run(program, args);
        self.add(round, name, took);
    }

    fn limit(&mut self, round: u32, name: &str, args: &[&str]) {
        let threads = self.arguments.threads.to_string();
        let (took, _) = run(&self.program("bench-limit"), &[&["--threads", &threads], args].concat());
        self.add(round, name, took);
    }

    /// Runs a command that writes to a device or file, with the guard's consent.
    fn hikae(&mut self, round: u32, name: &'static str, args: &[&str], device: Option<&str>) {
        let threads = self.arguments.threads.to_string();
        let hikae = self.program("hikae");
        let id = device.map(|device| target_id(&hikae, device));
        let undo = self.path("undo");
        let mut all = [args, &["--threads", &threads, "--json", "--yes"]].concat();
        if let Some(id) = &id {
            // The saved tables of the round before are of no use.
            let _ = std::fs::remove_file(&undo);
            all.extend(["--target-id", id, "--undo", &undo]);
        }
        let (took, out) = run(&hikae, &all);
        self.add(round, name, took);
        // Lines of progress come before the report, which is the last document.
        let report = serde_json::Deserializer::from_str(&out).into_iter::<Value>().map(Result::unwrap).last().unwrap();
        if round == 0
            && let Some(written) = report["written"].as_u64()
        {
            self.written.push((name, written));
        }
    }

    fn run(mut self) {
        let (disk, part, partclone) = (self.disk(""), self.path("part"), self.path("c.zst"));
        let (image, changed, limit) = (self.path("b.hik"), self.path("changed.hik"), self.path("l.bin"));
        for name in [&image, &changed] {
            let _ = std::fs::remove_file(name);
        }
        let hikae = self.program("hikae");
        run(&hikae, &["capture", "--compression", "zstd:1", &disk, &image]);
        run(&hikae, &["capture", "--compression", "zstd:1", &self.disk("-changed"), &changed]);
        let ranges = self.path("ranges");
        std::fs::write(&ranges, format!("0 {}\n", self.arguments.size << 20)).unwrap();
        run(&self.program("bench-limit"), &["store", &disk, &ranges, &limit]);
        run("qemu-img", &["convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", &disk, &self.path("q.qcow2")]);
        // partclone reads and writes partitions.
        run("dd", &[&format!("if={disk}"), &format!("of={part}"), "bs=1M", "skip=1", "conv=sparse", "status=none"]);
        let source = Loop::new(&part);
        let partclone_of = format!("partclone.{}", if self.arguments.disk == "ntfs" { "ntfs" } else { "extfs" });
        let script = format!("{partclone_of} -c -s {} -o - 2>/dev/null | zstd -q -1 -T2 -f -o {partclone}", source.0);
        run("sh", &["-c", &script]);
        drop(source);
        for round in 0..=self.arguments.rounds {
            eprintln!("round {round} of {}", self.arguments.rounds);
            self.files(round);
            self.device(round);
            self.differences(round);
        }
        self.print();
    }

    /// Runs both kinds in an order that alternates: the page cache remembers.
    fn alternating(&mut self, round: u32, cases: &[Case]) {
        for at in 0..cases.len() {
            let at = (at + usize::try_from(round).unwrap()) % cases.len();
            cases[at](self, round);
        }
    }

    /// Onto a file that is there already: a new one takes its place.
    fn files(&mut self, round: u32) {
        self.alternating(
            round,
            &[
                |bench, round| {
                    bench.limit(round, "file limit", &["decode", &bench.path("l.bin"), &bench.path("t.raw")])
                },
                |bench, round| {
                    bench.hikae(round, "file", &["restore", &bench.path("b.hik"), &bench.path("t.raw")], None);
                },
                |bench, round| {
                    // It writes into the file that is there; like the others it shall make a new one, and have it on the medium.
                    let (from, new, to) = (bench.path("q.qcow2"), bench.path("t.new"), bench.path("t.raw"));
                    let script = format!("qemu-img convert -O raw {from} {new} && sync {new} && mv {new} {to}");
                    bench.other(round, "file qemu", "sh", &["-ec", &script]);
                },
            ],
        );
    }

    fn device(&mut self, round: u32) {
        let target = self.path("device.raw");
        // All of them write to allocated blocks: what a physical disk has.
        if !Path::new(&target).exists() {
            run("cp", &["--sparse=never", &self.disk(""), &target]);
        }
        self.alternating(
            round,
            &[
                |bench, round| {
                    let device = Loop::new(&bench.path("device.raw"));
                    bench.limit(round, "device limit", &["decode", &bench.path("l.bin"), &device.0]);
                },
                |bench, round| {
                    let device = Loop::new(&bench.path("device.raw"));
                    let image = bench.path("b.hik");
                    bench.hikae(round, "device", &["restore", &image, &device.0], Some(&device.0));
                },
                |bench, round| {
                    let device = Loop::new(&bench.path("device.raw"));
                    let script =
                        format!("qemu-img convert -n -O raw {} {1} && sync {1}", bench.path("q.qcow2"), device.0);
                    bench.other(round, "device qemu", "sh", &["-ec", &script]);
                },
                |bench, round| {
                    let device = Loop::new(&bench.path("device.raw"));
                    let script = format!(
                        "zstd -q -d -c {} | partclone.restore -s - -o {1} >/dev/null 2>&1 && sync {1}",
                        bench.path("c.zst"),
                        device.0
                    );
                    bench.other(round, "device partclone", "sh", &["-ec", &script]);
                },
            ],
        );
    }

    /// The second run, after small changes: what differs is written, everything is read.
    fn differences(&mut self, round: u32) {
        self.alternating(
            round,
            &[
                |bench, round| bench.delta(round),
                |bench, round| bench.clone(round),
                |bench, round| bench.compare(round),
            ],
        );
    }

    /// The target holds the disk; what is wanted is the disk with 3 % of its pages changed.
    fn fresh_target(&self) -> Loop {
        run("cp", &["--sparse=never", &self.disk(""), &self.path("device.raw")]);
        Loop::new(&self.path("device.raw"))
    }

    fn delta(&mut self, round: u32) {
        let device = self.fresh_target();
        self.hikae(round, "delta", &["restore", "--delta", &self.path("changed.hik"), &device.0], Some(&device.0));
    }

    fn clone(&mut self, round: u32) {
        let device = self.fresh_target();
        self.hikae(round, "clone", &["clone", &self.disk("-changed"), &device.0], Some(&device.0));
        self.hikae(round, "clone again", &["clone", &self.disk("-changed"), &device.0], Some(&device.0));
        if round == 0 {
            // What is in use is equal; what is not was left alone.
            self.other(
                0,
                "",
                &self.program("hikae"),
                &["capture", "--same-disk", &device.0, &self.path("changed.hik")],
            );
        }
    }

    /// Reads both to the end, as cmp does where nothing differs.
    fn compare(&mut self, round: u32) {
        let device = self.fresh_target();
        self.other(round, "cmp", "cmp", &[&self.disk(""), &device.0]);
    }

    fn print(&self) {
        let Arguments { size, rounds, disk, .. } = &self.arguments;
        println!("\n### {disk} of {size} MiB, zstd 1, {rounds} rounds\n");
        for (what, bytes) in &self.written {
            println!("- written by {what}: {:.1} MiB", *bytes as f64 / 1_048_576.0);
        }
        println!(
            "\n| | user s | CPU s [range] | wall s [range] | x limit CPU | x limit wall |\n|---|--:|--:|--:|--:|--:|"
        );
        let row = |label: &str, name: &str, limit: &str| println!("{}", self.rounds.row(label, name, limit));
        row("**restore to a file**: limit", "file limit", "file limit");
        row("restore to a file: hikae", "file", "file limit");
        row("restore to a file: qemu-img convert", "file qemu", "file limit");
        row("**restore to a loop device**: limit", "device limit", "device limit");
        row("restore to a loop device: hikae", "device", "device limit");
        row("restore to a loop device: qemu-img convert -n", "device qemu", "device limit");
        row("restore to a loop device: zstd -d, partclone.restore", "device partclone", "device limit");
        row("**cmp of the two disks**", "cmp", "cmp");
        row("clone, 3 % of the pages changed", "clone", "cmp");
        row("clone, nothing changed", "clone again", "cmp");
        row("restore --delta, 3 % of the pages changed", "delta", "cmp");
    }
}

/// The identity of a device as `hikae disks` shows it now.
fn target_id(hikae: &str, device: &str) -> String {
    let disks: Value = serde_json::from_str(&run(hikae, &["disks", "--json"]).1).unwrap();
    let disk = disks.as_array().unwrap().iter().find(|disk| disk["path"] == device).unwrap();
    disk["target_id"].as_str().unwrap().to_owned()
}
