//! Letting go of the streams that a process was started with.

use std::os::windows::io::IntoRawHandle;

use windows_sys::Win32::Foundation::CloseHandle;
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle};

/// Makes standard output and standard error lead nowhere, so that whoever waits for their end need not wait for the end of this process.
pub fn let_go_of_output() -> std::io::Result<()> {
    for stream in [STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        let nowhere = std::fs::File::options().read(true).write(true).open("NUL")?.into_raw_handle();
        // SAFETY: the new handle is open and is given away for good; the standard library asks for the handle at each use, so nobody has the old one.
        unsafe {
            let before = GetStdHandle(stream);
            if SetStdHandle(stream, nowhere) == 0 {
                return Err(std::io::Error::last_os_error());
            }
            if !before.is_null() {
                CloseHandle(before);
            }
        }
    }
    Ok(())
}
