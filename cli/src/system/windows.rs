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
pub(crate) const HOW_TO_READ_IN_USE: &str = "close the programs that have files of it open, or capture a shadow copy of it (samples/windows/capture-running.ps1)";

/// Says whether a disk in use can be read as it is: Windows writes to it at any moment, and a shadow copy costs nothing.
pub(crate) fn allow_live() -> Result<(), String> {
    Err("--live is not for Windows, where a shadow copy is a consistent state of a volume in use: samples/windows/capture-running.ps1 makes one and captures it".into())
}

/// Says whether this text before a `:` is a drive.
pub(crate) fn is_drive(text: &[u8]) -> bool {
    matches!(text, [letter] if letter.is_ascii_alphabetic())
}
