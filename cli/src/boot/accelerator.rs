//! What runs the guest's instructions. That the system offers to do it itself means nothing: nested in another virtual machine it may abort, or be slower than
//! emulation. So it is tried before it is used.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[cfg(unix)]
use unix::{NATIVE, may_work};
#[cfg(windows)]
use windows::{NATIVE, may_work};

use crate::boot::argument::value_with_path;
use crate::boot::start::Firmware;

/// How long the probe may take; emulation needs a tenth of it.
const LIMIT: Duration = Duration::from_secs(3);
/// The exit code of QEMU after `out 0xf4, 0x10`: twice the value, and one.
const PASSED: i32 = 33;

/// A boot sector that counts 200,000 down in real mode and ends QEMU through its debug port:
/// `mov ecx, 200000; dec ecx; jnz $-2; mov al, 0x10; mov dx, 0xf4; out dx, al; hlt; jmp $-1`.
const PROBE: [u8; 19] =
    [0x66, 0xb9, 0x40, 0x0d, 0x03, 0x00, 0x66, 0x49, 0x75, 0xfc, 0xb0, 0x10, 0xba, 0xf4, 0x00, 0xee, 0xf4, 0xeb, 0xfd];

/// A way to run a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accelerator {
    /// The word for it.
    pub(crate) name: &'static str,
    /// Arguments of QEMU: it, and a processor that it can show.
    pub(crate) arguments: &'static [&'static str],
}

/// What works everywhere. The processor is enough for systems of today (x86-64-v2), and half the work of emulating all that QEMU can.
const EMULATION: Accelerator = Accelerator { name: "emulation", arguments: &["-accel", "tcg", "-cpu", "Nehalem"] };

/// The quickest one that works for a machine of `qemu` with this firmware. Needs a folder for the disk of its probe.
pub(crate) fn choose(qemu: &Path, firmware: Firmware, folder: &Path) -> Accelerator {
    if may_work(firmware) && passes(qemu, folder, NATIVE.arguments) { NATIVE } else { EMULATION }
}

/// Says whether a machine with these arguments runs the probe in time.
fn passes(qemu: &Path, folder: &Path, accelerator: &[&str]) -> bool {
    let disk = folder.join("probe");
    let mut sector = PROBE.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    if std::fs::write(&disk, sector).is_err() {
        return false;
    }
    let mut command = Command::new(qemu);
    command.args(accelerator).args(["-m", "16", "-display", "none", "-nodefaults", "-no-reboot"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive"]);
    command.arg(value_with_path("if=ide,format=raw,readonly=off,snapshot=on,file=", &disk));
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = started else { return false };
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if let Ok(Some(status)) = child.try_wait() {
            return status.code() == Some(PASSED);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_runs_and_a_machine_that_cannot_start_fails_it() {
        let folder = tempfile::tempdir().unwrap();
        let qemu = Path::new("qemu-system-x86_64");
        // A busy machine may need more than one try.
        assert!((0..5).any(|_| passes(qemu, folder.path(), EMULATION.arguments)));
        assert!(!passes(qemu, folder.path(), &["-accel", "no-such"]));
        assert!(!passes(Path::new("no-such-program"), folder.path(), &[]));
    }
}
