//! Windows: installers of programs leave them out of `PATH`, and put them below `%ProgramFiles%`.

use std::io;
use std::path::{Path, PathBuf};

/// Where QEMU comes from, as the end of a sentence.
pub(crate) const INSTALL_QEMU: &str =
    "install QEMU (winget install SoftwareFreedomConservancy.QEMU, or an installer from https://www.qemu.org/download)";
/// Where OVMF comes from, as the end of a sentence.
pub(crate) const INSTALL_OVMF: &str =
    "QEMU for Windows has it (edk2-x86_64-code.fd and edk2-i386-vars.fd in the folder share)";
/// The variable that names the folder for temporary files.
pub(crate) const TEMPORARY: &str = "TMP";
/// What a mount is shown at, in words for people.
pub(crate) const MOUNT_POINT: &str = "X:";
/// A disk file in it.
pub(crate) const DISK_OF_A_MOUNT: &str = r"X:\disk.vdi";

/// The program of QEMU.
pub(crate) fn qemu() -> PathBuf {
    find("qemu-system-x86_64.exe", "qemu")
}

/// Where the files of OVMF may lie, for this QEMU: its code, and fresh variables. QEMU's installer puts them into `share` beside the program, MSYS2 into `share` beside
/// the program's folder; a program that only starts QEMU, as package managers have them in `PATH`, has nothing beside it.
pub(crate) fn ovmf_places(qemu: &Path) -> Vec<(PathBuf, PathBuf)> {
    let own = qemu.parent().map(|folder| [folder.join("share"), folder.join(r"..\share\qemu")]);
    let installed = program_files().map(|folder| folder.join(r"qemu\share"));
    let both = |folder: PathBuf| (folder.join("edk2-x86_64-code.fd"), folder.join("edk2-i386-vars.fd"));
    own.into_iter().flatten().chain(installed).map(both).collect()
}

/// The program that VirtualBox is told by what to do.
pub(crate) fn virtualbox() -> PathBuf {
    find("VBoxManage.exe", r"Oracle\VirtualBox")
}

/// The program that reads text from pictures.
pub(crate) fn tesseract() -> PathBuf {
    find("tesseract.exe", "Tesseract-OCR")
}

/// A program in `PATH`, or in its folder below `%ProgramFiles%`; where it is in neither, its name. What is in the current folder is never started.
fn find(program: &str, folder: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let installed = program_files().map(|all| all.join(folder));
    let places = in_path.chain(installed).map(|folder| folder.join(program));
    places.into_iter().find(|file| file.is_file()).unwrap_or_else(|| program.into())
}

fn program_files() -> Option<PathBuf> {
    std::env::var_os("ProgramFiles").map(PathBuf::from).filter(|folder| folder.is_absolute())
}

/// A path as QEMU's monitor is told it: with slashes, which QEMU takes everywhere.
pub(crate) fn told(path: &str) -> String {
    path.replace('\\', "/")
}

/// The path of a disk file by which VirtualBox knows it wherever it is started. Not the system's own spelling of it (`\\?\`), which VirtualBox need not know.
pub(crate) fn attachable(disk: &Path) -> io::Result<PathBuf> {
    std::fs::metadata(disk)?;
    std::path::absolute(disk)
}

/// A word as it is typed into the command prompt or PowerShell. No path has quotation marks in it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || r"-_./\:@=+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("\"{word}\"") }
}
