//! QEMU's command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serve::stream::Place;

use crate::boot::accelerator::{self, Accelerator};
use crate::boot::argument::value_with_path;
use crate::boot::channel::disk_argument;
use crate::boot::start::{Firmware, find_ovmf};
use crate::boot::{process, programs};
use crate::exit::Failure;

/// How the guest's disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bus {
    /// Parallel ATA: the oldest systems know it.
    Ide,
    /// Serial ATA (AHCI).
    Sata,
    /// Paravirtual: quick, for guests that have its driver.
    Virtio,
    /// A paravirtual SCSI controller.
    Scsi,
    /// NVMe.
    Nvme,
    /// A USB stick.
    Usb,
}

/// What the machine is.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Memory in bytes.
    pub(crate) memory: u64,
    /// Processors.
    pub(crate) cpus: u32,
    /// What starts it.
    pub(crate) firmware: Firmware,
    /// How its disk is attached.
    pub(crate) bus: Bus,
    /// Whether it reaches the network, through this machine.
    pub(crate) network: bool,
    /// More arguments of QEMU, behind ours.
    pub(crate) more: Vec<OsString>,
}

/// Where QEMU finds the disk.
#[derive(Clone, Debug)]
pub(crate) struct Drive {
    /// Its server.
    pub(crate) place: Place,
    /// The name that the server knows it by.
    pub(crate) name: String,
    /// Its logical sector size: 512 or 4096.
    pub(crate) sector_size: u32,
    /// Whether the server takes what the guest writes.
    pub(crate) keeps_writes: bool,
}

/// QEMU on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// How its guest's instructions run.
    pub(crate) accelerator: Accelerator,
}

impl Qemu {
    /// Finds QEMU, and how it can run a machine with this firmware. `folder` is for the disk of a probe.
    pub(crate) fn find(firmware: Firmware, folder: &Path) -> Result<Self, Failure> {
        let program = programs::qemu();
        let found = Command::new(&program).arg("--version").output().is_ok_and(|ran| ran.status.success());
        if !found {
            return Err(Failure::Failed(format!("qemu-system-x86_64 cannot be started: {}", programs::INSTALL_QEMU)));
        }
        let accelerator = accelerator::choose(&program, firmware, folder);
        Ok(Self { program, accelerator })
    }

    /// The command that starts a machine, without a display. `folder` takes its variables.
    pub(crate) fn command(&self, options: &Options, drive: &Drive, folder: &Path) -> Result<Command, Failure> {
        let mut command = process::command(&self.program);
        command.args(self.accelerator.arguments);
        command.arg("-m").arg(format!("{}M", options.memory.div_ceil(1 << 20)));
        command.arg("-smp").arg(options.cpus.to_string());
        command.args(["-nodefaults", "-vga", "std", "-nic", if options.network { "user" } else { "none" }]);
        if options.firmware == Firmware::Uefi {
            command.args(firmware_arguments(&self.program, folder)?);
        }
        let writes = match drive.keeps_writes {
            true => "cache=writeback",
            // What the guest writes goes to a file of QEMU's that has no name and ends with it, so nothing need be flushed.
            false => "snapshot=on,cache=unsafe",
        };
        let source = format!("if=none,id=disk,format=raw,discard=unmap,detect-zeroes=unmap,{writes},");
        command.arg("-drive").arg(disk_argument(&source, &drive.place, &drive.name));
        command.args(device_arguments(options.bus, drive.sector_size));
        Ok(command)
    }
}

/// OVMF with a fresh copy of its variables: those of another machine know other disks, and do not boot this one.
fn firmware_arguments(qemu: &Path, folder: &Path) -> Result<Vec<OsString>, Failure> {
    let ovmf = find_ovmf(qemu).ok_or_else(|| {
        Failure::Failed(format!("this disk boots by UEFI, and there is no OVMF for that: {}", programs::INSTALL_OVMF))
    })?;
    let variables = folder.join("variables.fd");
    std::fs::copy(&ovmf.variables, &variables)
        .map_err(|error| Failure::Failed(format!("cannot copy {}: {error}", ovmf.variables.display())))?;
    Ok(vec![
        "-drive".into(),
        value_with_path("if=pflash,format=raw,readonly=on,file=", &ovmf.code),
        "-drive".into(),
        value_with_path("if=pflash,format=raw,file=", &variables),
    ])
}

fn device_arguments(bus: Bus, sector_size: u32) -> Vec<String> {
    let (controller, device) = match bus {
        Bus::Ide => (None, "ide-hd,bus=ide.0"),
        Bus::Sata => (Some("ahci,id=sata"), "ide-hd,bus=sata.0"),
        Bus::Virtio => (None, "virtio-blk-pci"),
        Bus::Scsi => (Some("virtio-scsi-pci,id=scsi"), "scsi-hd,bus=scsi.0"),
        Bus::Nvme => (None, "nvme,serial=hikae"),
        Bus::Usb => (Some("qemu-xhci,id=usb"), "usb-storage,bus=usb.0"),
    };
    let sectors = if sector_size == 512 {
        String::new()
    } else {
        format!(",logical_block_size={sector_size},physical_block_size={sector_size}")
    };
    let controller = controller.into_iter().flat_map(|controller| ["-device".to_owned(), controller.to_owned()]);
    controller.chain(["-device".to_owned(), format!("{device},drive=disk,bootindex=0{sectors}")]).collect()
}

/// The bus for a disk where none was asked for: the one that systems of that firmware's time have drivers for. Disks with
/// sectors of 4096 bytes were never ATA disks.
pub(crate) fn usual_bus(firmware: Firmware, sector_size: u32) -> Bus {
    match (firmware, sector_size) {
        (_, 4096) => Bus::Nvme,
        (Firmware::Bios, _) => Bus::Ide,
        (Firmware::Uefi, _) => Bus::Sata,
    }
}

/// Says whether the user's own arguments say where the screen is shown.
pub(crate) fn sets_display(more: &[OsString]) -> bool {
    more.iter().any(|argument| {
        let name = argument.to_str().map(|text| text.trim_start_matches('-'));
        matches!(name, Some("display" | "nographic" | "vnc" | "spice" | "curses"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_of_4096_bytes_are_told_to_the_guest() {
        assert_eq!(usual_bus(Firmware::Bios, 4096), Bus::Nvme);
        let arguments = device_arguments(Bus::Nvme, 4096).join(" ");
        assert_eq!(
            arguments,
            "-device nvme,serial=hikae,drive=disk,bootindex=0,logical_block_size=4096,physical_block_size=4096"
        );
        assert_eq!(
            device_arguments(Bus::Sata, 512).join(" "),
            "-device ahci,id=sata -device ide-hd,bus=sata.0,drive=disk,bootindex=0"
        );
    }

    #[test]
    fn a_display_of_the_users_choice_is_left_alone() {
        assert!(sets_display(&["-vnc".into(), ":1".into()]));
        assert!(!sets_display(&["-snapshot".into()]));
    }
}
