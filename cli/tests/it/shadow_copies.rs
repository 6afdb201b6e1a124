//! Volumes in use on Windows: `hikae.exe` under Wine with a stand-in for the service that makes shadow copies (`stand_ins/vssapi.cpp`).
//!
//! A file is a volume there, by a link of Wine's; that it is mounted is all that Wine knows of it. `.ci/windows` builds the program and the stand-in.

use std::path::{Path, PathBuf};

use crate::machine::{HIKAE, Ran, Random, command, program, run, text};

/// Bytes of the volume.
const LEN: usize = 3 << 20;

/// A drive of Wine's that is there for as long as this lives.
struct Drive {
    letter: char,
    links: [PathBuf; 2],
    folder: tempfile::TempDir,
}

impl Drive {
    /// A drive whose volume is noise, and as its shadow copy other noise. The stand-in does what `plan` says besides.
    fn new(letter: char, plan: &str) -> Self {
        assert_ne!(program(), HIKAE, "HIKAE_PROGRAM names what runs hikae.exe");
        let folder = tempfile::tempdir().unwrap();
        for (name, seed) in [("volume", 1), ("copy", 2)] {
            let mut bytes = vec![0; LEN];
            Random::new(seed).fill(&mut bytes);
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let drives = Path::new(&std::env::var("WINEPREFIX").unwrap()).join("dosdevices");
        // With two colons it is the device, with one the folder where that is mounted.
        let links = [drives.join(format!("{letter}::")), drives.join(format!("{letter}:"))];
        let _ = links.each_ref().map(std::fs::remove_file);
        std::fs::create_dir(folder.path().join("mounted")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("volume"), &links[0]).unwrap();
        std::os::unix::fs::symlink(folder.path().join("mounted"), &links[1]).unwrap();
        let drive = Self { letter, links, folder };
        drive.plan(plan);
        drive
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of a file as the other program knows it.
    fn known(&self, name: &str) -> String {
        format!("Z:{}", text(&self.file(name)).replace('/', "\\"))
    }

    /// What the stand-in does: `plan`, with the copy of the volume in place of `{copy}`.
    fn plan(&self, plan: &str) {
        let copy = format!("copy {}:\\ {}\n", self.letter.to_ascii_uppercase(), self.known("copy"));
        let plan = format!("log {}\n{}", self.known("log"), plan.replace("{copy}", &copy));
        std::fs::write(self.file("plan"), plan).unwrap();
        let _ = std::fs::remove_file(self.file("log"));
    }

    /// `hikae.exe` with these arguments, in which `VOLUME` is the volume. `from` is where its library for shadow copies comes from: n, the stand-in; b, Wine.
    fn hikae(&self, from: char, args: &[&str]) -> Ran {
        let volume = format!(r"\\.\{}:", self.letter.to_ascii_uppercase());
        let args = args.iter().map(|arg| if *arg == "VOLUME" { volume.as_str() } else { arg });
        let mut command = command(&program());
        command.env("WINEDLLOVERRIDES", format!("vssapi={from}")).env("HIKAE_SHADOW_COPIES", self.known("plan"));
        command.args(args).current_dir(self.folder.path()).output().unwrap().into()
    }

    /// What the stand-in was asked.
    fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        let _ = self.links.each_ref().map(std::fs::remove_file);
    }
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn a_volume_in_use_is_captured_from_its_shadow_copy() {
    let drive = Drive::new('q', "{copy}pending 2\nwriter Registry 5 0\nwriter Database 9 800423f2\n");
    drive.hikae('n', &["capture", "VOLUME", "a.hik"]).expect(4).says(&["mounted for writing at Q:", "--live"]);
    assert!(drive.asked().is_empty());
    let captured = drive.hikae('n', &["capture", "VOLUME", "a.hik", "--live", "--json"]).expect(0);
    let captured = captured.says(&["making shadow copies of Q:\\"]);
    let record = captured.json()["record"].clone();
    assert_eq!(record["source"]["live"], false);
    assert_eq!(record["source"]["shadow_copies"][0], "Q:\\");
    let warnings = record["warnings"].to_string();
    assert!(warnings.contains("Database did not bring its files into order") && !warnings.contains("Registry"));
    let expected = [
        "InitializeForBackup",
        "SetContext 0",
        "SetBackupState 0 1 5 0",
        "GatherWriterMetadata",
        "FreeWriterMetadata",
        "StartSnapshotSet",
        "IsVolumeSupported Q:\\",
        "AddToSnapshotSet Q:\\",
        "PrepareForBackup",
        "DoSnapshotSet",
        "GatherWriterStatus",
        "GetWriterStatusCount",
        "GetWriterStatus",
        "GetWriterStatus",
        "FreeWriterStatus",
        "GetSnapshotProperties",
        "BackupComplete",
        "Release, living: 0",
    ];
    assert_eq!(drive.asked(), expected);
    let image = drive.file("a.hik");
    run(HIKAE, ["restore", text(&image), text(&drive.file("restored"))]).expect(0);
    let bytes = |name| std::fs::read(drive.file(name)).unwrap();
    assert!(bytes("restored") == bytes("copy") && bytes("restored") != bytes("volume"));
    run(HIKAE, ["info", text(&image)]).expect(0).says(&["read from shadow copies, all of one moment: Q:\\"]);
    // A clone reads them too.
    drive.plan("{copy}");
    std::fs::write(drive.file("clone"), vec![0; LEN]).unwrap();
    drive.hikae('n', &["clone", "VOLUME", "clone", "--live", "--yes"]).expect(0);
    assert!(bytes("clone") == bytes("copy"));
    assert_eq!(drive.asked().last().unwrap(), "Release, living: 0");
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn where_no_shadow_copy_can_be_made_nothing_is_captured() {
    let drive = Drive::new('r', "");
    let refused = |from, reason: &str| {
        let ran = drive.hikae(from, &["capture", "VOLUME", "a.hik", "--live"]).expect(4);
        let ran = ran.says(&["no shadow copy of", reason]);
        assert!(!drive.file("a.hik").exists() && !drive.file("a.00000.hik.partial").exists(), "{ran:?}");
        ran
    };
    refused('b', "has no such service");
    refused('n', "FAT");
    assert_eq!(drive.asked().last().unwrap(), "Release, living: 0");
    for (call, code, reason) in [
        ("CreateVssBackupComponents", "80070005", "administrator"),
        ("InitializeForBackup", "80042302", "event log"),
        ("SetContext", "8004231b", "event log"),
        ("SetBackupState", "80042302", "event log"),
        ("GatherWriterMetadata", "80042318", "did not answer"),
        ("StartSnapshotSet", "80042302", "event log"),
        ("IsVolumeSupported", "80070005", "administrator"),
        ("AddToSnapshotSet", "80042317", "as many shadow copies"),
        ("PrepareForBackup", "80042302", "event log"),
        ("DoSnapshotSet", "8004231f", "no space"),
        ("GetSnapshotProperties", "80042308", "event log"),
    ] {
        drive.plan(&format!("{{copy}}fail {call} {code}\n"));
        refused('n', reason).says(&[call, code]);
        let asked = drive.asked();
        match asked.as_slice() {
            [] => assert_eq!(call, "CreateVssBackupComponents"),
            [.., before, last] => {
                assert_eq!([before, last], ["AbortBackup", "Release, living: 0"], "{call}");
                assert!(!asked.iter().any(|line| line.starts_with("unexpected")), "{asked:?}");
            }
            [only] => panic!("{call}: {only}"),
        }
    }
    for (call, code, reason) in [
        ("GatherWriterMetadata", "80042319", "did not answer"),
        ("PrepareForBackup", "80042315", "did not answer"),
        ("DoSnapshotSet", "80042314", "too busy"),
        // VSS_S_ASYNC_CANCELLED.
        ("DoSnapshotSet", "0004230b", "given up"),
    ] {
        drive.plan(&format!("{{copy}}end {call} {code}\n"));
        refused('n', reason).says(&[call]);
        assert_eq!(drive.asked().last().unwrap(), "Release, living: 0");
    }
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn what_is_no_reason_to_stop_is_told() {
    // Another program that is done soon, and a service that does not tell how it went with the programs.
    let drive = Drive::new('s', "{copy}busy 2\nfail GetWriterStatusCount 80042302\n");
    let captured = drive.hikae('n', &["capture", "VOLUME", "a.hik", "--live", "--json"]).expect(0);
    let record = captured.says(&["another program is making shadow copies: waiting"]).json()["record"].clone();
    assert!(record["warnings"].to_string().contains("is not known (GetWriterStatusCount"), "{record}");
    assert_eq!(record["source"]["shadow_copies"][0], "S:\\");
    // What cannot be finished was captured all the same.
    drive.plan("{copy}fail BackupComplete 80042315\n");
    drive.hikae('n', &["capture", "VOLUME", "a.hik", "--live"]).expect(0);
    assert_eq!(drive.asked().last().unwrap(), "Release, living: 0");
}
