//! Windows.

/// Says whether files can be given to other users: owners there are no numbers, so none are kept.
pub(crate) fn is_root() -> bool {
    false
}

/// Windows has no such limit.
pub(crate) fn allow_many_open_files() {}
