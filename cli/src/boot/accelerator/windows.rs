//! WHPX, the Windows Hypervisor Platform: a feature of Windows that is switched on by hand.

use super::Accelerator;
use crate::boot::start::Firmware;

/// WHPX with an interrupt controller of QEMU's (that of the hypervisor loses interrupts of the devices: QEMU, issue 346) and a processor that makes as
/// much known as the emulated one (x86-64-v2), of a family that both AMD and Intel had. `host` is not there before QEMU 11, and with `max` guests die (issue 1043).
pub(super) const NATIVE: Accelerator = Accelerator {
    name: "WHPX",
    arguments: &["-accel", "whpx,kernel-irqchip=off", "-cpu", "qemu64,svm=off,ssse3=on,sse4.1=on,sse4.2=on,popcnt=on"],
};

/// Says whether it is worth a probe. UEFI from a flash device does not start in WHPX of all versions of QEMU (it maps no memory that is also a device), and the
/// probe, which starts by a BIOS, would not notice.
pub(super) fn may_work(firmware: Firmware) -> bool {
    firmware == Firmware::Bios
}
