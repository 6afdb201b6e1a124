//! Unix.
//!
//! Linux sends a signal to a process whose parent is gone, where the process itself asked for it. So this program is started once more, asks, and
//! becomes the other program. Elsewhere, who kills this process hard has to end the other one as well.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

/// Set, to the parent's process id, where this program is to become another one: its arguments are that program and its arguments.
const MARK: &str = "HIKAE_TIED_TO";

/// A command that starts `program`, tied to this process.
pub(crate) fn command(program: &Path) -> Command {
    match std::env::current_exe() {
        Ok(own) if cfg!(target_os = "linux") => {
            let mut command = Command::new(own);
            command.env(MARK, std::process::id().to_string()).arg(program);
            command
        }
        _ => Command::new(program),
    }
}

/// Keeps the Ctrl-C of this process's terminal from one that is started by [`command`] and reads nothing from there. Only where that one is tied: elsewhere, who ends all
/// processes of a terminal's job should reach it.
pub(crate) fn set_apart(command: &mut Command) {
    if cfg!(target_os = "linux") {
        command.process_group(0);
    }
}

/// Becomes the program that was asked for by [`command`]. Comes back where nothing was asked for, with `None`, and where it fails.
#[cfg(target_os = "linux")]
pub(crate) fn become_program() -> Option<ExitCode> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

    use crate::exit::FAILED;

    let parent = std::env::var(MARK).ok()?.parse().ok().and_then(Pid::from_raw);
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next()?;
    // Where the kernel cannot do it, a machine without a tie is better than none.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if getppid() != parent {
        // It was gone before it could be asked for.
        return Some(ExitCode::from(FAILED));
    }
    let error = Command::new(&program).args(arguments).env_remove(MARK).exec();
    eprintln!("hikae: cannot start {}: {error}", program.display());
    Some(ExitCode::from(FAILED))
}

/// The same where nothing can be asked for.
#[cfg(not(target_os = "linux"))]
pub(crate) fn become_program() -> Option<ExitCode> {
    None
}

/// A process that was started by [`command`].
#[derive(Debug)]
pub(crate) struct Tie(u32);

impl Tie {
    /// Of a process that has just been started. It has tied itself.
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id())
    }

    /// Time that its threads have run or waited for a processor so far: on a busy machine a guest that works hard runs little, but waits. `None` where
    /// there is no Linux that counts this. Source: Linux, Documentation/scheduler/sched-stats.rst, the first two fields of `/proc/PID/schedstat`.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let mut sum = Duration::ZERO;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0)).ok()? {
            // A thread that has just ended counts no more.
            let Ok(text) = std::fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
            let mut fields = text.split_whitespace().map(str::parse::<u64>);
            let (ran, waited) = (fields.next()?.ok()?, fields.next()?.ok()?);
            sum = sum.saturating_add(Duration::from_nanos(ran)).saturating_add(Duration::from_nanos(waited));
        }
        Some(sum)
    }
}
