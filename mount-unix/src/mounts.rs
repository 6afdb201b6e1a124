//! Which mounts there are, and ending one: alive, busy or dead.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mount::{MountError, TYPE};

/// A mount of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Where it is.
    pub(crate) dir: PathBuf,
}

/// How a mount ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// It is gone.
    Gone,
    /// It is out of sight; it goes when the last file in it is closed.
    Detached,
}

/// Lists the mounts of this program, the last one of those on top of each other last.
pub(crate) fn listed() -> Vec<Listed> {
    // Without the table (another system than Linux) nothing is known, and the system's own answers must do.
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// One line of proc_pid_mountinfo(5), where it is a mount of this program.
fn parse_line(line: &[u8]) -> Option<Listed> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dir = unescape(fields.get(4)?);
    let dash = fields.iter().position(|field| *field == b"-")?;
    let kind = *fields.get(dash.checked_add(1)?)?;
    (kind == format!("fuse.{TYPE}").as_bytes()).then(|| Listed { dir: OsString::from_vec(dir).into() })
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

/// The absolute path of a mount point, without a look at what is mounted there: a dead mount answers nothing.
pub(crate) fn absolute(dir: &Path) -> PathBuf {
    if let Ok(path) = dir.canonicalize() {
        return path;
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (parent.canonicalize(), dir.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => dir.to_owned(),
    }
}

/// Says whether what is mounted there has lost its process.
pub(crate) fn is_dead(dir: &Path) -> bool {
    std::fs::metadata(dir).is_err_and(|error| error.kind() == std::io::ErrorKind::NotConnected)
}

/// Ends the mount at `dir`, dead ones included; with `lazy` also one that is in use. Without it, what was written into the mount is durable by then, or it stays.
pub fn unmount(dir: &Path, lazy: bool) -> Result<Unmounted, MountError> {
    let dir = absolute(dir);
    let mounts = listed();
    if !mounts.iter().any(|mount| mount.dir == dir) {
        return Err(MountError::NotMounted(dir));
    }
    if !lazy {
        sync(&dir)?;
    }
    detach(&dir, lazy)?;
    Ok(if lazy { Unmounted::Detached } else { Unmounted::Gone })
}

/// Has the process of the mount make everything durable: nobody hears of what it cannot do once the mount is gone.
fn sync(dir: &Path) -> Result<(), MountError> {
    // A dead mount has nothing left, and who may not look in has written nothing.
    let Ok(root) = std::fs::File::open(dir) else { return Ok(()) };
    match root.sync_all() {
        Err(error) if error.kind() != std::io::ErrorKind::NotConnected => {
            Err(MountError::NotDurable { dir: dir.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Takes the mount away, as root by the system call and as anybody else through fusermount3.
pub(crate) fn detach(dir: &Path, lazy: bool) -> Result<(), MountError> {
    if rustix::process::geteuid().is_root() {
        return by_system_call(dir, lazy);
    }
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(dir).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(|source| MountError::NoFusermount { source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.contains("busy") {
        return Err(MountError::Busy(dir.to_owned()));
    }
    Err(MountError::Unmount { dir: dir.to_owned(), text })
}

#[cfg(target_os = "linux")]
fn by_system_call(dir: &Path, lazy: bool) -> Result<(), MountError> {
    use rustix::io::Errno;
    use rustix::mount::{UnmountFlags, unmount};
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match unmount(dir, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(MountError::Busy(dir.to_owned())),
        Err(error) => Err(MountError::Unmount { dir: dir.to_owned(), text: std::io::Error::from(error).to_string() }),
    }
}

#[cfg(not(target_os = "linux"))]
fn by_system_call(dir: &Path, lazy: bool) -> Result<(), MountError> {
    let output = Command::new("umount").args(lazy.then_some("-f")).arg(dir).output();
    let output = output.map_err(|source| MountError::Unmount { dir: dir.to_owned(), text: source.to_string() })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.contains("busy") {
        Err(MountError::Busy(dir.to_owned()))
    } else {
        Err(MountError::Unmount { dir: dir.to_owned(), text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_this_program_are_listed_with_their_names_unescaped() {
        let ours = b"36 35 98:0 / /mnt/a\\040b\\134 rw,noatime master:1 - fuse.hikae /x.hik ro";
        assert_eq!(parse_line(ours), Some(Listed { dir: "/mnt/a b\\".into() }));
        assert_eq!(parse_line(b"36 35 98:0 / /mnt rw - fuse.sshfs host: rw"), None);
        assert_eq!(parse_line(b"36 35 98:0 / /mnt rw - ext4 fuse.hikae rw"), None);
        assert_eq!(parse_line(b""), None);
        assert_eq!(parse_line(b"1 2 3 4"), None);
    }
}
