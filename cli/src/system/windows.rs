//! Windows.

/// Says whether files can be given to other users: owners there are no numbers, so none are kept.
pub(crate) fn is_root() -> bool {
    false
}

/// Windows has no such limit.
pub(crate) fn allow_many_open_files() {}

/// What becomes of named streams unless something else is asked for.
pub(crate) const DEFAULT_STREAMS: &str = "keep";

/// What to do where a source is in use, as the end of a sentence.
pub(crate) const HOW_TO_READ_IN_USE: &str =
    "say --live to have a shadow copy of it captured, or close the programs that have files of it open";

/// Says whether this text before a `:` is a drive.
pub(crate) fn is_drive(text: &[u8]) -> bool {
    matches!(text, [letter] if letter.is_ascii_alphabetic())
}
