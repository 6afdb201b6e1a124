//! The programs of others: where they lie, and how they are told of files.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{
    DISK_OF_A_MOUNT, INSTALL_OVMF, INSTALL_QEMU, MOUNT_POINT, TEMPORARY, attachable, ovmf_places, qemu, quoted,
    tesseract, told, virtualbox,
};
#[cfg(windows)]
pub(crate) use windows::{
    DISK_OF_A_MOUNT, INSTALL_OVMF, INSTALL_QEMU, MOUNT_POINT, TEMPORARY, attachable, ovmf_places, qemu, quoted,
    tesseract, told, virtualbox,
};
