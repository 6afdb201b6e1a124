//! Opening what a user names as a disk and is no hikae image: a virtual disk file, a raw file or a block device, with its identity and its guards.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::capture::{CaptureSource, shadow};
use imgfmt::format::{self, About, Format, OpenOptions, Policy, Snapshot};
use imgfmt::image::record::Source;
use imgfmt::source::device::{Kind, Still, Use};
use imgfmt::source::{ShadowCopies, System};

use crate::exit::Failure;
use crate::text::printable;

/// How a disk is opened that is no generation of a hikae image.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct DiskOptions {
    /// What the disk's file is: raw, qcow2, vhd, vhdx, vmdk or vdi. Found out by default; a device is raw.
    #[arg(long, value_name = "FORMAT")]
    image_format: Option<Format>,
    /// A folder in which a disk may have its base (backing file, parent) besides its own folder; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    allow_base: Vec<PathBuf>,
}

/// An opened disk.
pub(crate) struct Opened {
    /// The disk with its identity.
    pub(crate) source: CaptureSource,
    /// What its file is.
    pub(crate) about: About,
    /// Older states of it in the same file.
    pub(crate) snapshots: Vec<Snapshot>,
}

impl Opened {
    /// Says on stderr what the user should know of it.
    pub(crate) fn tell_notes(&self) {
        for about in self.about.chain() {
            for note in &about.notes {
                let file = about.file.display().to_string();
                eprintln!("hikae: warning: {}: {}", printable(&file), printable(note));
            }
        }
    }
}

/// Opens a disk and describes it.
pub(crate) fn open(
    path: &Path,
    snapshot: Option<&str>,
    sector_size: Option<u32>,
    options: &DiskOptions,
) -> Result<Opened, Failure> {
    let description = System::default().describe(path)?;
    let sector_size = match sector_size.or(description.logical_sector_size) {
        Some(size) if !matches!(size, 512 | 4096) => {
            return Err(Failure::Refused(format!(
                "{} has sectors of {size} bytes: 512 and 4096 are read",
                path.display()
            )));
        }
        told => told,
    };
    let policy = match options.allow_base.as_slice() {
        [] => Policy::SameFolder,
        folders => Policy::Folders(folders.to_vec()),
    };
    let options = OpenOptions {
        policy,
        format: options.image_format,
        snapshot: snapshot.map(str::to_owned),
        sector_size,
        ..OpenOptions::default()
    };
    let image = format::open(path, &options)?;
    let (about, snapshots) = (image.about().clone(), image.snapshots().to_vec());
    let kind = match (description.kind, about.format) {
        (Kind::BlockDevice, _) => "block device".to_owned(),
        (Kind::File, Format::Raw) => "file".to_owned(),
        (Kind::File, format) => format!("{format} file"),
    };
    let source = CaptureSource {
        physical_sector_size: description.physical_sector_size.unwrap_or(image.sector_size()),
        disk: Arc::new(image),
        identity: Source {
            path: description.path.display().to_string(),
            kind,
            model: description.model,
            serial: description.serial,
            ..Source::default()
        },
    };
    Ok(Opened { source, about, snapshots })
}

/// A source that may be read now: what keeps it from changing until it was read.
#[derive(Debug, Default)]
pub(crate) struct Readable {
    /// It may change while it is read (`--live`).
    pub(crate) live: bool,
    /// Nobody else can write to it.
    _still: Option<Still>,
    /// What it was at one moment is read instead.
    copies: Option<ShadowCopies>,
}

impl Readable {
    /// Has `source` read as it was at one moment, where there are shadow copies of it, and its identity say how it is read.
    pub(crate) fn prepare(&self, source: &mut CaptureSource) -> Result<(), Failure> {
        source.identity.live = self.live;
        let Some(copies) = &self.copies else { return Ok(()) };
        let over = copies.copies.iter().map(|copy| {
            let disk: Arc<dyn Disk> = copy.disk.clone();
            let range = copy.range.start..copy.range.end.min(source.disk.len());
            shadow::Copy { volume: copy.volume.clone(), range, disk }
        });
        source.disk = shadow::over(&source.disk, over.collect())?;
        source.identity.shadow_copies = copies.copies.iter().map(|copy| copy.volume.clone()).collect();
        Ok(())
    }

    /// What is to be known of it besides.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let Some(copies) = &self.copies else { return Vec::new() };
        let without = copies.without.iter();
        without
            .map(|volume| format!("there are no shadow copies of {volume}, so it may have changed while it was read"))
            .chain(copies.warnings.iter().cloned())
            .collect()
    }

    /// The bytes where the system wrote out all metadata first.
    pub(crate) fn flushed(&self) -> Vec<Range<u64>> {
        self.copies.iter().flat_map(|copies| &copies.copies).map(|copy| copy.range.clone()).collect()
    }

    /// The source was read, and nothing of it is needed any more.
    pub(crate) fn finish(self) {
        if let Some(copies) = self.copies {
            copies.finish();
        }
    }
}

/// Refuses a source that may change while it is read, unless it can be kept still or that is asked for (`--live`).
pub(crate) fn guard_live(path: &Path, live: bool) -> Result<Readable, Failure> {
    let system = System::default();
    let uses = system.uses_of(path)?;
    let changing = uses.iter().find_map(|use_| match use_ {
        Use::MountedWritable(place) => Some(format!("it is mounted for writing at {}", place.display())),
        Use::Swap => Some("it is in use as swap".to_owned()),
        Use::MountedReadOnly(_) => None,
    });
    let Some(why) = changing else { return Ok(Readable::default()) };
    if live && let Some(copies) = system.shadow_copies(path, &mut |doing| eprintln!("{}", printable(doing)))? {
        return Ok(Readable { live: !copies.without.is_empty(), copies: Some(copies), ..Readable::default() });
    }
    if let Some(still) = system.keep_still(path)? {
        return Ok(Readable { _still: Some(still), ..Readable::default() });
    }
    if live {
        return Ok(Readable { live: true, ..Readable::default() });
    }
    Err(Failure::Refused(format!(
        "{} may change while it is read: {why}; {}",
        path.display(),
        crate::system::HOW_TO_READ_IN_USE
    )))
}

/// Refuses an image that would be written onto the disk that it is made of.
pub(crate) fn guard_image_place(source: &Path, image: &Path) -> Result<(), Failure> {
    let folder = image.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let itself =
        std::fs::canonicalize(image).ok().is_some_and(|image| std::fs::canonicalize(source).ok() == Some(image));
    if itself || System::default().lies_on(folder, source)? {
        return Err(Failure::Refused(format!(
            "{} lies on {} itself: writing the image would change what is captured; put it on another disk",
            image.display(),
            source.display()
        )));
    }
    Ok(())
}
