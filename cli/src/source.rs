//! Opening what a user names as a source: a raw file or block device, with its identity and its guards.

use std::path::Path;
use std::sync::Arc;

use imgfmt::capture::CaptureSource;
use imgfmt::image::record::Source;
use imgfmt::partition::detect_sector_size;
use imgfmt::source::device::{Kind, Use};
use imgfmt::source::{FileDisk, System};

use crate::exit::Failure;

/// Opens a source and describes it.
pub(crate) fn open(path: &Path, sector_size: Option<u32>) -> Result<CaptureSource, Failure> {
    let system = System::default();
    let description = system.describe(path)?;
    let sector_size = match sector_size.or(description.logical_sector_size) {
        Some(size @ (512 | 4096)) => size,
        Some(size) => {
            return Err(Failure::Refused(format!(
                "{} has sectors of {size} bytes: 512 and 4096 are read",
                path.display()
            )));
        }
        None => detect_sector_size(&FileDisk::open(path, 512)?),
    };
    let disk = FileDisk::open(path, sector_size)?;
    let kind = match description.kind {
        Kind::File => "file",
        Kind::BlockDevice => "block device",
    };
    Ok(CaptureSource {
        disk: Arc::new(disk),
        identity: Source {
            path: description.path.display().to_string(),
            kind: kind.into(),
            model: description.model,
            serial: description.serial,
            live: false,
        },
        physical_sector_size: description.physical_sector_size.unwrap_or(sector_size),
    })
}

/// Refuses a source that may change while it is read. Returns whether it is in such use all the same (`--live`).
pub(crate) fn guard_live(path: &Path, live: bool) -> Result<bool, Failure> {
    let uses = System::default().uses_of(path)?;
    let changing = uses.iter().find_map(|use_| match use_ {
        Use::MountedWritable(place) => Some(format!("it is mounted for writing at {}", place.display())),
        Use::Swap => Some("it is in use as swap".to_owned()),
        Use::MountedReadOnly(_) => None,
    });
    match changing {
        None => Ok(false),
        Some(_) if live => Ok(true),
        Some(why) => Err(Failure::Refused(format!(
            "{} may change while it is read: {why}; unmount it, capture a snapshot of it (LVM, btrfs, VSS), or say --live",
            path.display()
        ))),
    }
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
