//! Raw disks: one file or device, or a file split into `NAME.001`, `NAME.002`, and so on.

use crate::error::{Error, Result};
use crate::format::chain::{Opened, Opener};
use crate::format::file::ImageFile;
use crate::format::layer::{Layer, Place, Run};
use crate::format::{About, Driver, Format};

/// What claims a file that no other driver does.
pub(super) const DRIVER: Driver = Driver { format: Format::Raw, probe: |_| true, open };

/// Files that a disk may be split into.
const MAX_PARTS: usize = 4096;
/// Numbers behind a missing part that are tried, to tell an end from a gap.
const LOOK_AHEAD: usize = 8;

/// Files whose bytes follow one another.
struct Raw {
    /// Each file with the byte of the disk at which it starts, ascending. Empty ones are left out.
    parts: Vec<(u64, ImageFile)>,
    len: u64,
}

fn open(opener: &Opener<'_>, file: &ImageFile) -> Result<Opened> {
    let files = parts(opener, file)?;
    let more_files = files.iter().skip(1).map(ImageFile::place).collect::<Vec<_>>();
    let variant = match more_files.len() {
        0 => String::new(),
        more => format!("split into {} files", more.saturating_add(1)),
    };
    let mut raw = Raw { parts: Vec::new(), len: 0 };
    for part in files {
        let (start, len) = (raw.len, part.len());
        raw.len = start.checked_add(len).ok_or_else(|| part.corrupt("length", 0, "the parts are too long together"))?;
        if len > 0 {
            raw.parts.push((start, part));
        }
    }
    let about = About {
        format: Format::Raw,
        variant,
        file: file.place(),
        more_files,
        identity: String::new(),
        notes: Vec::new(),
        base: None,
    };
    Ok(Opened { layer: Box::new(raw), about, base: None, sector_size: None })
}

/// The files that continue this one, itself first: those of the following numbers where its name ends in `.000` or `.001`.
fn parts(opener: &Opener<'_>, first: &ImageFile) -> Result<Vec<ImageFile>> {
    let mut parts = vec![first.clone()];
    let name = first.path().and_then(|path| path.file_name()?.to_str());
    let Some((stem, digits)) = name.and_then(|name| name.rsplit_once('.')) else { return Ok(parts) };
    let is_number = digits.len() >= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = digits.parse::<usize>().ok().filter(|number| is_number && *number <= 1) else {
        return Ok(parts);
    };
    let width = digits.len();
    let whole = first.len();
    for next in number.saturating_add(1).. {
        let name = format!("{stem}.{next:0width$}");
        let part = match opener.open_named(first, "part", name.as_bytes()) {
            Ok(part) => part,
            Err(Error::NotFound(_)) => {
                check_no_more(opener, first, stem, width, next)?;
                break;
            }
            Err(error) => return Err(error),
        };
        // Splitting makes pieces of one size; a short one before the last was not copied whole, and all behind it would be misplaced.
        if parts.last().is_some_and(|last| last.len() != whole) || part.len() > whole {
            return Err(part.corrupt("length", 0, "the parts before it are not of one length, or it is longer"));
        }
        parts.push(part);
        if parts.len() > MAX_PARTS {
            return Err(first.unsupported(format_args!("more than {MAX_PARTS} parts")));
        }
    }
    Ok(parts)
}

/// Fails where files of higher numbers follow the missing one: the disk would end too soon.
fn check_no_more(opener: &Opener<'_>, first: &ImageFile, stem: &str, width: usize, missing: usize) -> Result<()> {
    for ahead in 1..=LOOK_AHEAD {
        let name = format!("{stem}.{:0width$}", missing.saturating_add(ahead));
        if opener.open_named(first, "part", name.as_bytes()).is_ok() {
            let missing = format!("{stem}.{missing:0width$}");
            return Err(Error::NotFound(format!("{} needs the part {missing:?}, which is missing", first.name())));
        }
    }
    Ok(())
}

impl Layer for Raw {
    fn len(&self) -> u64 {
        self.len
    }

    fn run_at(&self, offset: u64, _most: u64) -> Result<Run<'_>> {
        let next = self.parts.partition_point(|(start, _)| *start <= offset);
        let (start, file) = next.checked_sub(1).and_then(|at| self.parts.get(at)).expect("the offset is in the disk");
        let within = offset.saturating_sub(*start);
        Ok(Run { len: file.len().saturating_sub(within), place: Place::Stored { file, offset: within } })
    }
}
