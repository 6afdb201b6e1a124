//! QEMU's command line.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::boot::start::{Firmware, find_ovmf};
use crate::boot::{kvm, tied};
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
    /// The socket of its server.
    pub(crate) socket: PathBuf,
    /// Its logical sector size: 512 or 4096.
    pub(crate) sector_size: u32,
    /// Whether the server takes what the guest writes.
    pub(crate) keeps_writes: bool,
}

/// QEMU on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// Whether it uses the processor itself.
    pub(crate) kvm: bool,
}

impl Qemu {
    /// Finds QEMU and whether KVM works. `folder` is for the disk of the probe.
    pub(crate) fn find(folder: &Path) -> Result<Self, Failure> {
        let program = PathBuf::from("qemu-system-x86_64");
        let found = Command::new(&program).arg("--version").output().is_ok_and(|ran| ran.status.success());
        if !found {
            return Err(Failure::Failed(
                "qemu-system-x86_64 cannot be started: install QEMU (Debian, Ubuntu: qemu-system-x86; Fedora: qemu-system-x86-core; Arch: qemu-desktop; Homebrew: qemu)"
                    .into(),
            ));
        }
        let kvm = kvm::works(&program, folder);
        Ok(Self { program, kvm })
    }

    /// The word for how the guest's instructions run.
    pub(crate) fn accelerator(&self) -> &'static str {
        if self.kvm { "KVM" } else { "emulation" }
    }

    /// The command that starts a machine, without a display. `folder` takes its variables.
    pub(crate) fn command(&self, options: &Options, drive: &Drive, folder: &Path) -> Result<Command, Failure> {
        let mut command = tied::command(&self.program);
        if self.kvm {
            command.args(["-accel", "kvm", "-cpu", "host"]);
        } else {
            // Enough for systems of today (x86-64-v2), and half the work of emulating all that QEMU can.
            command.args(["-accel", "tcg", "-cpu", "Nehalem"]);
        }
        command.arg("-m").arg(format!("{}M", options.memory.div_ceil(1 << 20)));
        command.arg("-smp").arg(options.cpus.to_string());
        command.args(["-nodefaults", "-vga", "std", "-nic", if options.network { "user" } else { "none" }]);
        if options.firmware == Firmware::Uefi {
            command.args(firmware_arguments(folder)?);
        }
        let writes = match drive.keeps_writes {
            true => "cache=writeback",
            // What the guest writes goes to a file of QEMU's that has no name and ends with it, so nothing need be flushed.
            false => "snapshot=on,cache=unsafe",
        };
        let source = format!(
            "if=none,id=disk,format=raw,discard=unmap,detect-zeroes=unmap,{writes},file.driver=nbd,file.server.type=unix,file.server.path="
        );
        command.arg("-drive").arg(self::drive(&source, &drive.socket));
        command.args(device_arguments(options.bus, drive.sector_size));
        Ok(command)
    }
}

/// A value of `-drive` that ends in a path, in which QEMU wants commas twice.
pub(crate) fn drive(before: &str, path: &Path) -> OsString {
    let mut value = OsString::from(before);
    match path.to_str() {
        Some(text) => value.push(text.replace(',', ",,")),
        None => value.push(path),
    }
    value
}

/// OVMF with a fresh copy of its variables: those of another machine know other disks, and do not boot this one.
fn firmware_arguments(folder: &Path) -> Result<Vec<OsString>, Failure> {
    let ovmf = find_ovmf().ok_or_else(|| {
        Failure::Failed(
            "this disk boots by UEFI, and there is no OVMF for that: install it (Debian, Ubuntu: ovmf; Fedora, Arch: edk2-ovmf)".into(),
        )
    })?;
    let variables = folder.join("variables.fd");
    std::fs::copy(&ovmf.variables, &variables)
        .map_err(|error| Failure::Failed(format!("cannot copy {}: {error}", ovmf.variables.display())))?;
    Ok(vec![
        "-drive".into(),
        drive("if=pflash,format=raw,readonly=on,file=", &ovmf.code),
        "-drive".into(),
        drive("if=pflash,format=raw,file=", &variables),
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

/// Says whether the desktop can show a window.
pub(crate) fn has_desktop() -> bool {
    cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| value != OsStr::new("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(drive("file=", Path::new("/a,b")), OsString::from("file=/a,,b"));
    }

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
