//! Reading: descriptor, extents, parent.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::error::Result;
use crate::format::chain::{BaseWish, Opened, Opener};
use crate::format::file::ImageFile;
use crate::format::layer::{Layer, Packed, Place, Run};
use crate::format::vmdk::descriptor::{self, Descriptor, ExtentLine};
use crate::format::vmdk::layout::{COWD_MAGIC, DESCRIPTOR_START, MAGIC, SECTOR};
use crate::format::vmdk::sparse::Sparse;
use crate::format::{About, Format, Sample, names};

const DESCRIPTOR: &str = "VMDK descriptor";
/// Longest descriptor, in bytes.
const MAX_DESCRIPTOR: u64 = 1 << 20;

pub(super) fn probe(sample: &Sample<'_>) -> bool {
    sample.head.starts_with(DESCRIPTOR_START) || sample.head.starts_with(&MAGIC) || sample.head.starts_with(&COWD_MAGIC)
}

/// A run of the disk in a file.
struct Extent {
    /// First byte in the disk.
    start: u64,
    len: u64,
    body: Body,
}

enum Body {
    Flat { file: ImageFile, offset: u64 },
    Sparse(Box<Sparse>),
    Zero,
}

/// An opened disk.
struct Vmdk {
    len: u64,
    /// Ascending, without gaps.
    extents: Vec<Extent>,
}

pub(super) fn open(opener: &Opener<'_>, file: &ImageFile) -> Result<Opened> {
    let magic = file.read_vec("VMDK file", 0, 4)?;
    let (descriptor, vmdk, more_files) = if magic == MAGIC || magic == COWD_MAGIC {
        let (descriptor, vmdk) = open_monolithic(file)?;
        (descriptor, vmdk, Vec::new())
    } else {
        let descriptor = read_descriptor(file, 0, file.len())?;
        let (vmdk, more_files) = open_extents(opener, file, &descriptor.extents)?;
        (descriptor, vmdk, more_files)
    };
    let about = About {
        format: Format::Vmdk,
        variant: descriptor.create_type.clone(),
        file: file.place(),
        more_files,
        identity: format!("{:08x}", descriptor.cid),
        notes: Vec::new(),
        base: None,
    };
    let base = match descriptor.parent_cid {
        None => None,
        Some(cid) => {
            // Hosted products on Windows write backslashes.
            let hint = descriptor.parent_hint.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
            let names = names::to_try(&[hint]);
            if names.is_empty() {
                return Err(file.corrupt(DESCRIPTOR, 0, "it has a parent but does not name it"));
            }
            let identity = Some(format!("{cid:08x}"));
            Some(BaseWish { what: "parent", names, format: Some(Format::Vmdk), identity })
        }
    };
    Ok(Opened { layer: Box::new(vmdk), about, base, sector_size: Some(512) })
}

fn read_descriptor(file: &ImageFile, at: u64, len: u64) -> Result<Descriptor> {
    if len > MAX_DESCRIPTOR {
        return Err(file.corrupt(DESCRIPTOR, at, "it is longer than a megabyte"));
    }
    let text = file.read_vec(DESCRIPTOR, at, usize::try_from(len).expect("at most 1 MiB"))?;
    descriptor::parse(&text).map_err(|reason| file.corrupt(DESCRIPTOR, at, reason))
}

/// A sparse file with its descriptor inside.
fn open_monolithic(file: &ImageFile) -> Result<(Descriptor, Vmdk)> {
    let sparse = Sparse::open(file)?;
    let header = sparse.header();
    let (at, len) = (header.descriptor_offset.get(), header.descriptor_size.get());
    let is_blank = |at: u64| file.read_vec(DESCRIPTOR, at.saturating_mul(SECTOR), 1).is_ok_and(|bytes| bytes == [0]);
    if at == 0 || len == 0 || is_blank(at) {
        return Err(file.unsupported("an extent without a descriptor; open the descriptor that lists it"));
    }
    let descriptor = read_descriptor(file, at.saturating_mul(SECTOR), len.saturating_mul(SECTOR))?;
    // The one extent is this file, whatever it was called when it was made.
    if descriptor.extents.len() != 1 {
        return Err(file.unsupported("further extents beside a sparse file with a descriptor inside"));
    }
    let len = sparse.capacity();
    let extent = Extent { start: 0, len, body: Body::Sparse(Box::new(sparse)) };
    Ok((descriptor, Vmdk { len, extents: vec![extent] }))
}

/// The files that a descriptor lists. Returns their names too.
fn open_extents(opener: &Opener<'_>, file: &ImageFile, lines: &[ExtentLine]) -> Result<(Vmdk, Vec<PathBuf>)> {
    let mut vmdk = Vmdk { len: 0, extents: Vec::new() };
    let mut opened: HashMap<&[u8], ImageFile> = HashMap::new();
    let mut names = Vec::new();
    for line in lines {
        let len = line.sectors.checked_mul(SECTOR).filter(|len| i64::try_from(*len).is_ok());
        let end = len.and_then(|len| vmdk.len.checked_add(len)).filter(|end| i64::try_from(*end).is_ok());
        let (Some(len), Some(end)) = (len, end) else {
            return Err(file.corrupt(DESCRIPTOR, 0, "an extent is too long"));
        };
        let mut named = || match opened.get(&line.name[..]) {
            Some(file) => Ok(file.clone()),
            None => {
                let extent = opener.open_named(file, "extent", &line.name)?;
                names.push(extent.place());
                opened.insert(&line.name, extent.clone());
                Ok(extent)
            }
        };
        let body = match line.kind.as_str() {
            "ZERO" => Body::Zero,
            "FLAT" | "VMFS" => {
                let extent = named()?;
                let offset = line.offset.saturating_mul(SECTOR);
                extent.check("VMDK flat extent", offset, len)?;
                Body::Flat { file: extent, offset }
            }
            "SPARSE" => {
                let extent = named()?;
                let sparse = Sparse::open(&extent)?;
                if sparse.capacity() < len {
                    return Err(extent.corrupt(
                        "VMDK sparse extent header",
                        12,
                        "it is shorter than its descriptor says",
                    ));
                }
                Body::Sparse(Box::new(sparse))
            }
            other => return Err(file.unsupported(format_args!("an extent of type {other:?}"))),
        };
        vmdk.extents.push(Extent { start: vmdk.len, len, body });
        vmdk.len = end;
    }
    Ok((vmdk, names))
}

impl Vmdk {
    fn extent_of(&self, offset: u64) -> &Extent {
        let next = self.extents.partition_point(|extent| extent.start <= offset);
        next.checked_sub(1).and_then(|at| self.extents.get(at)).expect("the offset is in the disk")
    }
}

impl Layer for Vmdk {
    fn len(&self) -> u64 {
        self.len
    }

    fn run_at(&self, offset: u64, _most: u64) -> Result<Run<'_>> {
        let extent = self.extent_of(offset);
        let within = offset.saturating_sub(extent.start);
        let rest = extent.len.saturating_sub(within);
        let run = match &extent.body {
            Body::Zero => Run { len: rest, place: Place::Zero },
            Body::Flat { file, offset } => {
                Run { len: rest, place: Place::Stored { file, offset: offset.saturating_add(within) } }
            }
            Body::Sparse(sparse) => sparse.run_at(within)?,
        };
        Ok(Run { len: run.len.min(rest), place: run.place })
    }

    fn unpack(&self, packed: &Packed<'_>, out: &mut [u8]) -> Result<()> {
        let sparse = self.extents.iter().find_map(|extent| match &extent.body {
            Body::Sparse(sparse) if sparse.is_in(packed.file) => Some(sparse),
            _ => None,
        });
        sparse.expect("the extent named this file itself").unpack(packed.offset, out)
    }
}
