//! How a disk boots: from its own boot structures, never by trying.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::disk::{Slice, read_vec};
use imgfmt::filesystem::open_files;
use imgfmt::partition::{Layout, Scheme, read_layout};
use imgfmt::{Disk, Result};

/// What starts a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// Runs the boot code in the first sector.
    Bios,
    /// Runs a program of the EFI system partition.
    Uefi,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
        })
    }
}

/// What was found on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It can boot this way, and this is why.
    With(Firmware, String),
    /// It holds nothing that boots, and this is why.
    DataOnly(String),
}

/// The program that firmware without a memory of its own starts. Source: UEFI 2.10, 3.5.1.1 "Removable Media Boot Behavior".
const FALLBACK: [&[u8]; 3] = [b"EFI", b"BOOT", b"BOOTX64.EFI"];
/// The GPT type of an EFI system partition, and the MBR's. Source: UEFI 2.10, 5.3.3 and 5.2.2.
const ESP_TYPES: [&str; 2] = ["C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ef"];
/// Words in the boot code of systems that start the active partition and can do nothing without one.
const NEEDS_ACTIVE: [&[u8]; 4] = [
    b"Invalid partition table",
    b"Missing operating system",
    b"Error loading operating system",
    b"No active partition",
];
/// Words in the boot sector that filesystem tools write where nothing is to boot.
const SAYS_NOT_BOOTABLE: [&[u8]; 2] = [b"This is not a bootable disk", b"Non-System disk"];

/// Looks at the boot structures of a disk.
pub(crate) fn find_start(disk: &Arc<dyn Disk>) -> Result<Start> {
    if disk.len() < 512 {
        return Ok(Start::DataOnly("it is shorter than a boot sector".into()));
    }
    let layout = read_layout(disk)?;
    let first = read_vec(disk, 0, 512)?;
    let bios = bios_start(&first, &layout, disk);
    let mut efi_without_fallback = None;
    for partition in &layout.partitions {
        if partition.unusable.is_some() || !ESP_TYPES.iter().any(|code| partition.type_code.eq_ignore_ascii_case(code))
        {
            continue;
        }
        let slice: Arc<dyn Disk> = Arc::new(Slice::open(Arc::clone(disk), partition.range.clone())?);
        if has_file(&slice, &FALLBACK) {
            let why = format!("the EFI system partition {} has EFI/BOOT/BOOTX64.EFI", partition.number);
            return Ok(Start::With(Firmware::Uefi, why));
        }
        efi_without_fallback = Some(partition.number);
    }
    Ok(match (bios, efi_without_fallback) {
        (Ok(why), _) => Start::With(Firmware::Bios, why),
        // A real machine remembers the path of its loader; what is not there for sure cannot be said without trying.
        (Err(_), Some(number)) => Start::With(
            Firmware::Uefi,
            format!(
                "partition {number} is an EFI system partition; it has no EFI/BOOT/BOOTX64.EFI, which fresh firmware starts"
            ),
        ),
        (Err(why), None) => Start::DataOnly(format!("{why}; it has no EFI system partition either")),
    })
}

/// Why a BIOS would start the disk, or why not.
fn bios_start(first: &[u8], layout: &Layout, disk: &Arc<dyn Disk>) -> std::result::Result<String, String> {
    let holds = |words: &[&[u8]]| words.iter().any(|words| first.windows(words.len()).any(|window| window == *words));
    if first.get(510..512) != Some(&[0x55, 0xaa]) {
        return Err("its first sector has no boot signature".into());
    }
    if first.get(..440).is_none_or(|code| code.iter().all(|byte| *byte == 0)) {
        return Err("its first sector holds no boot code".into());
    }
    if holds(&SAYS_NOT_BOOTABLE) {
        return Err("the code in its first sector only says that the disk does not boot".into());
    }
    let active: Vec<_> = layout.partitions.iter().filter(|partition| partition.active).collect();
    if layout.scheme != Scheme::None && holds(&NEEDS_ACTIVE) {
        let Some(active) = active.first() else {
            return Err("its boot code starts the active partition, and no partition is active".into());
        };
        let sector = read_vec(disk, active.range.start, 512).unwrap_or_default();
        let not_bootable =
            SAYS_NOT_BOOTABLE.iter().any(|words| sector.windows(words.len()).any(|window| window == *words));
        if not_bootable {
            return Err(format!(
                "the boot sector of its active partition {} only says that the disk does not boot",
                active.number
            ));
        }
        return Ok(format!("its first sector holds boot code, and partition {} is active", active.number));
    }
    Ok("its first sector holds boot code".into())
}

fn has_file(partition: &Arc<dyn Disk>, path: &[&[u8]]) -> bool {
    let find = || -> Result<bool> {
        let Some(files) = open_files(partition)? else { return Ok(false) };
        let mut node = files.root();
        for name in path {
            let Some(entry) = files.lookup(node, name)? else { return Ok(false) };
            node = entry.node;
        }
        Ok(true)
    };
    find().unwrap_or(false)
}

/// The files of OVMF, UEFI firmware for virtual machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ovmf {
    /// The program, never written.
    pub(crate) code: PathBuf,
    /// Fresh variables, of which each machine gets a copy.
    pub(crate) variables: PathBuf,
}

/// Where distributions put them: Debian and Ubuntu, Fedora, Arch, openSUSE, and QEMU's own.
const OVMF_PLACES: [(&str, &str); 7] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
    ("/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"),
    ("/opt/homebrew/share/qemu/edk2-x86_64-code.fd", "/opt/homebrew/share/qemu/edk2-i386-vars.fd"),
];

/// Finds OVMF.
pub(crate) fn find_ovmf() -> Option<Ovmf> {
    let mut places = OVMF_PLACES.iter().map(|(code, variables)| (Path::new(code), Path::new(variables)));
    let (code, variables) = places.find(|(code, variables)| code.is_file() && variables.is_file())?;
    Some(Ovmf { code: code.into(), variables: variables.into() })
}

#[cfg(test)]
mod tests {
    use imgfmt::disk::MemoryDisk;

    use super::*;

    const STANDARD: &[u8] = include_bytes!("../../../imgfmt/src/restore/standard_mbr.bin");

    /// A disk of 1 MiB with boot code and one MBR partition of type 0x83 at sector 64.
    fn disk(code: &[u8], active: u8) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        bytes[..code.len()].copy_from_slice(code);
        bytes[446..462].copy_from_slice(&[active, 0, 0, 0, 0x83, 0, 0, 0, 64, 0, 0, 0, 0, 1, 0, 0]);
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes
    }

    fn start(bytes: Vec<u8>) -> Start {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(bytes));
        find_start(&disk).unwrap()
    }

    fn data_only(bytes: Vec<u8>, why: &str) {
        match start(bytes) {
            Start::DataOnly(reason) => assert!(reason.contains(why), "{reason}"),
            with => panic!("{with:?}"),
        }
    }

    #[test]
    fn boot_code_starts_by_bios() {
        assert!(matches!(start(disk(STANDARD, 0x80)), Start::With(Firmware::Bios, _)));
        assert!(
            matches!(start(disk(b"\xebsome loader", 0)), Start::With(Firmware::Bios, _)),
            "it may need no active partition"
        );
    }

    #[test]
    fn disks_without_anything_that_boots_are_data() {
        data_only(vec![0; 1 << 20], "no boot signature");
        data_only(vec![0; 100], "shorter");
        data_only(disk(&[], 0x80), "no boot code");
        data_only(disk(STANDARD, 0), "no partition is active");
        data_only(disk(b"\xeb\x3cThis is not a bootable disk", 0), "only says");
        let mut bytes = disk(STANDARD, 0x80);
        bytes[64 * 512 + 90..][..27].copy_from_slice(b"This is not a bootable disk");
        data_only(bytes, "boot sector of its active partition 1");
    }
}
