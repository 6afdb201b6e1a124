//! A program that ends when this process does, however that ends: without the disk that is served to it a machine is of no use.
//!
//! Linux sends a signal to a process whose parent is gone, where the process itself asked for it. So this program is started once more, asks, and
//! becomes the other program. Elsewhere, who kills this process hard has to end the other one as well.

use std::path::Path;
use std::process::{Command, ExitCode};

/// Set, to the parent's process id, where this program is to become another one: its arguments are that program and its arguments.
const MARK: &str = "HIKAE_TIED_TO";

/// A command that starts `program`.
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

/// Becomes the program that was asked for by [`command`]. Comes back where nothing was asked for, with `None`, and where it fails.
#[cfg(target_os = "linux")]
pub(crate) fn become_program() -> Option<ExitCode> {
    use std::os::unix::process::CommandExt;

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
