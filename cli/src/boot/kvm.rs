//! Whether KVM works here. That `/dev/kvm` can be opened means nothing: nested in another virtual machine it may abort, or be slower than emulation.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the probe may take; emulation needs a tenth of it.
const LIMIT: Duration = Duration::from_secs(3);
/// The exit code of QEMU after `out 0xf4, 0x10`: twice the value, and one.
const PASSED: i32 = 33;

/// A boot sector that counts 200,000 down in real mode and ends QEMU through its debug port:
/// `mov ecx, 200000; dec ecx; jnz $-2; mov al, 0x10; mov dx, 0xf4; out dx, al; hlt; jmp $-1`.
const PROBE: [u8; 19] =
    [0x66, 0xb9, 0x40, 0x0d, 0x03, 0x00, 0x66, 0x49, 0x75, 0xfc, 0xb0, 0x10, 0xba, 0xf4, 0x00, 0xee, 0xf4, 0xeb, 0xfd];

/// Says whether a machine of `qemu` with KVM runs the probe in time. Needs an empty folder for its disk.
pub(crate) fn works(qemu: &Path, folder: &Path) -> bool {
    if !Path::new("/dev/kvm").exists() {
        return false;
    }
    passes(qemu, folder, &["-accel", "kvm", "-cpu", "host"])
}

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
    command.arg(super::machine::drive("if=ide,format=raw,readonly=off,snapshot=on,file=", &disk));
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
        assert!((0..5).any(|_| passes(qemu, folder.path(), &["-accel", "tcg"])));
        assert!(!passes(qemu, folder.path(), &["-accel", "no-such"]));
        assert!(!passes(Path::new("no-such-program"), folder.path(), &[]));
    }
}
