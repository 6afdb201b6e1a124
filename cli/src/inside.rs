//! `IMAGE[@GEN][:/PATH]`: which image, which generation, and which path inside.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::Error;
use imgfmt::filesystem::files::{FileSystem, NodeId, NodeKind};
use imgfmt::image::{Image, OpenOptions};
use imgfmt::tree::resolve::{Resolved, resolve};
use imgfmt::tree::{Tree, TreeOptions};

use crate::exit::Failure;
use crate::image_name::{ImageName, choose, tell_warnings};
use crate::source::{self, DiskOptions};

/// A path inside an image, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    /// Image and generation.
    pub(crate) name: ImageName,
    /// The path inside, starting with `/`; "/" where none was typed.
    pub(crate) path: Vec<u8>,
    /// Whether a path inside was typed.
    pub(crate) has_path: bool,
}

impl Inside {
    /// Splits at the first `:/` whose left side is an image, unless the whole text is an existing path.
    pub(crate) fn parse(text: &OsStr) -> Self {
        let whole = |text: &OsStr| ImageName::parse(&text.to_string_lossy());
        if Path::new(text).exists() {
            return Self { name: whole(text), path: b"/".to_vec(), has_path: false };
        }
        let bytes = text.as_encoded_bytes();
        let splits = bytes.windows(2).enumerate().filter(|(_, pair)| pair == b":/").map(|(at, _)| at);
        // A path inside may hold ":/" itself, and so may the path of the image: the first split that leads to a file decides.
        let mut chosen = None;
        for at in splits {
            if crate::system::is_drive(bytes.get(..at).unwrap_or_default()) {
                continue;
            }
            let image = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default()).into_owned();
            let name = ImageName::parse(&image);
            let exists = name.path.exists();
            if exists || chosen.is_none() {
                chosen = Some((name, at.saturating_add(1)));
            }
            if exists {
                break;
            }
        }
        match chosen {
            Some((name, at)) => Self { name, path: bytes.get(at..).unwrap_or_default().to_vec(), has_path: true },
            None => Self { name: whole(text), path: b"/".to_vec(), has_path: false },
        }
    }

    /// Opens the tree of the image or disk. Warnings about it go to stderr.
    pub(crate) fn open(&self, packs: &[PathBuf]) -> Result<Opened, Failure> {
        let opened = self.open_quietly(packs)?;
        if let Some((image, _)) = &opened.image {
            tell_warnings(image);
        }
        Ok(opened)
    }

    /// The same without a word.
    pub(crate) fn open_quietly(&self, packs: &[PathBuf]) -> Result<Opened, Failure> {
        let options = TreeOptions::default();
        if self.name.path.extension() != Some(OsStr::new("hik")) {
            let wish = self.name.generation.as_deref();
            let source = source::open(&self.name.path, wish, None, &DiskOptions::default())?.source;
            let tree = Tree::of_disk(source.disk, &self.name.identity_of_file(), &options);
            let start = tree.root();
            return Ok(Opened { tree, start, image: None, prefix: self.name.to_string() });
        }
        let image = self.name.open_quietly(packs, &OpenOptions::default())?;
        let entry = choose(&image, self.name.generation.as_deref().unwrap_or("latest"))?;
        let tree = Tree::of_image(Arc::clone(&image), &options);
        let start = tree.generation(entry.number)?;
        let prefix = format!("{}@{}", self.name.path.display(), entry.number);
        Ok(Opened { tree, start, image: Some((image, entry.number)), prefix })
    }
}

/// A tree, and the folder in it that paths start at.
pub(crate) struct Opened {
    pub(crate) tree: Tree,
    /// The folder of the generation.
    pub(crate) start: NodeId,
    /// The image and the generation's number, where it is a hikae image.
    pub(crate) image: Option<(Arc<Image>, u32)>,
    /// What stands before `:/` in paths that are shown.
    pub(crate) prefix: String,
}

/// A node that a path leads to, perhaps one of its streams.
pub(crate) struct Found {
    pub(crate) resolved: Resolved,
    pub(crate) stream: Option<Vec<u8>>,
}

impl Opened {
    /// Finds a path; `FILE:STREAM` is a named stream where no file has that whole name.
    pub(crate) fn find(&self, path: &[u8], follow_last: bool) -> Result<Found, Failure> {
        let missing = match resolve(&self.tree, self.start, path, follow_last) {
            Ok(resolved) => return Ok(Found { resolved, stream: None }),
            Err(error @ Error::NotFound(_)) => error,
            Err(error) => return Err(error.into()),
        };
        let last = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at.saturating_add(1));
        let colon = path.iter().rposition(|byte| *byte == b':').filter(|colon| *colon > last);
        let Some(colon) = colon else { return Err(missing.into()) };
        let (file, stream) = path.split_at(colon);
        let stream = stream.get(1..).unwrap_or_default();
        let Ok(resolved) = resolve(&self.tree, self.start, file, true) else { return Err(missing.into()) };
        if stream.is_empty() {
            return Err(missing.into());
        }
        Ok(Found { resolved, stream: Some(stream.to_vec()) })
    }

    /// Says whether a node is a folder.
    pub(crate) fn is_folder(&self, node: NodeId) -> Result<bool, Failure> {
        Ok(self.tree.attributes(node)?.kind == NodeKind::Folder)
    }
}

/// A name that a path inside typed with, for messages about arguments.
pub(crate) fn shown(text: &OsString) -> String {
    crate::text::printable(&text.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, Option<String>, String) {
        let inside = Inside::parse(OsStr::new(text));
        let path = String::from_utf8(inside.path).unwrap();
        (inside.name.path.display().to_string(), inside.name.generation, path)
    }

    #[test]
    fn image_generation_and_path_are_told_apart() {
        assert_eq!(parts("no.hik@~1:/p1/a"), ("no.hik".into(), Some("~1".into()), "/p1/a".into()));
        assert_eq!(parts("no.hik:/p1/x:/y@2"), ("no.hik".into(), None, "/p1/x:/y@2".into()));
        assert_eq!(parts("no.hik@3"), ("no.hik".into(), Some("3".into()), "/".into()));
        // Where there are drives, the colon of one does not count.
        let inside = if crate::system::is_drive(b"C") { "/p1" } else { "/disks/no.hik:/p1" };
        assert_eq!(parts("C:/disks/no.hik:/p1").2, inside);
    }

    // No file on Windows has a colon in its name.
    #[cfg(unix)]
    #[test]
    fn an_existing_path_and_an_existing_image_win() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a:");
        std::fs::create_dir(&odd).unwrap();
        let image = odd.join("b.hik");
        std::fs::write(&image, "x").unwrap();
        let text = image.display().to_string();
        assert_eq!(parts(&text), (text.clone(), None, "/".into()));
        assert_eq!(parts(&format!("{text}:/p2/c")), (text, None, "/p2/c".into()));
    }
}
