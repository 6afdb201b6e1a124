//! Windows.

use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;

/// Says whether the desktop can show a window: not in session 0, where services run, and the shells of the SSH server.
pub(crate) fn has_desktop() -> bool {
    let mut session = 0;
    // SAFETY: the number is one that the function may write.
    unsafe { ProcessIdToSessionId(std::process::id(), &raw mut session) != 0 && session != 0 }
}
