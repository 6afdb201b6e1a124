//! The gate: what may be opened because an image names it.
//!
//! An image is untrusted, and so is every name in it. A name is resolved against the folder of the image that names it, symbolic links
//! followed; the result must be a regular file in or below that folder (or another that the user allowed). What is not is refused before it is
//! opened: devices and FIFOs are told by their metadata, URLs and QEMU's protocol prefixes by their form.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::cache::Caches;
use crate::format::file::ImageFile;
use crate::platform;

/// Images in a chain, the opened one included.
pub const MAX_DEPTH: usize = 16;
/// Entries of a folder that are looked at when a base is found by its identifier.
const MAX_LISTED: usize = 10_000;

/// What may be opened because an image names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing at all.
    Nothing,
    /// Regular files in the folder of the image that names them, or below it.
    #[default]
    SameFolder,
    /// Those, and regular files in or below these folders.
    Folders(Vec<PathBuf>),
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("an image opens no other file"),
            Self::SameFolder => f.write_str("regular files in the image's own folder"),
            Self::Folders(folders) => {
                f.write_str("regular files in the image's own folder")?;
                folders.iter().try_for_each(|folder| write!(f, " or in {}", folder.display()))
            }
        }
    }
}

/// A name in an image, on its way through the gate.
struct Request<'a> {
    policy: &'a Policy,
    from: &'a ImageFile,
    what: &'static str,
    name: &'a [u8],
}

impl Request<'_> {
    fn refused(&self, why: impl fmt::Display) -> Error {
        let name = String::from_utf8_lossy(self.name);
        let (what, from, policy) = (self.what, self.from.name(), self.policy);
        Error::Refused(format!(
            "{from} names the {what} {name:?}, which the policy refuses: {why} (the policy is: {policy})"
        ))
    }

    /// The folders in which the file may lie, the naming image's own first, symbolic links resolved.
    fn folders(&self) -> Result<Vec<PathBuf>> {
        if *self.policy == Policy::Nothing {
            return Err(self.refused("no other file may be opened"));
        }
        let own = self.from.path().and_then(Path::parent);
        let own = own.ok_or_else(|| self.refused("the image lies in no folder"))?;
        let more = match self.policy {
            Policy::Folders(more) => more.as_slice(),
            _ => &[],
        };
        // A path as Windows writes it and the same path as people write it do not compare, so all are of the former kind.
        let real = |folder| std::fs::canonicalize(folder).map_err(|error| Error::io("find", folder, error));
        [own].into_iter().chain(more.iter().map(PathBuf::as_path)).map(real).collect()
    }

    /// Refuses names that mean something other than a path.
    fn check_form(&self) -> Result<PathBuf> {
        let prefix = self.name.split(|byte| *byte == b'/').next().unwrap_or_default();
        let path = platform::path_of(self.name).filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or_else(|| self.refused("it is no path"))?;
        if prefix.contains(&b':') {
            return Err(self.refused("it is a URL or begins with a protocol, and only paths are opened"));
        }
        Ok(path)
    }
}

/// Opens what `from` names as its `what`. [`Error::NotFound`] where it would be allowed but does not exist.
pub(crate) fn open_named(
    policy: &Policy,
    from: &ImageFile,
    what: &'static str,
    name: &[u8],
    caches: &Arc<Caches>,
) -> Result<ImageFile> {
    let request = Request { policy, from, what, name };
    let folders = request.folders()?;
    let path = request.check_form()?;
    let outside = || request.refused("it lies elsewhere");
    let own = folders.first().expect("the own folder is always there");
    // Whether a file exists elsewhere is nobody's business either.
    let may_leave = path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir);
    let real = match std::fs::canonicalize(own.join(&path)) {
        Ok(real) => real,
        Err(_) if may_leave => return Err(outside()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let name = String::from_utf8_lossy(name);
            return Err(Error::NotFound(format!("{} needs the {what} {name:?}, which is missing", from.name())));
        }
        Err(error) => return Err(Error::io("find", own.join(&path), error)),
    };
    if !folders.iter().any(|folder| real.starts_with(folder)) {
        return Err(outside());
    }
    ImageFile::named(open_regular(&request, &real)?, platform::written_path(real), caches)
}

/// Opens a regular file at a path without symbolic links, so that nothing else is ever opened, whatever is put there meanwhile.
fn open_regular(request: &Request<'_>, real: &Path) -> Result<File> {
    let io = |error| Error::io("open", real, error);
    let kind = std::fs::symlink_metadata(real).map_err(io)?.file_type();
    if !kind.is_file() {
        return Err(request.refused(format_args!("it is {}", platform::kind_name(kind))));
    }
    let file = platform::open_plain(real).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(request.refused("it was replaced while it was opened"));
    }
    Ok(file)
}

/// Calls `visit` for the regular files with this extension in the folders where a base of `from` may lie, until it returns a file.
pub(crate) fn search(
    policy: &Policy,
    from: &ImageFile,
    what: &'static str,
    extension: &str,
    caches: &Arc<Caches>,
    mut visit: impl FnMut(ImageFile) -> Option<ImageFile>,
) -> Result<Option<ImageFile>> {
    let request = Request { policy, from, what, name: b"*" };
    let mut seen = 0_usize;
    for folder in request.folders()? {
        let entries = std::fs::read_dir(&folder).map_err(|error| Error::io("list", &folder, error))?;
        for entry in entries {
            let path = entry.map_err(|error| Error::io("list", &folder, error))?.path();
            seen = seen.saturating_add(1);
            if seen > MAX_LISTED {
                return Ok(None);
            }
            if !path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension)) {
                continue;
            }
            // What cannot be opened is not what is looked for.
            let Ok(file) = open_regular(&request, &path) else { continue };
            let file = ImageFile::named(file, platform::written_path(path), caches)?;
            if let Some(found) = visit(file) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}
