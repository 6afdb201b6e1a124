//! Runs hikae, the limit of the machine and the programs that people use instead side by side on disks filled with real files.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

mod bars;
mod contest;
mod peers;
mod report;
mod stages;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Parser, ValueEnum};

use crate::contest::Contest;

#[derive(Debug, Parser)]
struct Arguments {
    /// Size of each disk in MiB, up to 8192.
    #[arg(long, default_value_t = 3072)]
    size: u64,
    /// Rounds that count; one more comes first and does not.
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// Only this disk.
    #[arg(long)]
    disk: Option<Kind>,
    /// Only these programs besides hikae and the limit, by what their names contain; "none" for no other.
    #[arg(long = "peer", value_name = "NAME")]
    peers: Vec<String>,
    /// Where disks and images lie: about ten times the size of a disk.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Where the tables and plots go.
    #[arg(long, default_value = "target/bench/report")]
    report: PathBuf,
    /// zstd level of hikae and the limit.
    #[arg(long, default_value_t = 1)]
    level: i32,
    /// Threads of hikae and the limit; the others take as many as they do.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(2, usize::from))]
    threads: usize,
    /// Captures a disk in this process and prints what each stage took (used by the rounds).
    #[arg(long, num_args = 2, value_names = ["SOURCE", "IMAGE"], hide = true)]
    stages: Option<Vec<PathBuf>>,
}

/// A kind of disk: what filesystem it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Ntfs,
    Ext4,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ntfs => "ntfs",
            Self::Ext4 => "ext4",
        }
    }
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(paths) = &arguments.stages {
        println!("{}", stages::capture_in_stages(arguments.threads, arguments.level, &paths[0], &paths[1]));
        return;
    }
    for folder in [&arguments.folder, &arguments.report] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for kind in [Kind::Ntfs, Kind::Ext4] {
        if arguments.disk.is_some_and(|only| only != kind) {
            continue;
        }
        let status = Command::new(top.join("make-disk"))
            .args([kind.name(), &arguments.size.to_string()])
            .arg(&arguments.folder)
            .status()
            .unwrap();
        assert!(status.success(), "make-disk failed");
        let mut contest = Contest::new(&arguments, kind);
        contest.run();
        report::print(&arguments, &contest);
    }
}
