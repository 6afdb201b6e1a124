//! Writing any disk as an image file of any format: whole when it is seen, sparse where the format or the filesystem can be.
//!
//! Fixed formats are container views ([`crate::view`]) that are written down; the others are written by their formats, which place only what is not zero.

use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, read_vec};
use crate::engine::Run;
use crate::error::{Error, Result};
use crate::format::identity::Identity;
use crate::format::qcow2::Compression;
use crate::format::{Format, qcow2, vdi, vhd, vhdx, vmdk};
use crate::target::{Copied, CopyOptions, FileTarget, NewFile, Target, copy};
use crate::view::{View, offers};

/// Bytes around the disk of a fixed file that are written at once.
const PART: u64 = 1 << 20;

/// Which file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The bytes of the disk, with holes.
    Raw,
    /// qcow2, version 3, compressed or not.
    Qcow2(Option<Compression>),
    /// A dynamic VHD.
    Vhd,
    /// A fixed VHD.
    VhdFixed,
    /// A dynamic VHDX.
    Vhdx,
    /// A fixed VHDX.
    VhdxFixed,
    /// A sparse VMDK in one piece.
    Vmdk,
    /// A compressed VMDK that is read and written front to back, as in OVA files.
    VmdkStream,
    /// A dynamic VDI.
    Vdi,
    /// A fixed VDI.
    VdiFixed,
}

impl Kind {
    /// Its format.
    pub fn format(self) -> Format {
        match self {
            Self::Raw => Format::Raw,
            Self::Qcow2(_) => Format::Qcow2,
            Self::Vhd | Self::VhdFixed => Format::Vhd,
            Self::Vhdx | Self::VhdxFixed => Format::Vhdx,
            Self::Vmdk | Self::VmdkStream => Format::Vmdk,
            Self::Vdi | Self::VdiFixed => Format::Vdi,
        }
    }

    /// Says whether it takes up as many bytes as the disk has.
    fn is_fixed(self) -> bool {
        matches!(self, Self::Raw | Self::VhdFixed | Self::VhdxFixed | Self::VdiFixed)
    }

    /// The longest disk that it can hold, in bytes, where its container view has not another limit.
    fn most(self) -> u64 {
        match self {
            Self::Qcow2(_) => qcow2::write::MAX_STREAMED,
            Self::Vmdk | Self::VmdkStream => vmdk::write::MAX_LEN,
            _ => u64::MAX,
        }
    }
}

/// Writes `disk` to the new file `path`, which is there once it is whole. Fails with [`Error::Refused`] where the format cannot hold it.
///
/// Ranges that were unreadable at the source are filled with a marker and listed in the result.
pub fn export(disk: &Arc<dyn Disk>, path: &Path, kind: Kind, identity: &Identity, run: Run<'_>) -> Result<Copied> {
    let format = kind.format();
    // The same rules as for a view: they are those of the format.
    let offer = offers(disk, "disk", identity).into_iter().find(|offer| offer.format == format);
    let refused = |reason: &str| Error::Refused(format!("{} cannot be written as {format}: {reason}", path.display()));
    let view = offer.expect("every format is offered").view.map_err(|reason| refused(&reason))?;
    if disk.len() > kind.most() {
        return Err(refused(&format!("the disk is longer than {} GiB", kind.most() >> 30)));
    }
    // Windows attaches no VHD or VHDX that has the attribute of sparse files.
    let file = NewFile::create(path, !matches!(format, Format::Vhd | Format::Vhdx))?;
    if kind.is_fixed() {
        return write_view(&view, file, run);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let identity = identity.of_part(format.name());
    let copied = match kind {
        Kind::Qcow2(compression) => qcow2::write::write_streamed(disk, &file, compression, run)?,
        Kind::Vhd => vhd::write::write_dynamic(disk, &file, &identity, run)?,
        Kind::Vhdx => vhdx::write::write_dynamic(disk, &file, &identity, run)?,
        Kind::Vmdk => vmdk::write::write_sparse(disk, &file, &quotable(&name), &identity, run)?,
        Kind::VmdkStream => vmdk::write::write_stream(disk, &file, &quotable(&name), &identity, run)?,
        _ => vdi::write::write_dynamic(disk, &file, &identity, run)?,
    };
    file.finish()?;
    Ok(copied)
}

/// The name without what would end it, or its line, in a descriptor. Nobody looks for the file under it: it is the one that the descriptor lies in.
fn quotable(name: &str) -> String {
    name.chars().map(|c| if c == '"' || c.is_control() { '_' } else { c }).collect()
}

/// Writes down a view: the disk in it as every copy does, then what is around it.
fn write_view(view: &View, file: NewFile, run: Run<'_>) -> Result<Copied> {
    let target: Box<dyn Target> = Box::new(FileTarget::of(file, view.len())?);
    let disk = view.disk();
    let shifted = Shifted { target: &*target, by: view.data_offset() };
    let copied = copy(disk, &shifted, CopyOptions::default(), run)?;
    let end = view.data_offset().saturating_add(disk.len());
    for range in [0..view.data_offset(), end..view.len()] {
        let mut at = range.start;
        while at < range.end {
            let extent = view.extent_at(at)?;
            let part_end = extent.end().min(range.end).min(at.saturating_add(PART));
            let len = usize::try_from(part_end.saturating_sub(at)).expect("at most a megabyte");
            target.write_at(&read_vec(view, at, len)?, at)?;
            at = part_end;
        }
    }
    target.finish()?;
    Ok(copied)
}

/// A target seen from a later byte on.
struct Shifted<'a> {
    target: &'a dyn Target,
    by: u64,
}

impl Target for Shifted<'_> {
    fn len(&self) -> u64 {
        self.target.len().saturating_sub(self.by)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.target.write_at(bytes, self.by.saturating_add(offset))
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.target.zero_at(self.by.saturating_add(offset), len)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
