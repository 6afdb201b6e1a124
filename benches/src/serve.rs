//! Measures `hikae serve` against the limit, qemu-nbd and nbdkit, all read by the same client: the tables of benches/README.md.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use hikae_benches::measure::{Rounds, Took, of_process, peak_of};
use hikae_benches::nbd::Client;
use hikae_benches::{picks, states};

/// Bytes of a read in sequence: what nbdcopy asks for.
const PIECE: u32 = 256 << 10;
/// How long a server may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// Reads under way at once, where there are many.
const MANY: usize = 16;

#[derive(Debug, Parser)]
struct Arguments {
    /// Size of the disk in MiB.
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Rounds that count; one more comes first, compares what is read, and does not.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Random reads of a run, as far as there are chunks.
    #[arg(long, default_value_t = 4000)]
    reads: usize,
    /// ntfs or ext4.
    #[arg(long, default_value = "ntfs")]
    disk: String,
    /// Ask for simple replies, as the kernel's client does, instead of structured ones.
    #[arg(long)]
    simple: bool,
    /// Only jobs whose name contains this.
    #[arg(long, default_value = "")]
    job: String,
    /// Another build of hikae that takes part; can be given more than once.
    #[arg(long)]
    beside: Vec<PathBuf>,
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
    let mut bench = Bench { arguments, folder, programs, rounds: Rounds::default(), typical: BTreeMap::new() };
    states::make(&bench.folder, &bench.programs, &bench.arguments.disk, bench.arguments.size);
    bench.run();
}

/// A server, for as long as it is kept.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(program: &str, args: &[&str], socket: &Path) -> Self {
        // Best effort: the server before may have removed it.
        let _ = std::fs::remove_file(socket);
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        Self { child, socket: socket.to_owned() }
    }

    fn connect(&self, structured: bool) -> Client {
        let begun = Instant::now();
        loop {
            if let Some(client) = Client::connect(&self.socket, structured) {
                return client;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody listens on {}", self.socket.display());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: one that is gone already needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

    fn jobs(&self) -> Vec<Job> {
        let most = self.arguments.reads;
        let (first, later) = (self.path("serve-1.bin"), self.path("serve-2.bin"));
        let (first, later) = (Path::new(&first), Path::new(&later));
        let sequence: Vec<_> =
            (0..(self.arguments.size << 20) / u64::from(PIECE)).map(|at| (at * u64::from(PIECE), PIECE)).collect();
        let whole = picks::whole_chunks(first, most);
        let differences = picks::differences(Path::new(&self.path("serve.hik")), 2, first, later, most);
        // As many as the cache of each side holds easily.
        let cached: Vec<_> = whole[..whole.len().min(1000)].iter().copied().cycle().take(most.max(1000)).collect();
        let all = vec!["limit", "hikae", "qemu-nbd", "nbdkit"];
        let job = |name, reads: &[(u64, u32)], depth| Job {
            name,
            generation: 1,
            reads: reads.to_vec(),
            depth,
            warm: false,
            sides: all.clone(),
        };
        let difference = |name, depth| Job {
            generation: 2,
            sides: vec!["limit", "hikae", "qemu-nbd"],
            ..job(name, &differences, depth)
        };
        let cached = |name, depth| Job { warm: true, sides: vec!["nbdkit", "hikae"], ..job(name, &cached, depth) };
        let mut jobs = vec![
            job("sequence, 1 at once", &sequence, 1),
            job("sequence, 16 at once", &sequence, MANY),
            job("whole chunk, 1 at once", &whole, 1),
            job("whole chunk, 16 at once", &whole, MANY),
            difference("difference, 1 at once", 1),
            difference("difference, 16 at once", MANY),
            cached("cached, 1 at once", 1),
            cached("cached, 16 at once", MANY),
        ];
        jobs.retain(|job| job.name.contains(&self.arguments.job));
        for job in &mut jobs {
            for other in 0..self.arguments.beside.len() {
                job.sides.push(["beside 1", "beside 2", "beside 3", "beside 4"][other]);
            }
        }
        jobs
    }

    fn run(&mut self) {
        let jobs = self.jobs();
        for round in 0..=self.arguments.rounds {
            eprintln!("round {round} of {}", self.arguments.rounds);
            for job in &jobs {
                let count = job.sides.len();
                for at in 0..count {
                    let side = job.sides[(at + usize::try_from(round).unwrap()) % count];
                    self.measure(job, side, round);
                }
            }
        }
        self.print(&jobs);
    }

    fn measure(&mut self, job: &Job, side: &str, round: u32) {
        let raw = File::open(self.path(&format!("serve-{}.raw", job.generation))).unwrap();
        let raw = Some(&raw).filter(|_| round == 0);
        let server = self.serve(job, side);
        let mut client = server.connect(!self.arguments.simple);
        assert_eq!(client.len, self.arguments.size << 20);
        if job.warm {
            client.read(&job.reads, MANY, raw);
        }
        let pid = server.child.id();
        let (before, begun) = (of_process(pid), Instant::now());
        let mut each = client.read(&job.reads, job.depth, raw);
        let (wall, after) = (begun.elapsed().as_secs_f64(), of_process(pid));
        if round == 0 {
            return;
        }
        let name = format!("{} {side}", job.name);
        let took =
            Took { wall, user: after.user - before.user, system: after.system - before.system, peak: peak_of(pid) };
        self.rounds.add(&name, took);
        each.sort_unstable_by(f64::total_cmp);
        self.typical.entry(name).or_default().push(each[each.len() / 2] * 1e6);
    }

    fn serve(&self, job: &Job, side: &str) -> Server {
        let (number, socket) = (job.generation, self.path("serve-socket"));
        let (raw, qcow2) = (self.path(&format!("serve-{number}.raw")), self.path(&format!("serve-{number}.qcow2")));
        let first = self.path("serve-1.bin");
        let (program, args): (String, Vec<String>) = match side {
            "limit" => {
                // With one read at once a second thread only takes over from the first.
                let cores = std::thread::available_parallelism().map_or(2, usize::from);
                let threads = if job.depth == 1 { 1 } else { cores };
                let mut args = vec![first, (self.arguments.size << 20).to_string(), socket.clone()];
                args.extend(["--threads".to_owned(), threads.to_string()]);
                if number == 2 {
                    args.extend(["--later".to_owned(), self.path("serve-2.bin")]);
                }
                (self.program("bench-limit-serve"), args)
            }
            "qemu-nbd" => {
                let args = ["--read-only", "--persistent", "--shared=0", "--format=qcow2", "--socket", &socket, &qcow2];
                ("qemu-nbd".into(), args.map(str::to_owned).to_vec())
            }
            "nbdkit" => {
                let args = ["--foreground", "--readonly", "--unix", &socket, "file", &raw];
                ("nbdkit".into(), args.map(str::to_owned).to_vec())
            }
            _ => {
                let image = format!("{}@{number}", self.path("serve.hik"));
                let beside = side.strip_prefix("beside ").map(|at| at.parse::<usize>().unwrap() - 1);
                let program = beside.map_or_else(
                    || self.program("hikae"),
                    |at| self.arguments.beside[at].canonicalize().unwrap().to_str().unwrap().to_owned(),
                );
                (program, vec!["serve".into(), image, "--nbd".into(), format!("unix:{socket}")])
            }
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Server::start(&program, &args, Path::new(&socket))
    }

    fn print(&self, jobs: &[Job]) {
        let Arguments { size, rounds, disk, simple, .. } = &self.arguments;
        let replies = if *simple { "simple" } else { "structured" };
        println!("\n### {disk} of {size} MiB through NBD on a Unix socket, {replies} replies, {rounds} rounds\n");
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
                let row = self.rounds.row(&label, &name, &first);
                println!("{row} {:.0} | {} |", self.typical_of(&name), self.rounds.peak(&name) >> 20);
            }
        }
        println!("\n| bar | at most | measured | by CPU | met |\n|---|--:|--:|--:|---|");
        for job in jobs {
            let is_sequence = job.name.starts_with("sequence");
            for (side, most) in
                [("limit", if is_sequence { 1.0 / 0.85 } else { 1.2 }), ("qemu-nbd", 1.0), ("nbdkit", 1.2)]
            {
                if !job.sides.contains(&side) || (side == "nbdkit" && !job.warm) {
                    continue;
                }
                let [ours, theirs] = ["hikae", side].map(|side| format!("{} {side}", job.name));
                // One at once: the typical read, which who else was running hardly changes. Many at once and sequences: the whole run.
                let of = |name: &str| match (is_sequence, job.depth) {
                    (false, 1) => self.typical_of(name),
                    _ => self.rounds.spread(name, |took| took.wall).median,
                };
                let cpu = |name: &str| self.rounds.spread(name, Took::cpu).median;
                let ratio = of(&ours) / of(&theirs);
                let met = if ratio <= most { "yes" } else { "**no**" };
                let by_cpu = cpu(&ours) / cpu(&theirs);
                println!("| {}: to {side} | {most:.2} | {ratio:.2} | {by_cpu:.2} | {met} |", job.name);
            }
        }
    }

    /// Median over the rounds of the time of the read in the middle, in microseconds.
    fn typical_of(&self, name: &str) -> f64 {
        let mut of_rounds = self.typical[name].clone();
        of_rounds.sort_unstable_by(f64::total_cmp);
        of_rounds[of_rounds.len() / 2]
    }
}
