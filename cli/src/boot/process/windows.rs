//! Windows: a job object. Its processes end when its last handle is closed, which the system does for a process that is gone.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::ptr;
use std::time::Duration;

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectBasicAccountingInformation,
    JobObjectExtendedLimitInformation, QueryInformationJobObject, SetInformationJobObject,
};
use windows_sys::Win32::System::Threading::{CREATE_NEW_PROCESS_GROUP, GetSystemTimes};

/// A command that starts `program`, to be tied to this process by [`Tie::of`].
pub(crate) fn command(program: &Path) -> Command {
    Command::new(program)
}

/// Keeps the Ctrl-C of this process's console from one that is started by [`command`].
pub(crate) fn set_apart(command: &mut Command) {
    command.creation_flags(CREATE_NEW_PROCESS_GROUP);
}

/// Nothing has to be asked for by the other process itself.
pub(crate) fn become_program() -> Option<ExitCode> {
    None
}

/// A process, and all that it starts, which end with this value. Where the system cannot do it, a machine without a tie is better than none.
#[derive(Debug)]
pub(crate) struct Tie(Option<OwnedHandle>);

impl Tie {
    /// Ties a process that has just been started. Who kills this one in between leaves it behind.
    pub(crate) fn of(child: &Child) -> Self {
        Self(job(child).ok())
    }

    /// Time that it has run so far, and may have waited for a processor: on a busy machine a guest that works hard runs little, but waits. Windows does not tell who
    /// waits, but nobody does while a processor is idle; so as much time counts as all processors can have been busy at once.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let busy = busy_time().ok()?.checked_div(std::thread::available_parallelism().ok()?.get().try_into().ok()?)?;
        let ran = run_time(self.0.as_ref()?).ok()?;
        Some(ticks(ran.saturating_add(busy)))
    }
}

/// A time that Windows counts in pieces of 100 nanoseconds.
fn ticks(count: u64) -> Duration {
    Duration::from_nanos(count.saturating_mul(100))
}

/// A job with one process, which ends with the job's handle.
fn job(child: &Child) -> io::Result<OwnedHandle> {
    // SAFETY: neither attributes nor a name are given.
    let handle = unsafe { CreateJobObjectW(ptr::null(), ptr::null()) };
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle is new, open, and nobody else's. No other process inherits it.
    let job = unsafe { OwnedHandle::from_raw_handle(handle) };
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    // SAFETY: the handle is open, and the structure is of the kind and length that are told.
    succeeded(unsafe {
        SetInformationJobObject(
            job.as_raw_handle(),
            JobObjectExtendedLimitInformation,
            (&raw const limits).cast(),
            len_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>(),
        )
    })?;
    // SAFETY: both handles are open.
    succeeded(unsafe { AssignProcessToJobObject(job.as_raw_handle(), child.as_raw_handle()) })?;
    Ok(job)
}

/// Time that the processes of a job have run, in 100 ns.
fn run_time(job: &OwnedHandle) -> io::Result<u64> {
    let mut told = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
    // SAFETY: the handle is open, and the structure is of the kind and length that are told; the length of the answer is not asked for.
    succeeded(unsafe {
        QueryInformationJobObject(
            job.as_raw_handle(),
            JobObjectBasicAccountingInformation,
            (&raw mut told).cast(),
            len_of::<JOBOBJECT_BASIC_ACCOUNTING_INFORMATION>(),
            ptr::null_mut(),
        )
    })?;
    Ok(told.TotalUserTime.saturating_add(told.TotalKernelTime).try_into().unwrap_or(0))
}

/// Time that the processors of the machine were not idle, in 100 ns, all of them together.
fn busy_time() -> io::Result<u64> {
    let [mut idle, mut kernel, mut user] = [FILETIME::default(); 3];
    // SAFETY: three structures of the right kind.
    succeeded(unsafe { GetSystemTimes(&raw mut idle, &raw mut kernel, &raw mut user) })?;
    let time = |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    // The time in the kernel has the idle time in it.
    Ok(time(kernel).saturating_add(time(user)).saturating_sub(time(idle)))
}

fn len_of<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("a structure of Windows is small")
}

fn succeeded(answer: i32) -> io::Result<()> {
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
