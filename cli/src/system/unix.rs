//! Unix.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Says whether files can be given to other users.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Raises the limit of open files as far as it goes: a walk holds one for each folder it is in. Where it cannot be raised, deep trees fail with the
/// system's own message.
pub(crate) fn allow_many_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
