//! Runs the real tools that make and judge disks.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a program and returns its output. Panics, with everything it printed, where it cannot be started or its exit
/// status is not 0: a missing tool is a failure, never a silent skip.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Output {
    let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    let output = run_any_status(program, &args);
    assert!(
        output.status.success(),
        "{program} {args:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The same for a program whose exit status is part of the answer.
pub(crate) fn run_any_status<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Output {
    // Filesystem tools live in sbin, which an ordinary user's PATH may lack.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(program)
        .args(args)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed by this test and cannot be started: {error}"))
}

/// Runs a shell script (`sh -euc`) in a folder.
pub(crate) fn shell(folder: &Path, script: &str) -> Output {
    let script = format!("cd '{}'\n{script}", folder.display());
    run("sh", ["-euc", &script])
}

/// Runs one test of this program again, alone, under a `wrapper` (a program and its arguments) and with more environment.
pub(crate) fn this_test_alone(name: &str, wrapper: &[&str], environment: &[(&str, &Path)]) {
    let exe = std::env::current_exe().expect("the path of this program");
    let (program, before) = wrapper.split_first().expect("a wrapper");
    let status = Command::new(program)
        .args(before)
        .arg(exe)
        .args(["--exact", name, "--nocapture"])
        .envs(environment.iter().copied())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed by this test and cannot be started: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&status.stdout), String::from_utf8_lossy(&status.stderr));
    assert!(status.status.success() && text.contains("1 passed"), "{name} under {wrapper:?}: {text}");
}

/// Runs a program that needs root: by itself where we are root, through sudo otherwise.
pub(crate) fn as_root<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Output {
    let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
    if rustix::process::geteuid().is_root() {
        return run(program, args);
    }
    let mut all: Vec<std::ffi::OsString> = vec!["-n".into(), program.into()];
    all.extend(args);
    run("sudo", all)
}

/// A file as a block device for the length of a test.
pub(crate) struct LoopDevice {
    pub(crate) path: String,
}

impl LoopDevice {
    /// Shows `image` as a device of `sector`-byte sectors.
    pub(crate) fn new(image: &Path, sector: u32) -> Self {
        let image = image.to_str().expect("a path in UTF-8");
        let output = as_root("losetup", ["--show", "-f", "-b", &sector.to_string(), image]);
        Self { path: String::from_utf8_lossy(&output.stdout).trim().to_owned() }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        as_root("losetup", ["-d", &self.path]);
    }
}

/// A filesystem mounted for the length of a test.
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
}

impl Mounted {
    /// Mounts `image` with a command that takes image and mount point last, on a new folder `mnt` below `folder`.
    pub(crate) fn new(folder: &Path, command: &[&str], image: &Path) -> Self {
        let path = folder.join("mnt");
        std::fs::create_dir_all(&path).expect("a folder to mount on");
        let (program, args) = command.split_first().expect("a program");
        let mut args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        args.push(image.as_os_str());
        args.push(path.as_os_str());
        as_root(program, args);
        Self { path }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A busy mount would spoil every test behind this one, so say so.
        as_root("umount", [self.path.as_os_str()]);
    }
}

/// A loop device over a part of a file, for the length of a test.
pub(crate) struct Loop {
    pub(crate) path: PathBuf,
}

impl Loop {
    /// Shows `file` from byte `offset` on.
    pub(crate) fn over(file: &Path, offset: u64) -> Self {
        Self::attach(file, &format!("--offset={offset}"))
    }

    /// Shows `file` for reading only.
    pub(crate) fn read_only(file: &Path) -> Self {
        Self::attach(file, "--read-only")
    }

    fn attach(file: &Path, option: &str) -> Self {
        let output = as_root("losetup", ["--find".as_ref(), "--show".as_ref(), option.as_ref(), file.as_os_str()]);
        let path = String::from_utf8(output.stdout).expect("a path");
        Self { path: path.trim().into() }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        as_root("losetup", ["-d".as_ref(), self.path.as_os_str()]);
    }
}
