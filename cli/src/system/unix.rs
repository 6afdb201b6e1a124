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

/// What becomes of named streams unless something else is asked for.
pub(crate) const DEFAULT_STREAMS: &str = "leave-out";

/// What to do where a source is in use, as the end of a sentence.
pub(crate) const HOW_TO_READ_IN_USE: &str = "unmount it, capture a snapshot of it (LVM, btrfs), or say --live";

/// Says whether this text before a `:` is a drive: there are none.
pub(crate) fn is_drive(_text: &[u8]) -> bool {
    false
}
