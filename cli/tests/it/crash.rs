//! Captures that end badly: killed, interrupted, out of space, failed by the system at every call. No older generation is ever touched.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine::{
    HIKAE, Mounted, Ran, Random, as_root, disk_full, hikae, is_exe, run, shell, sparse_file, start, text,
};

/// Bytes of a chunk.
const CHUNK: usize = 64 << 10;
/// Chunks of the disk.
const CHUNKS: usize = 128;

/// Fills every chunk of the disk with new noise: 128 chunks to store.
fn renew(folder: &Path, random: &mut Random) {
    let mut bytes = vec![0; CHUNKS * CHUNK];
    random.fill(&mut bytes);
    std::fs::write(folder.join("disk.img"), bytes).unwrap();
}

/// An image of two generations with a copy of each disk.
fn older(folder: &Path, random: &mut Random) {
    for number in 1..=2 {
        renew(folder, random);
        std::fs::copy(folder.join("disk.img"), folder.join(format!("copy{number}.img"))).unwrap();
        hikae(folder, ["capture", "disk.img", "a.hik", "--pack-size", "3M"]).expect(0);
    }
}

/// Numbers of the generations that are listed.
fn listed(folder: &Path) -> Vec<u64> {
    let list = hikae(folder, ["list", "a.hik", "--json"]).expect(0).json();
    list["generations"].as_array().unwrap().iter().map(|entry| entry["generation"].as_u64().unwrap()).collect()
}

/// Generation 1 and 2 are what they were, and everything that is listed is whole.
fn older_are_whole(folder: &Path) {
    hikae(folder, ["verify", "a.hik"]).expect(0);
    for number in 1..=2 {
        hikae(folder, ["restore", &format!("a.hik@{number}"), "out.img", "--yes"]).expect(0);
        shell(folder, &format!("cmp out.img copy{number}.img"));
    }
}

/// Captures to the end what was interrupted. Says how many frames were taken up, and checks that all of them were used.
fn finish(folder: &Path) -> u64 {
    let captured = hikae(folder, ["capture", "disk.img", "a.hik", "--pack-size", "3M", "--json"]).expect(0).json();
    let count = |value: &Value| value.as_u64().unwrap();
    let counts = &captured["record"]["counts"];
    let (new, salvaged) = (count(&counts["chunks_new"]), count(&captured["salvaged"]["frames"]));
    assert_eq!(count(&counts["chunks_new"]) + count(&counts["chunks_reused"]), CHUNKS as u64, "{captured}");
    // What was taken up are chunks and at most the one node of this disk; packs that were finished before count with the reused.
    assert!(
        new + salvaged <= CHUNKS as u64 + 1,
        "{salvaged} frames were taken up, and {new} chunks stored all the same"
    );
    count(&counts["chunks_reused"])
}

/// Starts afresh from a saved image.
fn reset(folder: &Path, saved: &Path) {
    shell(folder, &format!("rm -f a.* out.img; cp '{}'/a.* .", saved.display()));
}

fn signal(child: &Child, signal: &str) {
    assert_eq!(run("kill", ["-s", signal, &child.id().to_string()]).code, 0);
}

#[test]
fn a_capture_killed_at_any_time_costs_only_itself() {
    let rounds = match std::env::var_os("HIKAE_LONG") {
        Some(_) => 200,
        // Each of the many starts takes long under Wine.
        None if is_exe() => 10,
        None => 30,
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut random = Random::new(9);
    older(folder, &mut random);
    let saved = folder.join("saved");
    shell(folder, "mkdir saved; cp a.* saved");
    renew(folder, &mut random);
    let began = Instant::now();
    hikae(folder, ["capture", "disk.img", "a.hik", "--pack-size", "3M"]).expect(0);
    let mut whole = began.elapsed();
    // Before the program runs there is nothing to interrupt.
    let began = Instant::now();
    hikae(folder, ["--version"]).expect(0);
    let start_up = began.elapsed();
    let (mut reused, mut killed) = (0, 0);
    for _ in 0..rounds * 4 {
        if killed == rounds {
            break;
        }
        reset(folder, &saved);
        renew(folder, &mut random);
        let began = Instant::now();
        let mut child = start(folder, &["capture", "disk.img", "a.hik", "--pack-size", "3M"]);
        let at = whole.saturating_sub(start_up).mul_f64(random.below(1000) as f64 / 1000.0);
        std::thread::sleep(start_up + at);
        child.kill().unwrap();
        let status: ExitStatus = child.wait().unwrap();
        let found = listed(folder);
        assert!(found == [1, 2] || found == [1, 2, 3], "{found:?}");
        if status.signal() == Some(9) {
            killed += 1;
        } else {
            // Not killed in time: this machine has become quicker. A capture that said it was done is there.
            assert_eq!((status.code(), found.len()), (Some(0), 3));
            whole = whole.min(began.elapsed());
        }
        older_are_whole(folder);
        reused += finish(folder);
        assert_eq!(listed(folder).last(), Some(&(found.len() as u64 + 1)));
        hikae(folder, ["restore", "a.hik", "out.img", "--yes"]).expect(0);
        shell(folder, "cmp out.img disk.img");
    }
    assert_eq!(killed, rounds, "captures that were killed in time");
    assert!(reused > rounds * CHUNKS as u64 / 20, "{reused} chunks of {rounds} torn captures were reused");
}

/// How often a capture makes each of these calls.
fn calls(folder: &Path, names: &[&str]) -> BTreeMap<String, u64> {
    let trace = folder.join("trace.txt");
    let args = [
        "-f",
        "-o",
        text(&trace),
        "-e",
        &format!("trace={}", names.join(",")),
        HIKAE,
        "capture",
        "disk.img",
        "a.hik",
        "--pack-size",
        "3M",
    ];
    let ran = run("env", ["-C", text(folder), "strace"].iter().chain(&args));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let text = std::fs::read_to_string(&trace).unwrap();
    let count = |name: &str| text.lines().filter(|line| line.contains(&format!(" {name}("))).count() as u64;
    names.iter().map(|name| ((*name).to_owned(), count(name))).collect()
}

/// Runs a capture in which one call goes wrong.
fn inject(folder: &Path, call: &str, what: &str, at: u64) -> Ran {
    let rule = format!("inject={call}:{what}:when={at}");
    let args = ["-f", "-o", "/dev/null", "-e", &rule, HIKAE, "capture", "disk.img", "a.hik", "--pack-size", "3M"];
    run("env", ["-C", text(folder), "strace"].iter().chain(&args))
}

#[test]
fn a_capture_killed_or_failed_at_any_call_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut random = Random::new(10);
    older(folder, &mut random);
    let saved = folder.join("saved");
    shell(folder, "mkdir saved; cp a.* saved");
    renew(folder, &mut random);
    let counted = calls(folder, &["fsync", "rename", "pwrite64"]);
    // Four packs: data, table, the rest, and the folder of each.
    assert!(counted["fsync"] >= 12 && counted["rename"] >= 3 && counted["pwrite64"] >= 12, "{counted:?}");
    let mut cases: Vec<(&str, &str, u64)> = Vec::new();
    for (call, count) in &counted {
        let step = if call == "pwrite64" && std::env::var_os("HIKAE_LONG").is_none() { 2 } else { 1 };
        for at in (1..=*count).step_by(step) {
            for what in ["signal=KILL", "error=EIO", "error=ENOSPC"] {
                // One error is enough where it is not about space.
                if call == "pwrite64" || what != "error=ENOSPC" {
                    cases.push((call, what, at));
                }
            }
        }
    }
    let mut reused = 0;
    for (call, what, at) in &cases {
        reset(folder, &saved);
        let ran = inject(folder, call, what, *at);
        let found = listed(folder);
        let case = format!("{what} at {call} {at}: {}{}", ran.out, ran.err);
        assert!(found == [1, 2] || found == [1, 2, 3], "{found:?}, {case}");
        if what.starts_with("error") {
            // The side file that names the newest pack may fail, and so may the words on the terminal; what matters is that the exit code is true.
            assert_eq!(ran.code == 0, found.len() == 3 && !ran.err.contains("cannot"), "{case}");
            if ran.code != 0 && found.len() == 2 {
                assert_eq!(ran.code, 3, "{case}");
                assert!(ran.err.contains("cannot"), "{case}");
            }
        }
        hikae(folder, ["verify", "a.hik"]).expect(0);
        reused += finish(folder);
    }
    older_are_whole(folder);
    assert!(
        reused > cases.len() as u64 * CHUNKS as u64 / 5,
        "{reused} chunks were reused after {} faults",
        cases.len()
    );
}

#[test]
fn what_a_failed_sync_leaves_behind_is_not_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    renew(folder, &mut Random::new(11));
    let ran = inject(folder, "fsync", "error=EIO", 1);
    assert_eq!(ran.code, 3, "{}", ran.err);
    ran.says(&["cannot sync", "a.hik.partial"]);
    let captured = hikae(folder, ["capture", "disk.img", "a.hik", "--json"]).expect(0).json();
    assert_eq!(captured["salvaged"]["frames"], 0, "after a failed sync nobody knows what is on the disk");
}

#[test]
fn a_full_disk_costs_nothing_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut random = Random::new(12);
    let small = folder.join("small.img");
    sparse_file(&small, 48 << 20);
    as_root("mke2fs", ["-q", "-F", "-t", "ext4", "-m", "0", text(&small)]);
    let mounted = Mounted::new(&folder.join("mnt"), &["mount", "-o", "loop"], &small);
    as_root("chmod", ["a+rwx", text(&mounted.path)]);
    let image = "mnt/a.hik";
    renew(folder, &mut random);
    std::fs::copy(folder.join("disk.img"), folder.join("first.img")).unwrap();
    hikae(folder, ["capture", "disk.img", image, "--pack-size", "3M"]).expect(0);
    let one = 8_500_000_u64;
    let rounds = if std::env::var_os("HIKAE_LONG").is_some() { 50 } else { 8 };
    let mut reused = 0;
    for round in 0..rounds {
        renew(folder, &mut random);
        // From nearly nothing to nearly enough, and then where only the end of the last pack lacks room.
        let room = if round % 2 == 0 { random.below(one) } else { one - random.below(120_000) };
        shell(&mounted.path, "rm -f filler; sync");
        let free = rustix::fs::statvfs(&mounted.path).map(|space| space.f_bavail * space.f_frsize).unwrap();
        let filler = std::fs::File::create(mounted.path.join("filler")).unwrap();
        let fallocated =
            rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, free.saturating_sub(room).max(1));
        fallocated.unwrap();
        drop(filler);
        let ran = hikae(folder, ["capture", "disk.img", image, "--pack-size", "3M"]);
        if ran.code != 0 {
            ran.expect(3).says(&["cannot write mnt/a.", disk_full()]);
        }
        hikae(folder, ["verify", image]).expect(0);
        hikae(folder, ["restore", &format!("{image}@1"), "out.img", "--yes"]).expect(0);
        shell(folder, "cmp first.img out.img");
        // With room again it goes on where it was.
        shell(&mounted.path, "rm filler; sync");
        let captured = hikae(folder, ["capture", "disk.img", image, "--pack-size", "3M", "--json"]).expect(0).json();
        reused += captured["record"]["counts"]["chunks_reused"].as_u64().unwrap();
        hikae(folder, ["restore", image, "out.img", "--yes"]).expect(0);
        shell(folder, "cmp disk.img out.img");
        // And from the start: the first generation only.
        shell(&mounted.path, "mkdir keep; mv a.hik a.00001.hik a.00002.hik keep; rm -f a.*; mv keep/* .; rmdir keep");
    }
    assert!(reused > rounds * 30, "{reused} chunks were reused in {rounds} rounds");
}

/// Waits until the capture in progress has written something.
pub(crate) fn wait_for_partial(folder: &Path, child: &mut Child) {
    let began = Instant::now();
    while !std::fs::read_dir(folder).unwrap().any(|entry| {
        let entry = entry.unwrap();
        entry.file_name().to_str().unwrap().ends_with(".partial")
            && entry.metadata().is_ok_and(|file| file.len() > 1 << 20)
    }) {
        assert!(child.try_wait().unwrap().is_none(), "the capture ended before it was interrupted");
        assert!(began.elapsed() < Duration::from_secs(60), "the capture writes nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A disk of text that compresses slowly, and the start of a slow capture of it as generation 2.
fn slow_capture(folder: &Path) -> Child {
    let disk = folder.join("disk.img");
    let mut random = Random::new(13);
    sparse_file(&disk, 96 << 20);
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let file = std::fs::File::options().write(true).open(&disk).unwrap();
    for at in (0..96_u64 << 20).step_by(1 << 20) {
        let piece: Vec<u8> = (0..1 << 18).flat_map(|_| ((random.next() & 0x3f3f_3f3f) as u32).to_le_bytes()).collect();
        file.write_all_at(&piece, at).unwrap();
    }
    start(folder, &["capture", "disk.img", "a.hik", "--compression", "zstd:19", "--threads", "1"])
}

#[test]
fn ctrl_c_leaves_nothing_half_visible() {
    for name in ["INT", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut child = slow_capture(folder);
        wait_for_partial(folder, &mut child);
        signal(&child, name);
        let asked = Instant::now();
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?} to stop", asked.elapsed());
        ran.expect(3).says(&["stopped on request", "nothing of this run is visible"]);
        let list = hikae(folder, ["list", "a.hik"])
            .expect(0)
            .says(&["a.00001.hik.partial: a capture in progress, or one that was interrupted"]);
        assert_eq!(list.out.lines().count(), 3, "{}", list.out);
        hikae(folder, ["verify", "a.hik"]).expect(0);
        let captured = hikae(folder, ["capture", "disk.img", "a.hik", "--json"]).expect(0).json();
        assert!(captured["salvaged"]["frames"].as_u64().unwrap() > 5, "{captured}");
        assert_eq!(captured["record"]["generation"], 2);
        hikae(folder, ["verify", "a.hik"]).expect(0);
    }
}

#[test]
fn a_second_writer_is_turned_away_and_readers_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut child = slow_capture(folder);
    wait_for_partial(folder, &mut child);
    // Wine has numbers of its own.
    let id = if is_exe() { "(process ".to_owned() } else { child.id().to_string() };
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(4).says(&["another program", &id, "a.hik"]);
    hikae(folder, ["list", "a.hik"]).expect(0).says(&["a.00001.hik.partial"]);
    hikae(folder, ["verify", "a.hik"]).expect(0);
    hikae(folder, ["restore", "a.hik", "out.img"]).expect(0);
    assert!(child.try_wait().unwrap().is_none(), "the writer went on meanwhile");
    // A killed writer holds no lock.
    child.kill().unwrap();
    child.wait().unwrap();
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0).says(&["an interrupted capture had left"]);
}
