//! Programs that show files through FUSE.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::measure::{Took, of_process, run};

/// How long a server may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that shows files, for as long as it is kept.
#[derive(Debug)]
pub struct Server {
    child: Child,
    dir: String,
    is_mount: bool,
}

impl Server {
    /// Starts it and waits until `shown` is there. `dir` is its mount, to be unmounted at the end, or what it shows a file as.
    pub fn start(program: &str, args: &[&str], dir: &str, shown: &str, is_mount: bool) -> Self {
        let mut command = Command::new(program);
        command.args(args).env("RESTIC_PASSWORD", "bench").stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        let server = Self { child, dir: dir.to_owned(), is_mount };
        let begun = Instant::now();
        while std::fs::metadata(shown).map_or(0, |shown| shown.len()) == 0 {
            assert!(begun.elapsed() < PATIENCE, "{program} {args:?} does not show {shown}");
            std::thread::sleep(Duration::from_millis(2));
        }
        server
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a shell script, and adds what the server took to what it took.
    pub fn measured(&self, script: &str) -> Took {
        let before = of_process(self.child.id());
        let (mut took, _) = run("sh", &["-ec", script]);
        let after = of_process(self.child.id());
        took.user += after.user - before.user;
        took.system += after.system - before.system;
        took
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort, in the order in which each of them ends by itself.
        if self.is_mount {
            let _ = Command::new("umount").arg(&self.dir).status();
        } else {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
