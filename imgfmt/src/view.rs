//! Container views: any disk as a virtual disk file of any format, computed as it is read.
//!
//! Every view has a fixed layout: byte `n` of the disk lies at byte `data_offset + n` of the file. Header, tables and footer are made up from the length of
//! the disk and from an [`Identity`], so the same disk gives the same file whenever it is asked, and no table is ever in memory.
//!
//! Where a format counts in larger units than the disk's length allows, zeros follow the disk.
//!
//! The structures are those of [`crate::format`], which reads them too. What hypervisors ask of them beyond the specifications is told where it is met.

mod pieces;
mod qcow2;
mod raw;
pub mod table;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;
pub mod writable;
mod zeroed;

use std::sync::Arc;

use crate::disk::Disk;
use crate::format::Format;
use crate::format::identity::Identity;

pub use pieces::View;

/// A view of a disk, or why there is none.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The name of the file.
    pub name: String,
    /// The format. VMDK has two files, descriptor and extent.
    pub format: Format,
    /// The file, or why it cannot be: a phrase that continues "there is no NAME, because".
    pub view: Result<Arc<View>, String>,
}

/// Shows a disk in every format, in files whose names begin with `stem`. `identity` is the disk's; each format gets one of its own.
pub fn offers(disk: &Arc<dyn Disk>, stem: &str, identity: &Identity) -> Vec<Offer> {
    let offer = |extension: &str, format: Format, view: Result<View, String>| Offer {
        name: format!("{stem}{extension}"),
        format,
        view: view.map(Arc::new),
    };
    let of = |format: Format| identity.of_part(format.name());
    let disk = || Arc::clone(disk);
    let extent = format!("{stem}-flat.vmdk");
    vec![
        offer(".raw", Format::Raw, Ok(raw::view(disk()))),
        offer(".vmdk", Format::Vmdk, vmdk::descriptor(disk(), &extent, &of(Format::Vmdk))),
        offer("-flat.vmdk", Format::Vmdk, vmdk::extent(disk())),
        offer(".vhd", Format::Vhd, vhd::view(disk(), &of(Format::Vhd))),
        offer(".vhdx", Format::Vhdx, vhdx::view(disk(), &of(Format::Vhdx))),
        offer(".vdi", Format::Vdi, vdi::view(disk(), &of(Format::Vdi))),
        offer(".qcow2", Format::Qcow2, qcow2::view(disk())),
    ]
}

/// Says why a disk has no view of a format that knows only sectors of 512 bytes, or none that is longer than `most` bytes.
fn check(disk: &dyn Disk, format: &str, most: u64, only_512: bool) -> Result<(), String> {
    let (len, sector) = (disk.len(), disk.sector_size());
    if len == 0 {
        return Err("the disk has no byte".into());
    }
    if only_512 && sector != 512 {
        return Err(format!("the disk has sectors of {sector} bytes, and {format} knows only sectors of 512 bytes"));
    }
    if len > most {
        let gib = most >> 30;
        return Err(format!("the disk is longer than the {gib} GiB that {format} can hold"));
    }
    Ok(())
}

/// The length of a disk in whole sectors, in bytes.
fn whole_sectors(disk: &dyn Disk) -> u64 {
    disk.len().next_multiple_of(u64::from(disk.sector_size()).max(512))
}
