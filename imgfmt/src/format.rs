//! Image formats: virtual disk files of other programs, read as disks.
//!
//! Each format is a driver in one table: a name, a probe and an opener. An opener parses the file's header and returns a
//! `Layer`, which only says *where* each byte of the disk lies; the reading, the bases, the extents and the caches are
//! the same for all of them.
//!
//! Tables of a format are read in pages through a cache of limited size, never as a whole, so opening a file costs the same whatever its
//! header claims. Whatever a file names (a base, an extent, a data file) is opened only as the [`Policy`] allows.

pub mod cache;
pub mod chain;
pub mod file;
pub mod identity;
pub mod layer;
mod names;
pub mod policy;
pub mod qcow2;
pub mod raw;
pub mod unpack;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
pub(crate) mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::disk::{Disk, Extent, read_vec};
use crate::error::{Error, Result};
use crate::format::cache::Caches;
use crate::format::chain::{Base, Opened, Opener};
use crate::format::file::ImageFile;
use crate::partition::detect_sector_size;
use crate::platform;

pub use policy::Policy;

/// An image format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bytes of the disk and nothing else, in one file or split into several.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// Virtual PC and early Hyper-V.
    Vhd,
    /// Hyper-V.
    Vhdx,
    /// VMware.
    Vmdk,
    /// VirtualBox.
    Vdi,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [Self::Raw, Self::Qcow2, Self::Vhd, Self::Vhdx, Self::Vmdk, Self::Vdi];

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
        }
    }

    /// The format that a file name's extension stands for, where it stands for one.
    pub fn of_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "raw" | "img" | "dd" => Some(Self::Raw),
            "vpc" => Some(Self::Vhd),
            name => name.parse().ok(),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("{text:?} is no image format: {} are", known()))
    }
}

/// How an image is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// What may be opened because the image names it.
    pub policy: Policy,
    /// The format, where it is known; otherwise the file is probed, raw last.
    pub format: Option<Format>,
    /// The internal snapshot to open, by identifier or name, instead of the current state.
    pub snapshot: Option<String>,
    /// Logical sector size in bytes (512 or 4096), where the caller knows better than the format, which mostly has no say.
    pub sector_size: Option<u32>,
    /// Most bytes of decoded clusters that are kept, shared by the image and its bases.
    pub cache_bytes: u64,
    /// Open this file without its base: what it is silent about is Absent.
    pub without_base: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            format: None,
            snapshot: None,
            sector_size: None,
            cache_bytes: 64 << 20,
            without_base: false,
        }
    }
}

/// What an opened image says of itself, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its format.
    pub format: Format,
    /// What kind of that format, in words: "dynamic, blocks of 2 MiB".
    pub variant: String,
    /// The file, symbolic links resolved; a mere name where its bytes lie in no folder.
    pub file: PathBuf,
    /// Further files that hold its data, in order.
    pub more_files: Vec<PathBuf>,
    /// The identifier by which an image over this one knows it; empty where the format has none.
    pub identity: String,
    /// What the user should know: it was not closed cleanly, a copy of the header was used. Phrases.
    pub notes: Vec<String>,
    /// The image below.
    pub base: Option<Box<About>>,
}

impl About {
    /// This image and those below it, top first.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |about| about.base.as_deref())
    }

    /// Says whether `file` is one of the files that hold this image or those below it, whatever it is called.
    pub fn has_file(&self, file: &Path) -> Result<bool> {
        if !file.exists() {
            return Ok(false);
        }
        for about in self.chain() {
            for own in std::iter::once(&about.file).chain(&about.more_files).filter(|own| own.exists()) {
                if platform::same_file(own, file).map_err(|error| Error::io("examine", own, error))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// An internal snapshot: an older state of the disk in the same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its identifier, unique in the file. Untrusted text.
    pub id: String,
    /// Its name. Untrusted text.
    pub name: String,
    /// When it was taken, in seconds since 1970.
    pub created: u64,
    /// Bytes of the disk in that state.
    pub len: u64,
}

/// A virtual disk file, opened with everything below it.
pub struct DiskImage {
    disk: Arc<dyn Disk>,
    about: About,
    snapshots: Vec<Snapshot>,
}

impl fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskImage").field("about", &self.about).finish_non_exhaustive()
    }
}

impl DiskImage {
    /// What it is.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Its internal snapshots.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// The disk alone.
    pub fn into_disk(self) -> Arc<dyn Disk> {
        self.disk
    }
}

impl Disk for DiskImage {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.disk.extent_at(offset)
    }
}

/// What a probe looks at.
struct Sample<'a> {
    /// The first 4096 bytes, or fewer where the file is shorter.
    head: &'a [u8],
    /// The last 512 bytes, or fewer.
    tail: &'a [u8],
}

/// A format's place in the table.
struct Driver {
    format: Format,
    /// Says whether the file is of this format.
    probe: fn(&Sample<'_>) -> bool,
    /// Opens it.
    open: fn(&Opener<'_>, &ImageFile) -> Result<Opened>,
}

/// The formats that are read, in the order in which a file is probed. Raw, which claims everything, is the last.
const DRIVERS: &[Driver] = &[qcow2::DRIVER, vhdx::DRIVER, vdi::DRIVER, vmdk::DRIVER, vhd::DRIVER, raw::DRIVER];

/// Signatures at byte 0 of formats that are not read: a disk of these bytes is most likely no raw disk.
const FOREIGN: [(&[u8], &str); 5] = [
    (b"QFI\xfb\x00\x00\x00\x01", "qcow version 1"),
    (b"QED\0", "QED"),
    (b"WithoutFreeSpace", "Parallels"),
    (b"WithouFreSpacExt", "Parallels"),
    (b"EVF\x09\x0d\x0a\xff\x00", "EWF (E01)"),
];

/// Opens a virtual disk file, and what it names as far as the policy allows.
///
/// A block device is raw unless `options.format` says otherwise: whoever uses it could have written any header there.
pub fn open(path: &Path, options: &OpenOptions) -> Result<DiskImage> {
    let caches = Arc::new(Caches::new(options.cache_bytes));
    let (file, is_device) = ImageFile::open_given(path, &caches)?;
    let format = options.format.or(is_device.then_some(Format::Raw));
    open_file(&file, format, options, &caches)
}

/// Opens a virtual disk file whose bytes are themselves a disk (in memory, or in another image). It can name no other file.
pub fn open_within(bytes: Arc<dyn Disk>, name: &str, options: &OpenOptions) -> Result<DiskImage> {
    let caches = Arc::new(Caches::new(options.cache_bytes));
    let file = ImageFile::without_folder(bytes, name, &caches);
    open_file(&file, options.format, options, &caches)
}

fn open_file(
    file: &ImageFile,
    format: Option<Format>,
    options: &OpenOptions,
    caches: &Arc<Caches>,
) -> Result<DiskImage> {
    let format = format.map_or_else(|| probe(file), Ok)?;
    let opener = Opener::new(&options.policy, options.snapshot.as_deref(), caches);
    let top = opener.open(file, format)?;
    let mut about = top.about;
    // The current state does not depend on them.
    let snapshots = top.layer.snapshots().unwrap_or_else(|error| {
        about.notes.push(format!("its snapshots cannot be listed: {error}"));
        Vec::new()
    });
    let base = match top.base {
        None => Base::Nothing,
        Some(_) if options.without_base => Base::LeftOut,
        Some(wish) => opener.open_base(file, &wish)?,
    };
    let told = options.sector_size.or(top.sector_size);
    let (stack, base) = chain::stack(top.layer, base, told.unwrap_or(512), caches);
    let sector_size = told.unwrap_or_else(|| detect_sector_size(&stack));
    let disk: Arc<dyn Disk> = Arc::new(stack.with_sector_size(sector_size));
    about.base = base;
    Ok(DiskImage { disk, about, snapshots })
}

/// Says of which format a file is.
fn probe(file: &ImageFile) -> Result<Format> {
    let len = file.disk().len();
    let part = |most: u64| usize::try_from(len.min(most)).expect("at most a page");
    let head = read_vec(file.disk(), 0, part(4096))?;
    let tail = read_vec(file.disk(), len.saturating_sub(512), part(512))?;
    if let Some((_, name)) = FOREIGN.iter().find(|(signature, _)| head.starts_with(signature)) {
        return Err(Error::unsupported(file.name(), format_args!("it is a file of the format {name}")));
    }
    let sample = Sample { head: &head, tail: &tail };
    let driver = DRIVERS.iter().find(|driver| (driver.probe)(&sample));
    Ok(driver.map_or(Format::Raw, |driver| driver.format))
}
