//! Tables in Markdown, and a plot for each job.

use std::fmt::Write;

use hikae_benches::measure::Took;
use hikae_benches::plot::{Plot, Row};

use crate::Arguments;
use crate::bars::bars;
use crate::contest::{Contest, key};
use crate::peers::Job;

const MIB: f64 = 1_048_576.0;

/// Prints the tables of a disk, and writes them and the plots into the folder of the report.
pub(crate) fn print(arguments: &Arguments, contest: &Contest<'_>) {
    let text = &mut String::new();
    let kind = contest.kind.name();
    let (size, rounds, level) = (arguments.size, arguments.rounds, arguments.level);
    writeln!(text, "\n### {kind} of {size} MiB, zstd {level}, {rounds} rounds\n").unwrap();
    writeln!(text, "- hikae and the limit read {:.1} MiB of the disk", contest.read[&Job::Full] as f64 / MIB).unwrap();
    let (pages, compressed) = contest.pages;
    writeln!(text, "- {pages} pages changed; compressed one by one they are {:.1} MiB", compressed as f64 / MIB)
        .unwrap();
    for job in Job::ALL {
        table(text, contest, job);
        plot(arguments, contest, job);
    }
    stages(text, contest);
    writeln!(text, "\n| bar | at most | measured | by CPU | met |\n|---|--:|--:|--:|---|").unwrap();
    for bar in bars(contest) {
        let cpu = bar.cpu.map_or_else(String::new, |cpu| format!("{cpu:.2}"));
        let met = if bar.is_met() { "yes" } else { "**no**" };
        writeln!(text, "| {} | {:.2} | {:.2} | {cpu} | {met} |", bar.what, bar.at_most, bar.ratio).unwrap();
    }
    print!("{text}");
    std::fs::write(arguments.report.join(format!("{kind}.md")), text.trim_start()).unwrap();
}

fn table(text: &mut String, contest: &Contest<'_>, job: Job) {
    writeln!(text,
        "\n| {} | runs | user s | CPU s [range] | wall s [range] | peak MiB | MiB {} | x limit CPU | x limit wall |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        job.title(),
        if job == Job::Full { "stored" } else { "added" }
    ).unwrap();
    let rounds = &contest.rounds;
    for program in &contest.programs {
        let name = key(job, program.name());
        if !rounds.has(&name) {
            continue;
        }
        let limit = key(job, "limit");
        let times = |measure: fn(Took) -> f64| {
            if !rounds.has(&limit) {
                return "-".into();
            }
            format!("{:.2}", rounds.spread(&name, measure).median / rounds.spread(&limit, measure).median)
        };
        // What a check writes is its own business.
        let stored = if job == Job::Verify { "-".into() } else { format!("{:.1}", contest.stored[&name] as f64 / MIB) };
        writeln!(
            text,
            "| {} ({}) | {} | {:.2} | {} | {} | {:.0} | {stored} | {} | {} |",
            program.name(),
            program.remark(),
            rounds.count(&name),
            rounds.spread(&name, |took| took.user).median,
            rounds.spread(&name, Took::cpu),
            rounds.spread(&name, |took| took.wall),
            rounds.peak(&name) as f64 / MIB,
            times(Took::cpu),
            times(|took| took.wall),
        )
        .unwrap();
    }
}

/// The stages of hikae's captures, each beside the other.
fn stages(text: &mut String, contest: &Contest<'_>) {
    writeln!(text,
        "\n| hikae, stage by stage: wall s (CPU s) | storing | limit without fsync | closure check | start-up | commit | fsync | fsync of the limit |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    ).unwrap();
    for job in [Job::Full, Job::Unchanged, Job::Changed, Job::Day] {
        let cell = |part: &str| {
            let name = key(job, part);
            if !contest.rounds.has(&name) {
                return "-".into();
            }
            let wall = contest.rounds.spread(&name, |took| took.wall).median;
            let cpu = contest.rounds.spread(&name, Took::cpu).median;
            if cpu > 0.0 { format!("{wall:.2} ({cpu:.2})") } else { format!("{wall:.2}") }
        };
        let cells = ["store", "limit work", "check", "start", "commit", "sync", "limit sync"].map(cell);
        writeln!(text, "| {} | {} |", job.title(), cells.join(" | ")).unwrap();
    }
}

fn plot(arguments: &Arguments, contest: &Contest<'_>, job: Job) {
    let rows = contest
        .programs
        .iter()
        .filter(|program| contest.rounds.has(&key(job, program.name())))
        .map(|program| {
            let name = key(job, program.name());
            let wall = contest.rounds.spread(&name, |took| took.wall);
            let user = contest.rounds.spread(&name, |took| took.user);
            Row { label: program.name().into(), main: wall, side: user, marked: program.name().starts_with("hikae") }
        })
        .collect();
    let (kind, size) = (contest.kind.name(), arguments.size);
    let plot =
        Plot { title: format!("{}: {kind} disk of {size} MiB", job.title()), main: "wall s", side: "user s", rows };
    std::fs::write(arguments.report.join(format!("{kind}-{}.svg", job.name())), plot.svg()).unwrap();
}
