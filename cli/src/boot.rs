//! Starting disks in a virtual machine, and telling whether they boot.
//!
//! `start` finds out how a disk boots, `machine` is QEMU's command line, `qmp` and `agent` talk to the guest from outside and inside, `screen` reads its
//! picture, and `evidence` decides from all of that and from nothing else: it is tested without a virtual machine.
//!
//! What systems do differently is in `accelerator`, `channel`, `desktop`, `process` and `programs`, one file for each system.

pub(crate) mod accelerator;
pub(crate) mod agent;
pub(crate) mod argument;
pub(crate) mod channel;
pub(crate) mod contents;
pub(crate) mod desktop;
pub(crate) mod doors;
pub(crate) mod evidence;
pub(crate) mod machine;
pub(crate) mod phrases;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod qmp;
pub(crate) mod report;
pub(crate) mod screen;
pub(crate) mod served;
pub(crate) mod start;
pub(crate) mod virtualbox;
pub(crate) mod watch;
