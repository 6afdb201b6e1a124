//! Measures mounts against the limit and the peers, first listings, and `log` and `diff`: the tables of benches/README.md.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use clap::Parser;
use hikae_benches::measure::{Rounds, Took, run};
use hikae_benches::shown::Server;
use imgfmt::filesystem::files::FileSystem;
use imgfmt::format::identity::Identity;
use imgfmt::source::FileDisk;
use imgfmt::tree::resolve::resolve;
use imgfmt::tree::{Tree, TreeOptions};

/// Readers at once, in one of the measurements.
const READERS: u64 = 16;

#[derive(Debug, Parser)]
struct Arguments {
    /// Size of the disk that is read in MiB.
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Rounds that count; one more comes first and does not.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Generations of the history.
    #[arg(long, default_value_t = 50)]
    generations: u32,
    /// Where disks and images lie: about six times the size of the disk.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
}

fn main() {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.folder).unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let size = arguments.size.to_string();
    for (make, words) in [("make-files", vec![&*size]), ("make-disk", vec!["ntfs", &size])] {
        let status = Command::new(top.join(make)).args(words).arg(&arguments.folder).status().unwrap();
        assert!(status.success(), "{make} failed");
    }
    Bench::new(arguments).run();
}

struct Bench {
    arguments: Arguments,
    folder: PathBuf,
    programs: PathBuf,
    rounds: Rounds,
}

impl Bench {
    fn new(arguments: Arguments) -> Self {
        let programs = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let folder = arguments.folder.canonicalize().unwrap();
        Self { arguments, folder, programs, rounds: Rounds::default() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn program(&self, name: &str) -> String {
        self.programs.join(name).to_str().unwrap().to_owned()
    }

    fn large(&self) -> String {
        self.path(&format!("large-{}.raw", self.arguments.size))
    }

    fn add(&mut self, round: u32, name: &str, took: Took) {
        if round > 0 {
            self.rounds.add(name, took);
        }
    }

    fn run(mut self) {
        self.prepare();
        for round in 0..=self.arguments.rounds {
            eprintln!("round {round} of {}", self.arguments.rounds);
            self.sequential(round);
            self.first_listing(round);
            self.history(round);
        }
        self.print();
    }

    /// One image of each kind.
    fn prepare(&self) {
        let (large, mnt) = (self.large(), self.path("mnt"));
        // Images have further packs, and files beside them.
        let old = "rm -rf large.hik* many.hik* history.hik* history.[0-9]*.hik restic borg q.qcow2 l.sq";
        run("sh", &["-ec", &format!("cd {}; {old}", self.folder.display())]);
        std::fs::create_dir_all(&mnt).unwrap();
        std::fs::write(self.path("export"), "").unwrap();
        let hikae = self.program("hikae");
        run(&hikae, &["capture", "--compression", "zstd:1", &large, &self.path("large.hik")]);
        run(&hikae, &["capture", "--compression", "zstd:1", &self.path("many.raw"), &self.path("many.hik")]);
        let ranges = self.path("ranges");
        std::fs::write(&ranges, format!("0 {}\n", self.arguments.size << 20)).unwrap();
        run(&self.program("bench-limit"), &["store", &large, &ranges, &self.path("l.bin")]);
        write_runs(Path::new(&large), b"/p1/large", Path::new(&self.path("runs")));
        run(
            "qemu-img",
            &["convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", &large, &self.path("q.qcow2")],
        );
        run(
            "mksquashfs",
            &[
                &large,
                &self.path("l.sq"),
                "-comp",
                "zstd",
                "-Xcompression-level",
                "1",
                "-b",
                "64K",
                "-quiet",
                "-no-progress",
            ],
        );
        let script = format!(
            "export RESTIC_PASSWORD=bench; restic -q init -r {0}/restic; restic -q -r {0}/restic backup {large}
            borg init -e none {0}/borg; borg create --compression zstd,1 --chunker-params fixed,65536 {0}/borg::a {large}",
            self.folder.display()
        );
        run("sh", &["-ec", &script]);
        self.make_history();
    }

    /// A disk with many files, captured again and again, a few of them changed each time.
    fn make_history(&self) {
        let script = format!(
            "cd {}; cp --sparse=always ntfs-{}.raw h.raw; loop=$(losetup --show -f -o 1048576 h.raw)
            trap 'losetup -d $loop; rm h.raw' EXIT
            for g in $(seq {}); do
                ntfs-3g $loop mnt; echo $g > mnt/changed; if [ $((g % 5)) = 0 ]; then echo $g >> mnt/seldom; fi
                mkdir mnt/new$g; for n in 1 2 3 4 5; do echo $g $n > mnt/new$g/$n; done; umount mnt
                {} capture --compression zstd:1 h.raw history.hik
            done",
            self.folder.display(),
            self.arguments.size,
            self.arguments.generations,
            self.program("hikae")
        );
        run("sh", &["-ec", &script]);
    }

    /// One server of each kind reads the same disk, in an order that alternates.
    fn sequential(&mut self, round: u32) {
        let kinds = ["limit", "hikae", "qemu", "squashfuse", "borg", "restic"];
        for at in 0..kinds.len() {
            let kind = kinds[(at + usize::try_from(round).unwrap()) % kinds.len()];
            let (server, shown) = self.serve(kind);
            self.add(
                round,
                &format!("disk {kind}"),
                server.measured(&format!("dd if={shown} of=/dev/null bs=1M status=none")),
            );
            if round == 0 {
                run("cmp", &[&self.large(), &shown]);
            }
            drop(server);
            if kind == "limit" || kind == "hikae" {
                let (server, shown) = self.serve(kind);
                self.add(round, &format!("parallel {kind}"), server.measured(&self.parallel(&shown)));
                drop(server);
                let (server, _) = self.serve(kind);
                let file = self.path(if kind == "limit" { "mnt/file" } else { "mnt/p1/large" });
                self.add(
                    round,
                    &format!("file {kind}"),
                    server.measured(&format!("dd if={file} of=/dev/null bs=1M status=none")),
                );
            }
        }
    }

    /// Readers at once, each of its own part.
    fn parallel(&self, shown: &str) -> String {
        let part = self.arguments.size / READERS;
        format!(
            "for n in $(seq 0 {}); do dd if={shown} of=/dev/null bs=1M skip=$((n * {part})) count={part} status=none & done; wait",
            READERS - 1
        )
    }

    fn serve(&self, kind: &str) -> (Server, String) {
        let mnt = self.path("mnt");
        let disk = self.path("mnt/disk.raw");
        let (program, args, shown): (String, Vec<String>, String) = match kind {
            "limit" => (
                self.program("bench-limit-mount"),
                vec![self.path("l.bin"), (self.arguments.size << 20).to_string(), mnt.clone(), self.path("runs")],
                disk,
            ),
            "hikae" => {
                let image = format!("{}@latest", self.path("large.hik"));
                (self.program("hikae"), vec!["mount".into(), "--foreground".into(), image, mnt.clone()], disk)
            }
            "qemu" => {
                let export = self.path("export");
                let args = [
                    "--blockdev",
                    &format!("driver=file,node-name=f,filename={},read-only=on", self.path("q.qcow2")),
                    "--blockdev",
                    "driver=qcow2,node-name=q,file=f,read-only=on",
                    "--export",
                    &format!("type=fuse,id=e,node-name=q,mountpoint={export},writable=off"),
                ];
                ("qemu-storage-daemon".into(), args.map(str::to_owned).to_vec(), export)
            }
            "squashfuse" => {
                let shown = format!("{mnt}/large-{}.raw", self.arguments.size);
                ("squashfuse_ll".into(), vec!["-f".into(), self.path("l.sq"), mnt.clone()], shown)
            }
            "borg" => {
                let args = vec!["mount".into(), "-f".into(), format!("{}::a", self.path("borg")), mnt.clone()];
                ("borg".into(), args, format!("{mnt}{}", self.large()))
            }
            _ => {
                let args = ["-q", "-r", &self.path("restic"), "mount", "--no-lock", &mnt].map(str::to_owned).to_vec();
                ("restic".into(), args, format!("{mnt}/snapshots/latest{}", self.large()))
            }
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        (Server::start(&program, &args, &mnt, &shown, kind != "qemu"), shown)
    }

    /// From an image at rest to the names in two of its folders, through a mount; and by the command alone.
    fn first_listing(&mut self, round: u32) {
        let (mnt, hikae) = (self.path("mnt"), self.program("hikae"));
        let image = format!("{}@latest", self.path("many.hik"));
        for at in 0..3 {
            let (name, script) = match (at + round) % 3 {
                0 => ("list ntfs-3g", {
                    let device = run("losetup", &["--show", "-r", "-f", "-o", "1048576", &self.path("many.raw")]).1;
                    let device = device.trim();
                    format!(
                        "ntfs-3g -o ro {device} {mnt}; ls -f {mnt} {mnt}/folder100 | wc -l; umount {mnt}; losetup -d {device}"
                    )
                }),
                1 => ("list hikae", {
                    format!(
                        "{hikae} mount {image} {mnt} 2>/dev/null; ls -f {mnt}/p1 {mnt}/p1/folder100 | wc -l; umount {mnt}"
                    )
                }),
                _ => (
                    "list command",
                    format!("{hikae} ls {image}:/p1/ | wc -l; {hikae} ls {image}:/p1/folder100 | wc -l"),
                ),
            };
            let (took, out) = run("sh", &["-ec", &script]);
            let names: u64 = out.lines().map(|line| line.trim().parse::<u64>().unwrap()).sum();
            assert!((1200..1300).contains(&names), "{name}: {names} names");
            self.add(round, name, took);
        }
    }

    fn history(&mut self, round: u32) {
        let (hikae, image) = (self.program("hikae"), self.path("history.hik"));
        let last = self.arguments.generations;
        let commands = [
            ("log changed", vec!["log".to_owned(), format!("{image}:/p1/changed")]),
            ("log seldom", vec!["log".to_owned(), format!("{image}:/p1/seldom")]),
            ("diff next", vec!["diff".to_owned(), image.clone(), (last - 1).to_string(), last.to_string()]),
            ("diff all", vec!["diff".to_owned(), image.clone(), "1".to_owned(), last.to_string()]),
        ];
        for (name, args) in commands {
            let script = format!("{hikae} {} || [ $? = 1 ]", args.join(" "));
            let (took, out) = run("sh", &["-ec", &script]);
            assert!(!out.is_empty(), "{name} prints something");
            self.add(round, name, took);
        }
    }

    fn print(&self) {
        let Arguments { size, rounds, generations, .. } = &self.arguments;
        let heading =
            "\n| | user s | CPU s [range] | wall s [range] | x first CPU | x first wall |\n|---|--:|--:|--:|--:|--:|";
        let row = |label: &str, name: &str, limit: &str| println!("{}", self.rounds.row(label, name, limit));
        println!("\n### Reading {size} MiB through FUSE, {rounds} rounds\n{heading}");
        row("**disk.raw**: limit", "disk limit", "disk limit");
        row("disk.raw: hikae", "disk hikae", "disk limit");
        row("the disk: qemu-storage-daemon, zstd qcow2", "disk qemu", "disk limit");
        row("the disk: squashfuse_ll, zstd, 64 KiB", "disk squashfuse", "disk limit");
        row("the disk: borg mount, zstd, 64 KiB", "disk borg", "disk limit");
        row("the disk: restic mount", "disk restic", "disk limit");
        row("**disk.raw, 16 readers**: limit", "parallel limit", "parallel limit");
        row("disk.raw, 16 readers: hikae", "parallel hikae", "parallel limit");
        row("**large file in NTFS**: limit", "file limit", "file limit");
        row("large file in NTFS: hikae", "file hikae", "file limit");
        println!("\n### First listing of an NTFS partition with 200,000 files\n{heading}");
        row("**mount, two folders, unmount**: ntfs-3g on the raw disk", "list ntfs-3g", "list ntfs-3g");
        row("mount, two folders, unmount: hikae", "list hikae", "list ntfs-3g");
        row("`hikae ls`, twice", "list command", "list ntfs-3g");
        println!("\n### {generations} generations of a filled NTFS disk of {size} MiB\n{heading}");
        row("`log` of a file that changed each time", "log changed", "log changed");
        row("`log` of one that changed each fifth time", "log seldom", "log changed");
        row("`diff` of the last two", "diff next", "log changed");
        row("`diff` of the first and the last", "diff all", "log changed");
    }
}

/// Writes the runs of the disk in which a file lies, for the limit.
fn write_runs(disk: &Path, path: &[u8], out: &Path) {
    let tree =
        Tree::of_disk(Arc::new(FileDisk::open(disk, 512).unwrap()), &Identity::random(0), &TreeOptions::default());
    let found = resolve(&tree, tree.root(), path, true).unwrap();
    let partition = tree.origin(found.node).unwrap().unwrap().partition.unwrap();
    let content = tree.open(found.node, None).unwrap();
    let (mut text, mut left) = (String::new(), content.len());
    for run in content.places().unwrap() {
        let len = (run.end - run.start).min(left);
        left -= len;
        writeln!(text, "{} {len}", partition.start + run.start).unwrap();
    }
    assert_eq!(left, 0, "the runs cover the file");
    std::fs::write(out, text).unwrap();
}
