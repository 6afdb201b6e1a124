//! How a disk starts: from its own boot structures, never by trying.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::startup::chain::{Chain, Severity, Verdict};
use imgfmt::startup::examine;
use imgfmt::{Disk, Result};

use crate::boot::programs;

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
    /// It is made to be started this way.
    With(Firmware),
    /// Nothing on it was ever made to be started.
    DataOnly,
}

/// How a disk starts, and why that is thought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// How.
    pub(crate) start: Start,
    /// A phrase for people. Can hold untrusted text.
    pub(crate) why: String,
    /// What is wrong on the way from that firmware to the system, as far as it can be followed without running anything. Can hold untrusted text.
    pub(crate) doubts: Vec<String>,
}

/// Findings of disks that were partitioned and formatted, and never made bootable.
const NEVER_BOOTABLE: [&str; 2] = ["active-partition-missing", "boot-sector-empty"];

/// Looks at the boot structures of a disk. Of the two chains, that of UEFI and that of a BIOS, the one counts that is known better to be whole; both alike: UEFI's, as
/// in firmware that can do both.
pub(crate) fn find_start(disk: &Arc<dyn Disk>) -> Result<Found> {
    let startup = examine(disk)?;
    let rank = |chain: &Chain| match chain.verdict() {
        Verdict::Whole => 3,
        Verdict::Doubtful => 2,
        Verdict::Broken => 1,
        Verdict::Absent => 0,
    };
    let (firmware, chain) = if rank(&startup.uefi) >= rank(&startup.bios) {
        (Firmware::Uefi, &startup.uefi)
    } else {
        (Firmware::Bios, &startup.bios)
    };
    let doubts: Vec<String> = chain
        .findings
        .iter()
        .filter(|finding| finding.severity > Severity::Note)
        .map(|finding| finding.text.clone())
        .collect();
    if chain.verdict() == Verdict::Absent {
        let why =
            [&startup.bios, &startup.uefi].map(|chain| chain.steps.last().cloned().unwrap_or_default()).join("; ");
        return Ok(Found { start: Start::DataOnly, why, doubts });
    }
    // A system on it, of which something speaks, may have lost its active partition; boot code that nobody knows may need none.
    let broken: Vec<_> = chain.findings.iter().filter(|finding| finding.severity == Severity::Broken).collect();
    let unknown = chain.findings.iter().any(|finding| finding.code == "boot-code-unknown");
    let never = !unknown && !broken.is_empty() && broken.iter().all(|finding| NEVER_BOOTABLE.contains(&finding.code));
    if firmware == Firmware::Bios && never && startup.references.is_empty() {
        return Ok(Found { start: Start::DataOnly, why: doubts.join("; "), doubts });
    }
    let why = format!("its way from {firmware} to a system is {}", chain.verdict().name());
    Ok(Found { start: Start::With(firmware), why, doubts })
}

/// The files of OVMF, UEFI firmware for virtual machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ovmf {
    /// The program, never written.
    pub(crate) code: PathBuf,
    /// Fresh variables, of which each machine gets a copy.
    pub(crate) variables: PathBuf,
}

/// Finds OVMF for this QEMU.
pub(crate) fn find_ovmf(qemu: &Path) -> Option<Ovmf> {
    let places = programs::ovmf_places(qemu);
    let (code, variables) = places.into_iter().find(|(code, variables)| code.is_file() && variables.is_file())?;
    Some(Ovmf { code, variables })
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

    fn find(bytes: Vec<u8>) -> Found {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(bytes));
        find_start(&disk).unwrap()
    }

    #[test]
    fn boot_code_starts_by_bios() {
        let found = find(disk(b"\xebsome loader", 0));
        assert_eq!(found.start, Start::With(Firmware::Bios), "it may need no active partition");
        assert!(!found.doubts.is_empty(), "nobody knows this loader");
        let found = find(disk(STANDARD, 0x80));
        assert_eq!(found.start, Start::With(Firmware::Bios));
        assert!(found.why.contains("broken") && found.doubts[0].contains("Missing operating system"), "{found:?}");
    }

    #[test]
    fn disks_without_anything_that_boots_are_data() {
        let mut not_bootable = disk(STANDARD, 0x80);
        let sector = [&b"\xeb\x3c\x90mkfs.fat"[..], &[0; 79], b"This is not a bootable disk"].concat();
        not_bootable[64 * 512..][..sector.len()].copy_from_slice(&sector);
        not_bootable[64 * 512 + 510..][..2].copy_from_slice(&[0x55, 0xaa]);
        for (bytes, why) in [
            (vec![0; 1 << 20], "no boot signature"),
            (vec![0; 100], "shorter"),
            (disk(&[], 0), "no boot code"),
            (disk(STANDARD, 0), "active partition missing"),
            (not_bootable, "starts nothing"),
        ] {
            let found = find(bytes);
            assert!(found.start == Start::DataOnly && found.why.contains(why), "{why}: {found:?}");
        }
    }
}
