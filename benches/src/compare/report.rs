//! Tables in Markdown, and a plot for each job.

use hikae_benches::measure::Took;
use hikae_benches::plot::{Plot, Row};

use crate::Arguments;
use crate::bars::bars;
use crate::contest::{Contest, key};
use crate::peers::Job;

const MIB: f64 = 1_048_576.0;

pub(crate) fn print(arguments: &Arguments, contest: &Contest<'_>) {
    let kind = contest.kind.name();
    let (size, rounds, level) = (arguments.size, arguments.rounds, arguments.level);
    println!("\n### {kind} of {size} MiB, zstd {level}, {rounds} rounds\n");
    println!("- hikae and the limit read {:.1} MiB of the disk", contest.read[&Job::Full] as f64 / MIB);
    let (pages, compressed) = contest.pages;
    println!("- {pages} pages changed; compressed one by one they are {:.1} MiB", compressed as f64 / MIB);
    for job in Job::ALL {
        table(contest, job);
        plot(arguments, contest, job);
    }
    stages(contest);
    println!("\n| bar | at most | measured | by CPU | met |\n|---|--:|--:|--:|---|");
    for bar in bars(contest) {
        let cpu = bar.cpu.map_or_else(String::new, |cpu| format!("{cpu:.2}"));
        let met = if bar.is_met() { "yes" } else { "**no**" };
        println!("| {} | {:.2} | {:.2} | {cpu} | {met} |", bar.what, bar.at_most, bar.ratio);
    }
}

fn table(contest: &Contest<'_>, job: Job) {
    println!(
        "\n| {} | user s | CPU s [range] | wall s [range] | peak MiB | MiB {} | x limit CPU | x limit wall |\n|---|--:|--:|--:|--:|--:|--:|--:|",
        job.title(),
        if job == Job::Full { "stored" } else { "added" }
    );
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
        println!(
            "| {} ({}) | {:.2} | {} | {} | {:.0} | {stored} | {} | {} |",
            program.name(),
            program.remark(),
            rounds.spread(&name, |took| took.user).median,
            rounds.spread(&name, Took::cpu),
            rounds.spread(&name, |took| took.wall),
            rounds.peak(&name) as f64 / MIB,
            times(Took::cpu),
            times(|took| took.wall),
        );
    }
}

/// The stages of hikae's captures, each beside the other.
fn stages(contest: &Contest<'_>) {
    println!(
        "\n| hikae, stage by stage: wall s (CPU s) | storing | limit without fsync | closure check | start-up | commit | fsync | fsync of the limit |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    );
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
        println!("| {} | {} |", job.title(), cells.join(" | "));
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
    std::fs::write(arguments.plots.join(format!("{kind}-{}.svg", job.name())), plot.svg()).unwrap();
}
