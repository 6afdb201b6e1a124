//! KVM, on Linux.

use std::path::Path;

use super::Accelerator;
use crate::boot::start::Firmware;

/// KVM with the processor of this machine.
pub(super) const NATIVE: Accelerator = Accelerator { name: "KVM", arguments: &["-accel", "kvm", "-cpu", "host"] };

/// Says whether it is worth a probe.
pub(super) fn may_work(_firmware: Firmware) -> bool {
    Path::new("/dev/kvm").exists()
}
