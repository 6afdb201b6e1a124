//! Measures random reads through FUSE against the limit and the peers: the table of benches/README.md.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use hikae_benches::measure::{Rounds, Took, of_process, peak_of, run};
use hikae_benches::picks::READ;
use hikae_benches::shown::Server;
use hikae_benches::{picks, states};

/// Reads under way at once, where there are many.
const MANY: usize = 16;
/// `O_DIRECT` on x86 and most others: each read reaches the server, and nothing is read ahead by the kernel.
const DIRECT: i32 = 0x4000;

#[derive(Debug, Parser)]
struct Arguments {
    /// Size of the disk in MiB.
    #[arg(long, default_value_t = 512)]
    size: u64,
    /// Rounds that count; one more comes first, compares what is read, and does not.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Reads of a run, as far as there are chunks.
    #[arg(long, default_value_t = 4000)]
    reads: usize,
    /// Only jobs whose name contains this.
    #[arg(long, default_value = "")]
    job: String,
    /// Where disks and images lie: about six times the size of the disk.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
}

/// What is read, and of whom.
struct Job {
    name: &'static str,
    /// 1, or 2 for the later state of the disk.
    generation: u32,
    reads: Vec<(u64, u32)>,
    depth: usize,
    /// All is read once before the clock runs.
    warm: bool,
    sides: Vec<&'static str>,
}

fn main() {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.folder).unwrap();
    let programs = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let folder = arguments.folder.canonicalize().unwrap();
    states::make(&folder, &programs, "ntfs", arguments.size);
    let mut bench = Bench { arguments, folder, programs, rounds: Rounds::default(), typical: BTreeMap::new() };
    bench.prepare();
    bench.run();
}

struct Bench {
    arguments: Arguments,
    folder: PathBuf,
    programs: PathBuf,
    rounds: Rounds,
    /// Of each round the median time of a read in microseconds.
    typical: BTreeMap<String, Vec<f64>>,
}

impl Bench {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn program(&self, name: &str) -> String {
        self.programs.join(name).to_str().unwrap().to_owned()
    }

    fn prepare(&self) {
        std::fs::create_dir_all(self.path("mnt")).unwrap();
        std::fs::write(self.path("export"), "").unwrap();
        let zstd = ["-comp", "zstd", "-Xcompression-level", "1", "-b", "64K", "-quiet", "-no-progress", "-noappend"];
        run("mksquashfs", &[&[&*self.path("serve-1.raw"), &self.path("serve-1.sq")], &zstd[..]].concat());
    }

    fn jobs(&self) -> Vec<Job> {
        let most = self.arguments.reads;
        let (first, later) = (self.path("serve-1.bin"), self.path("serve-2.bin"));
        let (first, later) = (Path::new(&first), Path::new(&later));
        let whole = picks::whole_chunks(first, most);
        let differences = picks::differences(Path::new(&self.path("serve.hik")), 2, first, later, most);
        // As many as the cache of each side holds easily.
        let cached: Vec<_> = whole[..whole.len().min(1000)].iter().copied().cycle().take(most.max(1000)).collect();
        let mut jobs = Vec::new();
        for (depth, names) in [
            (1, ["whole chunk, 1 at once", "difference, 1 at once", "cached, 1 at once"]),
            (MANY, ["whole chunk, 16 at once", "difference, 16 at once", "cached, 16 at once"]),
        ] {
            let job = |name, generation, reads: &[(u64, u32)], sides: &[&'static str]| Job {
                name,
                generation,
                reads: reads.to_vec(),
                depth,
                warm: false,
                sides: sides.to_vec(),
            };
            jobs.push(job(names[0], 1, &whole, &["limit", "hikae", "qemu", "squashfuse"]));
            jobs.push(job(names[1], 2, &differences, &["limit", "hikae", "qemu"]));
            jobs.push(Job { warm: true, ..job(names[2], 1, &cached, &["qemu raw", "hikae"]) });
        }
        jobs.retain(|job| job.name.contains(&self.arguments.job));
        jobs
    }

    fn run(&mut self) {
        let jobs = self.jobs();
        for round in 0..=self.arguments.rounds {
            eprintln!("round {round} of {}", self.arguments.rounds);
            for job in &jobs {
                let count = job.sides.len();
                for at in 0..count {
                    self.measure(job, job.sides[(at + usize::try_from(round).unwrap()) % count], round);
                }
            }
        }
        self.print(&jobs);
    }

    fn measure(&mut self, job: &Job, side: &str, round: u32) {
        let raw = File::open(self.path(&format!("serve-{}.raw", job.generation))).unwrap();
        let raw = Some(&raw).filter(|_| round == 0);
        let (server, shown) = self.serve(job.generation, side);
        let file = OpenOptions::new().read(true).custom_flags(DIRECT).open(shown).unwrap();
        if job.warm {
            read(&file, &job.reads, MANY, raw);
        }
        let (before, begun) = (of_process(server.pid()), Instant::now());
        let mut each = read(&file, &job.reads, job.depth, raw);
        let (wall, after) = (begun.elapsed().as_secs_f64(), of_process(server.pid()));
        drop(file);
        if round == 0 {
            return;
        }
        let peak = peak_of(server.pid());
        let name = format!("{} {side}", job.name);
        self.rounds
            .add(&name, Took { wall, user: after.user - before.user, system: after.system - before.system, peak });
        each.sort_unstable_by(f64::total_cmp);
        self.typical.entry(name).or_default().push(each[each.len() / 2] * 1e6);
    }

    fn serve(&self, number: u32, side: &str) -> (Server, String) {
        let (mnt, export) = (self.path("mnt"), self.path("export"));
        let disk = self.path("mnt/disk.raw");
        let qemu = |format: &str, file: String| {
            let args = [
                "--blockdev".to_owned(),
                format!("driver=file,node-name=f,filename={file},read-only=on"),
                "--blockdev".to_owned(),
                format!("driver={format},node-name=q,file=f,read-only=on"),
                "--export".to_owned(),
                format!("type=fuse,id=e,node-name=q,mountpoint={export},writable=off"),
            ];
            ("qemu-storage-daemon".to_owned(), args.to_vec(), export.clone())
        };
        let (program, args, shown) = match side {
            "limit" => {
                let mut args = vec![self.path("serve-1.bin"), (self.arguments.size << 20).to_string(), mnt.clone()];
                // As few as hikae keeps of chunks that are read once.
                args.extend(["--kept".to_owned(), "32".to_owned()]);
                if number == 2 {
                    args.extend(["--later".to_owned(), self.path("serve-2.bin")]);
                }
                (self.program("bench-limit-mount"), args, disk)
            }
            "hikae" => {
                let image = format!("{}@{number}", self.path("serve.hik"));
                (self.program("hikae"), vec!["mount".into(), "--foreground".into(), image, mnt.clone()], disk)
            }
            "squashfuse" => {
                let args = vec!["-f".into(), self.path("serve-1.sq"), mnt.clone()];
                ("squashfuse_ll".into(), args, self.path("mnt/serve-1.raw"))
            }
            "qemu raw" => qemu("raw", self.path(&format!("serve-{number}.raw"))),
            _ => qemu("qcow2", self.path(&format!("serve-{number}.qcow2"))),
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        (Server::start(&program, &args, &mnt, &shown, !side.starts_with("qemu")), shown)
    }

    fn print(&self, jobs: &[Job]) {
        let Arguments { size, rounds, .. } = &self.arguments;
        println!("\n### Random reads of 4 KiB, ntfs of {size} MiB through FUSE, {rounds} rounds\n");
        println!(
            "| | user s | CPU s [range] | wall s [range] | x first CPU | x first wall | typical read us | peak MiB |"
        );
        println!("|---|--:|--:|--:|--:|--:|--:|--:|");
        for job in jobs {
            let first = format!("{} {}", job.name, job.sides[0]);
            for (at, side) in job.sides.iter().enumerate() {
                let name = format!("{} {side}", job.name);
                let label = if at == 0 {
                    format!("**{}** ({} reads): {side}", job.name, job.reads.len())
                } else {
                    format!("{}: {side}", job.name)
                };
                let mut typical = self.typical[&name].clone();
                typical.sort_unstable_by(f64::total_cmp);
                let row = self.rounds.row(&label, &name, &first);
                println!("{row} {:.0} | {} |", typical[typical.len() / 2], self.rounds.peak(&name) >> 20);
            }
        }
        println!("\n| bar | at most | measured | by CPU | met |\n|---|--:|--:|--:|---|");
        for job in jobs {
            for (side, most) in [("limit", 1.2), ("qemu", 1.0), ("squashfuse", 1.0), ("qemu raw", 1.2)] {
                if !job.sides.contains(&side) {
                    continue;
                }
                let of = |side: &str, measure: fn(Took) -> f64| {
                    self.rounds.spread(&format!("{} {side}", job.name), measure).median
                };
                let wall = of("hikae", |took| took.wall) / of(side, |took| took.wall);
                let cpu = of("hikae", Took::cpu) / of(side, Took::cpu);
                let met = if wall <= most { "yes" } else { "**no**" };
                println!("| {}: to {side} | {most:.2} | {wall:.2} | {cpu:.2} | {met} |", job.name);
            }
        }
    }
}

/// Makes all reads, `depth` of them at once, and compares what comes with `raw` where that is given. Returns the seconds that each took.
fn read(file: &File, reads: &[(u64, u32)], depth: usize, raw: Option<&File>) -> Vec<f64> {
    let (next, took) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        let (len, mut each) = (usize::try_from(READ).unwrap(), Vec::with_capacity(reads.len()));
        // Direct reads want buffers that begin with a page.
        let mut room = vec![0; 2 * len];
        let from = room.as_ptr().align_offset(len);
        let bytes = &mut room[from..from + len];
        while let Some((offset, _)) = reads.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            file.read_exact_at(bytes, *offset).unwrap();
            each.push(begun.elapsed().as_secs_f64());
            if let Some(raw) = raw {
                let mut expected = vec![0; len];
                raw.read_exact_at(&mut expected, *offset).unwrap();
                assert!(*bytes == expected, "a read at {offset} is answered wrongly");
            }
        }
        took.lock().unwrap().extend(each);
    };
    if depth == 1 {
        work();
    } else {
        std::thread::scope(|scope| (0..depth).for_each(|_| _ = scope.spawn(work)));
    }
    took.into_inner().unwrap()
}
