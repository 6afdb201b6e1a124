//! A machine of VirtualBox over a disk file. Source: VirtualBox manual, chapter "VBoxManage".

use std::path::Path;
use std::process::{Command, Stdio};

use crate::boot::desktop::has_desktop;
use crate::boot::machine::{Bus, Options};
use crate::boot::programs;
use crate::boot::start::Firmware;
use crate::exit::Failure;

/// What is typed to start its program.
const PROGRAM: &str = "VBoxManage";

/// The commands that make, register and start a machine, each without the program's name.
pub(crate) fn commands(machine: &str, disk: &Path, options: &Options) -> Vec<Vec<String>> {
    let memory = options.memory.div_ceil(1 << 20).to_string();
    let cpus = options.cpus.to_string();
    let firmware = if options.firmware == Firmware::Uefi { "efi" } else { "bios" };
    let network = if options.network { "nat" } else { "none" };
    let (bus, controller) = match options.bus {
        Bus::Ide => ("ide", "PIIX4"),
        Bus::Sata => ("sata", "IntelAhci"),
        Bus::Virtio | Bus::Scsi => ("virtio-scsi", "VirtIO"),
        Bus::Nvme => ("pcie", "NVMe"),
        Bus::Usb => ("usb", "USB"),
    };
    // VirtualBox starts no machine over a normal medium that it cannot write. Writes to an immutable one go to a file of its own.
    let medium_type = if can_write(disk) { "normal" } else { "immutable" };
    let disk = disk.display().to_string();
    let shown = if has_desktop() { "gui" } else { "headless" };
    let lines: [&[&str]; 5] = [
        &["createvm", "--name", machine, "--ostype", "Other_64", "--register"],
        &[
            "modifyvm",
            machine,
            "--memory",
            &memory,
            "--cpus",
            &cpus,
            "--firmware",
            firmware,
            "--nic1",
            network,
            "--ioapic",
            "on",
        ],
        // Through the cache of this machine: the file may be one that a program makes up, which direct I/O cannot be sure of.
        &[
            "storagectl",
            machine,
            "--name",
            "disk",
            "--add",
            bus,
            "--controller",
            controller,
            "--bootable",
            "on",
            "--hostiocache",
            "on",
        ],
        &[
            "storageattach",
            machine,
            "--storagectl",
            "disk",
            "--port",
            "0",
            "--device",
            "0",
            "--type",
            "hdd",
            "--mtype",
            medium_type,
            "--medium",
            &disk,
        ],
        &["startvm", machine, "--type", shown],
    ];
    lines.iter().map(|line| line.iter().map(|word| (*word).to_owned()).collect()).collect()
}

fn can_write(disk: &Path) -> bool {
    std::fs::OpenOptions::new().write(true).open(disk).is_ok()
}

/// Says whether VirtualBox is installed.
pub(crate) fn is_installed() -> bool {
    Command::new(programs::virtualbox())
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs the commands. One that fails ends it, and what is left to do is said.
pub(crate) fn run(commands: &[Vec<String>]) -> Result<(), Failure> {
    let program = programs::virtualbox();
    for (done, arguments) in commands.iter().enumerate() {
        let ran = Command::new(&program).args(arguments).stdin(Stdio::null()).output();
        let ran = ran.map_err(|error| Failure::Failed(format!("cannot start {PROGRAM}: {error}")))?;
        if !ran.status.success() {
            let left: Vec<_> = commands.iter().skip(done).map(|arguments| line(arguments)).collect();
            let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            return Err(Failure::Failed(format!("{said}; not done: {}", left.join("; "))));
        }
    }
    Ok(())
}

/// A command as it is typed into a shell.
pub(crate) fn line(arguments: &[String]) -> String {
    let words: Vec<_> = arguments.iter().map(|word| programs::quoted(word)).collect();
    format!("{PROGRAM} {}", words.join(" "))
}
