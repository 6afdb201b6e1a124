//! `hikae.exe mount` under Wine, with the stand-in as its `dokan2.dll`.
//!
//! `HIKAE_WINDOWS` is the folder with what was built for Windows: `hikae.exe`, `dokan2.dll`, and the `bcryptprimitives.dll` that Wine lacks.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step in a test fails the test, which is what it is for")]

#[path = "it/disks.rs"]
mod disks;
#[path = "it/fuse.rs"]
mod fuse;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use imgfmt::image::store::FolderStore;
use imgfmt::image::{Image, OpenOptions};
use imgfmt::tree::{Tree, TreeOptions};

/// The folder below which random sequences are made: names without a stranger among them.
const RANDOM: &str = r"\p1\many";

/// Wine with a system of its own.
struct Wine {
    folder: PathBuf,
    windows: PathBuf,
}

impl Wine {
    fn new(folder: &Path) -> Self {
        let windows = std::env::var_os("HIKAE_WINDOWS").expect("HIKAE_WINDOWS names the folder with hikae.exe");
        let wine = Self { folder: folder.to_owned(), windows: fs::canonicalize(windows).unwrap() };
        fs::create_dir(wine.prefix()).unwrap();
        // Its server would end with the last program, and reset the connection of one that starts at that moment.
        assert!(wine.server("-p").unwrap().success());
        wine
    }

    fn prefix(&self) -> PathBuf {
        self.folder.join("wine")
    }

    fn server(&self, argument: &str) -> std::io::Result<ExitStatus> {
        let mut command = Command::new("/usr/lib/wine/wineserver64");
        command.arg(argument).env("WINEPREFIX", self.prefix());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
    }

    fn hikae(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("wine64");
        if !Path::new("/usr/bin/wine64").exists() {
            command = Command::new("/usr/lib/wine/wine64");
        }
        command.arg(self.windows.join("hikae.exe")).args(arguments);
        command.env("WINEPREFIX", self.prefix()).env("WINEDEBUG", "-all").current_dir(&self.folder);
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end, and returns its exit code and words. They go through a file: Wine keeps a pipe open for as long as what was started in the background lives.
    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
        let said = self.folder.join("said");
        let file = File::create(&said).unwrap();
        let mut command = self.hikae(arguments);
        command.envs(variables.iter().copied()).stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().unwrap();
        (status.code().unwrap(), String::from_utf8_lossy(&fs::read(said).unwrap()).into_owned())
    }

    fn install_stand_in(&self) {
        let system = self.prefix().join("drive_c/windows/system32");
        fs::copy(self.windows.join("dokan2.dll"), system.join("dokan2.dll")).unwrap();
    }
}

impl Drop for Wine {
    fn drop(&mut self) {
        // It fails where the server has ended already.
        let _ = self.server("-k");
    }
}

#[track_caller]
fn refused((code, said): (i32, String), words: &str) {
    assert!(code == 3 && said.contains(words), "{code}: {said}");
}

#[test]
fn a_drive_shows_what_fuse_shows_and_ends_when_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    disks::odd(folder.path());
    let wine = Wine::new(folder.path());
    // What is shown of an image comes from the image alone, identifiers included.
    let (code, said) = wine.run(&["capture", "disk", "disk.hik"], &[]);
    assert_eq!(code, 0, "{said}");
    let mount = ["mount", "disk.hik@1", "X:", "--foreground"];

    refused(wine.run(&mount, &[]), "Dokan 2 is not installed");
    refused(wine.run(&["umount", "X:"], &[]), "X: is no mount of hikae");
    wine.install_stand_in();
    refused(wine.run(&mount, &[("HIKAE_STAND_IN_VERSION", "150")]), "dokan2.dll has version 150");
    refused(wine.run(&mount, &[("HIKAE_STAND_IN_DRIVER", "0")]), "driver does not answer");
    refused(wine.run(&mount, &[("HIKAE_STAND_IN_START", "-4")]), "may not be of the version of dokan2.dll (210)");
    refused(wine.run(&mount, &[("HIKAE_STAND_IN_START", "-7")]), "does not serve programs made for version 200");
    refused(wine.run(&["mount", "disk.hik", "Q:", "--foreground"], &[]), "in use");
    refused(wine.run(&["mount", "disk.hik", "Z:\\nowhere", "--foreground"], &[]), "cannot mount on");

    let report = folder.path().join("report");
    let mut command = wine.hikae(&mount);
    command.env("HIKAE_STAND_IN_REPORT", "report").env("HIKAE_STAND_IN_RANDOM", RANDOM);
    let mut served = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !report.exists() {
        assert!(served.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(100));
    }
    refused(wine.run(&mount, &[]), "already");
    assert_eq!(wine.run(&["umount", "x:\\"], &[]), (0, String::new()));
    let ended = served.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && !said.contains("open in it") && !said.contains("bug"), "{said}");

    let report = fs::read_to_string(report).unwrap();
    let mut ours: Vec<String> = report.lines().map(Into::into).collect();
    assert_eq!(ours.pop().as_deref(), Some("DONE 10000 sequences"), "{report}");
    ours.sort();
    let store = FolderStore::new(&folder.path().join("disk.hik"), &[]).unwrap();
    let image = Arc::new(Image::open(Arc::new(store), &OpenOptions::default()).unwrap());
    let disk = image.generation(1).unwrap();
    let identity = disk.record().identity();
    let tree = Tree::of_disk(Arc::new(disk), &identity, &TreeOptions::default());
    let theirs = fuse::lines(folder.path(), tree, &ours);
    assert!(ours.len() > 600);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn what_is_written_to_a_drive_is_in_the_overlay() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disks::odd(folder.path());
    let model = folder.path().join("model");
    fs::copy(&disk, &model).unwrap();
    let wine = Wine::new(folder.path());
    assert_eq!(wine.run(&["capture", "--all-blocks", "disk", "disk.hik"], &[]).0, 0);
    let image = fs::read(folder.path().join("disk.hik")).unwrap();
    wine.install_stand_in();
    let report = folder.path().join("report");
    let mut command = wine.hikae(&["mount", "disk.hik@1", "X:", "--overlay", "changes", "--foreground"]);
    command.env("HIKAE_STAND_IN_REPORT", "report").env("HIKAE_STAND_IN_DISK", "model");
    let mut served = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !report.exists() {
        assert!(served.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(fs::read_to_string(&report).unwrap(), "DONE 8000 steps, 2000 writes\n");
    assert_eq!(wine.run(&["umount", "X:"], &[]), (0, String::new()));
    let ended = served.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && !said.contains("open in it") && !said.contains("bug"), "{said}");
    let export = ["export", "disk.hik@1", "after.raw", "--overlay", "changes"];
    let (code, said) = wine.run(&export, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(fs::read(folder.path().join("after.raw")).unwrap() == fs::read(&model).unwrap());
    assert!(fs::read(&model).unwrap() != fs::read(&disk).unwrap());
    assert!(fs::read(folder.path().join("disk.hik")).unwrap() == image, "the image was never written");
}

/// Runs a program as root. Ends the test unless it succeeds.
#[track_caller]
fn as_root(arguments: &[&str]) {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = if is_root { Command::new("env") } else { Command::new("sudo") };
    let output = command.args(if is_root { &[][..] } else { &["-n", "env"] }).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A small filesystem, taken away at the end.
struct Small(String);

impl Drop for Small {
    fn drop(&mut self) {
        as_root(&["umount", "--lazy", &self.0]);
    }
}

#[test]
fn a_drive_whose_last_writes_would_be_lost_stays() {
    let folder = tempfile::tempdir().unwrap();
    disks::plain(folder.path());
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let at = small.display().to_string();
    as_root(&["mount", "-t", "tmpfs", "-o", "size=3M,mode=1777", "none", &at]);
    let _small = Small(at);
    let wine = Wine::new(folder.path());
    assert_eq!(wine.run(&["--version"], &[]).0, 0);
    wine.install_stand_in();
    let mount = |bytes: &str| {
        let report = folder.path().join("report");
        let _ = fs::remove_file(&report);
        let variables = [("HIKAE_STAND_IN_REPORT", "report"), ("HIKAE_STAND_IN_BYTES", bytes)];
        let (code, said) = wine.run(&["mount", "plain", "Y:", "--overlay", "small/changes"], &variables);
        assert_eq!(code, 0, "{said}");
        while !report.exists() {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(fs::read_to_string(report).unwrap(), format!("DONE {bytes} bytes\n"));
        disks::shell(folder.path(), "dd if=/dev/zero of=small/fill bs=4k 2> /dev/null || true");
    };
    let after = || {
        assert_eq!(wine.run(&["export", "plain", "after.raw", "--overlay", "small/changes"], &[]).0, 0);
        let after = fs::read(folder.path().join("after.raw")).unwrap();
        fs::remove_file(folder.path().join("after.raw")).unwrap();
        after
    };
    let before = fs::read(folder.path().join("plain")).unwrap();
    // A program that does not flush hears nothing of a full disk that its writes found room on, and the commit does not.
    mount("1000000");
    refused(wine.run(&["umount", "Y:"], &[]), "is not all on the disk yet");
    fs::remove_file(small.join("fill")).unwrap();
    assert_eq!(wine.run(&["umount", "Y:"], &[]), (0, String::new()));
    let kept = after();
    assert!(kept[..1_000_000] != before[..1_000_000] && kept[1_000_000..] == before[1_000_000..]);
    // Who says so loses what was written last, and nothing else.
    mount("1200000");
    assert_eq!(wine.run(&["umount", "Y:", "--lazy"], &[]), (0, String::new()));
    fs::remove_file(small.join("fill")).unwrap();
    assert!(after() == kept);
}

#[test]
fn a_drive_in_the_background_leaves_the_console() {
    let folder = tempfile::tempdir().unwrap();
    disks::plain(folder.path());
    let wine = Wine::new(folder.path());
    // The first start makes Wine's system.
    assert_eq!(wine.run(&["--version"], &[]).0, 0);
    wine.install_stand_in();
    let (code, said) = wine.run(&["mount", "plain", "Y:"], &[]);
    assert!(code == 0 && said.contains("mounted on Y:"), "{code}: {said}");
    assert_eq!(wine.run(&["umount", "Y:"], &[]), (0, String::new()));
    refused(wine.run(&["umount", "Y:"], &[]), "is no mount");
}
