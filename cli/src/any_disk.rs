//! Any disk that a user names: a generation of a hikae image, a virtual disk file, a raw file or a device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::format::About;

use crate::exit::Failure;
use crate::image_name::ImageName;
use crate::source::{self, DiskOptions};
use crate::text::printable;

/// An opened disk, and what messages call it.
pub(crate) struct AnyDisk {
    /// Its bytes.
    pub(crate) disk: Arc<dyn Disk>,
    /// "generation 3", or the file's name.
    pub(crate) what: String,
    /// Where that is and when it was made, as far as it is known.
    pub(crate) from: String,
    /// The generation's number, of a hikae image.
    pub(crate) generation: Option<u32>,
    /// The ids of the hikae image and of the generation's root, which proves its bytes.
    pub(crate) proof: Option<(String, String)>,
    name: ImageName,
    /// What a file of another format is.
    about: Option<About>,
}

impl AnyDisk {
    /// Opens what `name` says. Warnings about it go to stderr.
    pub(crate) fn open(name: ImageName, packs: &[PathBuf], options: &DiskOptions) -> Result<Self, Failure> {
        if name.is_hikae() {
            let generation = name.open_generation(packs)?;
            let record = generation.record();
            let what = format!("generation {}", record.generation);
            let from = format!(
                "{what} of {}, captured {} from {}",
                name.path.display(),
                printable(&record.created),
                printable(&record.source.path)
            );
            let number = Some(record.generation);
            let proof = Some((record.image.clone(), record.root.id.clone()));
            return Ok(Self { disk: Arc::new(generation), what, from, generation: number, proof, name, about: None });
        }
        let opened = source::open(&name.path, name.generation.as_deref(), None, options)?;
        opened.tell_notes();
        let what = printable(&name.to_string());
        let from = format!("{what} ({})", opened.source.identity.kind);
        Ok(Self {
            disk: opened.source.disk,
            what,
            from,
            generation: None,
            proof: None,
            name,
            about: Some(opened.about),
        })
    }

    /// The files and devices that it is read from.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let files = self.about.iter().flat_map(About::chain);
        let files = files.flat_map(|about| std::iter::once(&about.file).chain(&about.more_files));
        std::iter::once(&self.name.path).chain(files).cloned().collect()
    }

    /// Refuses to write over a file that is being read.
    pub(crate) fn guard_target(&self, packs: &[PathBuf], target: &Path) -> Result<(), Failure> {
        match &self.about {
            None => self.name.guard_target(packs, target),
            Some(about) if about.has_file(target)? => Err(Failure::Refused(format!(
                "{} holds the disk {}, or a part of it: writing there would destroy what is to be read",
                target.display(),
                self.what
            ))),
            Some(_) => Ok(()),
        }
    }
}
