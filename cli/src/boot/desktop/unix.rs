//! Unix.

use std::ffi::OsStr;

/// Says whether the desktop can show a window.
pub(crate) fn has_desktop() -> bool {
    cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| value != OsStr::new("")))
}
