//! Unix: programs are found by the system.

use std::io;
use std::path::{Path, PathBuf};

/// Where QEMU comes from, as the end of a sentence.
pub(crate) const INSTALL_QEMU: &str =
    "install QEMU (Debian, Ubuntu: qemu-system-x86; Fedora: qemu-system-x86-core; Arch: qemu-desktop; Homebrew: qemu)";
/// Where OVMF comes from, as the end of a sentence.
pub(crate) const INSTALL_OVMF: &str = "install it (Debian, Ubuntu: ovmf; Fedora, Arch: edk2-ovmf)";
/// The variable that names the folder for temporary files.
pub(crate) const TEMPORARY: &str = "TMPDIR";
/// What a mount is shown at, in words for people.
pub(crate) const MOUNT_POINT: &str = "DIR";
/// A disk file in it.
pub(crate) const DISK_OF_A_MOUNT: &str = "DIR/disk.vdi";

/// Where distributions put OVMF: Debian and Ubuntu, Fedora, Arch, openSUSE, and QEMU's own.
const OVMF_PLACES: [(&str, &str); 7] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
    ("/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"),
    ("/opt/homebrew/share/qemu/edk2-x86_64-code.fd", "/opt/homebrew/share/qemu/edk2-i386-vars.fd"),
];

/// The program of QEMU.
pub(crate) fn qemu() -> PathBuf {
    "qemu-system-x86_64".into()
}

/// Where the files of OVMF may lie, for this QEMU: its code, and fresh variables.
pub(crate) fn ovmf_places(_qemu: &Path) -> Vec<(PathBuf, PathBuf)> {
    OVMF_PLACES.iter().map(|(code, variables)| (code.into(), variables.into())).collect()
}

/// The program that VirtualBox is told by what to do.
pub(crate) fn virtualbox() -> PathBuf {
    "VBoxManage".into()
}

/// The program that reads text from pictures.
pub(crate) fn tesseract() -> PathBuf {
    "tesseract".into()
}

/// A path as QEMU's monitor is told it.
pub(crate) fn told(path: &str) -> String {
    path.to_owned()
}

/// The path of a disk file by which VirtualBox knows it wherever it is started.
pub(crate) fn attachable(disk: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(disk)
}

/// A word as it is typed into a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@,=+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        let words = ["createvm", "it's me", "", "/mnt/latest/disk.vmdk"].map(quoted);
        assert_eq!(words.join(" "), r"createvm 'it'\''s me' '' /mnt/latest/disk.vmdk");
    }
}
