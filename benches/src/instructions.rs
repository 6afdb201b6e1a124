//! Counts the instructions of small pieces of work with callgrind and compares them with the committed counts.
//!
//! The clock of a shared machine swings by more than what a change costs; the count does not.

#![expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a program for measuring, on input that it made itself"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use hikae_benches::work::{Case, Fixture};

#[derive(Debug, Parser)]
struct Arguments {
    /// Where input and profiles lie.
    #[arg(long, default_value = "target/bench/work")]
    folder: PathBuf,
    /// Keep these counts as the ones to compare with.
    #[arg(long)]
    write: bool,
    /// Say so of counts that changed by more than this, in per cent.
    #[arg(long, default_value_t = 2.0)]
    within: f64,
    /// Does the work (under valgrind), each piece once before it counts.
    #[arg(long, hide = true)]
    work: bool,
}

/// [`counted_piece_of_work`] as callgrind knows it; a pattern would not match.
const COUNTED: &str = "bench_instructions::counted_piece_of_work";

/// Callgrind zeroes its counts when this begins and writes them down when it ends.
#[inline(never)]
fn counted_piece_of_work(case: &mut Case) {
    (case.work)();
}

/// Counts by the name of the piece of work, in the order of the work.
fn count(arguments: &Arguments) -> Vec<(String, u64)> {
    let profile = arguments.folder.join("callgrind");
    for number in 1.. {
        // Profiles of an earlier run.
        if std::fs::remove_file(dump(&profile, number)).is_err() {
            break;
        }
    }
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--zero-before={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--work", "--folder"])
        .arg(&arguments.folder)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("valgrind: {error}"));
    assert!(output.status.success(), "the work under valgrind failed");
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().zip(1..).map(|(name, number)| (name.to_owned(), total(&dump(&profile, number)))).collect()
}

fn dump(profile: &Path, number: u32) -> PathBuf {
    PathBuf::from(format!("{}.{number}", profile.display()))
}

/// The sum that a profile ends with.
fn total(profile: &Path) -> u64 {
    let text = std::fs::read_to_string(profile).unwrap_or_else(|error| panic!("{}: {error}", profile.display()));
    let find =
        |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim().parse().unwrap());
    find("totals:").or_else(|| find("summary:")).unwrap()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let fixture = Fixture::open(&arguments.folder);
    if arguments.work {
        for mut case in fixture.cases() {
            (case.work)();
            counted_piece_of_work(&mut case);
            println!("{}", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.tsv");
    let before: BTreeMap<String, u64> = std::fs::read_to_string(&kept)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, count)| (name.to_owned(), count.parse().unwrap()))
        .collect();
    let counts = count(&arguments);
    println!("| piece of work | committed, million | now, million | change |\n|---|--:|--:|--:|");
    let mut changed = Vec::new();
    for (name, count) in &counts {
        let now = *count as f64;
        let (old, change) = before.get(name).map_or(("-".into(), "new".into()), |old| {
            let old = *old as f64;
            let change = (now / old - 1.0) * 100.0;
            if change.abs() > arguments.within {
                changed.push(name.as_str());
            }
            (format!("{:.2}", old / 1e6), format!("{change:+.2} %"))
        });
        println!("| {name} | {old} | {:.2} | {change} |", now / 1e6);
    }
    if arguments.write {
        let mut text = String::new();
        counts.iter().for_each(|(name, count)| writeln!(text, "{name}\t{count}").unwrap());
        std::fs::write(kept, text).unwrap();
        return ExitCode::SUCCESS;
    }
    if changed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("changed by more than {} %: {}", arguments.within, changed.join(", "));
    ExitCode::FAILURE
}
