//! Runs `hikae` and the real tools that make and judge disks.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The program of this system.
pub(crate) const HIKAE: &str = env!("CARGO_BIN_EXE_hikae");
/// The variable that names another program to be tested, in those tests that use [`program`]: `hikae.exe` with what runs it here.
const PROGRAM: &str = "HIKAE_PROGRAM";

/// The program under test.
pub(crate) fn program() -> String {
    std::env::var(PROGRAM).unwrap_or_else(|_| HIKAE.into())
}

/// Says whether the program under test is the one for Windows.
pub(crate) fn is_exe() -> bool {
    program() != HIKAE
}

/// The number of the system's error, in the words of the program under test, where a disk is full.
pub(crate) fn disk_full() -> &'static str {
    if is_exe() { "(os error 112)" } else { "(os error 28)" }
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Ran {
    /// The answer of a command that was given `--json`.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Ends the test unless the exit code is this one.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self
    }

    /// Ends the test unless the words on stderr or the answer have all of these in them, where paths may be written as Windows does if that is what is tested.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        let has = |part: &str| self.err.contains(part) || self.out.contains(part);
        for part in parts {
            assert!(
                has(part) || is_exe() && has(&part.replace('/', "\\")),
                "{part:?} is not in {}\n{}",
                self.out,
                self.err
            );
        }
        self
    }
}

pub(crate) fn command(program: &str) -> Command {
    // Filesystem tools live in sbin, which an ordinary user's PATH may lack.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.env("PATH", path).env("LC_ALL", "C");
    command
}

/// Runs a program to its end. A missing one is a failure, never a silent skip.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Ran {
    let mut command = command(program);
    command.args(args);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed by this test and cannot be started: {error}"));
    output.into()
}

/// Runs `hikae` in a folder.
pub(crate) fn hikae<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Ran {
    command(&program()).args(args).current_dir(folder).output().unwrap().into()
}

/// The identity of a device as `hikae disks` shows it now.
#[track_caller]
pub(crate) fn target_id(device: &Path) -> String {
    let disks = as_root(HIKAE, ["disks", "--json"]).json();
    let disk = disks.as_array().unwrap().iter().find(|disk| disk["path"] == text(device)).unwrap();
    disk["target_id"].as_str().unwrap().to_owned()
}

/// Starts `hikae` in a folder, its output kept in pipes.
pub(crate) fn start(folder: &Path, args: &[&str]) -> std::process::Child {
    let mut command = command(&program());
    command.args(args).current_dir(folder);
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for something that should come soon.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program that needs root: by itself where we are root, through sudo otherwise. Ends the test unless it succeeds.
#[track_caller]
pub(crate) fn as_root<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Ran {
    let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    let ran = if rustix::process::geteuid().is_root() {
        run(program, &args)
    } else {
        run("sudo", [OsString::from("-n"), program.into()].iter().chain(&args))
    };
    assert_eq!(ran.code, 0, "{program} {args:?}: {}\n{}", ran.out, ran.err);
    ran
}

/// Runs a shell script in a folder. Ends the test unless it succeeds.
#[track_caller]
pub(crate) fn shell(folder: &Path, script: &str) -> Ran {
    let ran = run("sh", ["-euc", &format!("cd '{}'\n{script}", folder.display())]);
    assert_eq!(ran.code, 0, "{script}: {}\n{}", ran.out, ran.err);
    ran
}

/// The text of a path, which the tests keep valid UTF-8.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a sparse file of `len` bytes.
pub(crate) fn sparse_file(path: &Path, len: u64) {
    std::fs::File::create(path).and_then(|file| file.set_len(len)).unwrap();
}

/// A loop device over a part of a file, for the length of a test.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) path: PathBuf,
}

impl Loop {
    /// Shows `len` bytes from `offset` of a file as a device with this logical sector size.
    pub(crate) fn part(file: &Path, offset: u64, len: u64, sector_size: u32) -> Self {
        let (offset, len, sector_size) = (offset.to_string(), len.to_string(), sector_size.to_string());
        let args =
            ["--find", "--show", "--offset", &offset, "--sizelimit", &len, "--sector-size", &sector_size, text(file)];
        Self { path: as_root("losetup", args).out.trim().into() }
    }

    /// Shows a whole file.
    pub(crate) fn over(file: &Path, sector_size: u32) -> Self {
        Self::part(file, 0, std::fs::metadata(file).unwrap().len(), sector_size)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        as_root("losetup", ["--detach", text(&self.path)]);
    }
}

/// A filesystem mounted for the length of a test.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
}

impl Mounted {
    /// Mounts with a command that takes device and mount point last, on a new folder.
    pub(crate) fn new(path: &Path, command: &[&str], device: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let (program, args) = command.split_first().unwrap();
        as_root(program, args.iter().copied().chain([text(device), text(path)]));
        Self { path: path.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A busy mount would spoil every test behind this one, so say so.
        as_root("umount", [text(&self.path)]);
    }
}

/// A small generator of pseudo-random numbers: the same seed gives the same run everywhere.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            piece.copy_from_slice(&number[..piece.len()]);
        }
    }
}
