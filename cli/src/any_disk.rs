//! Any disk that a user names: a generation of a hikae image, a virtual disk file, a raw file or a device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::format::About;
use imgfmt::format::identity::Identity;
use imgfmt::image::Image;
use imgfmt::image::record::Source;
use imgfmt::overlay::{self, Overlay, Proof};

use crate::exit::Failure;
use crate::image_name::{ImageName, choose};
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
    /// What the disk is, or was when it was captured.
    pub(crate) identity: Source,
    /// Physical sector size in bytes.
    pub(crate) physical_sector_size: u32,
    /// The same for an overlay.
    base: Option<Proof>,
    /// The hikae image that it lies in.
    pub(crate) image: Option<Arc<Image>>,
    name: ImageName,
    /// What a file of another format is.
    about: Option<About>,
    /// The overlay that is read with it.
    overlay: Option<PathBuf>,
}

impl AnyDisk {
    /// Opens what `name` says. Warnings about it go to stderr.
    pub(crate) fn open(name: ImageName, packs: &[PathBuf], options: &DiskOptions) -> Result<Self, Failure> {
        if name.is_hikae() {
            return Self::of_image(&name.open(packs)?, &name);
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
            identity: opened.source.identity,
            physical_sector_size: opened.source.physical_sector_size,
            base: None,
            image: None,
            name,
            about: Some(opened.about),
            overlay: None,
        })
    }

    /// The generation of an open image that `name` says.
    pub(crate) fn of_image(image: &Arc<Image>, name: &ImageName) -> Result<Self, Failure> {
        let entry = choose(image, name.generation.as_deref().unwrap_or("latest"))?;
        let generation = image.generation(entry.number)?;
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
        let base = Proof::Generation { image: image.id(), root: generation.tree().root().id.0 };
        Ok(Self {
            what,
            from,
            generation: number,
            proof,
            identity: record.source.clone(),
            physical_sector_size: record.disk.physical_sector_size,
            base: Some(base),
            image: Some(Arc::clone(image)),
            name: name.clone(),
            about: None,
            overlay: None,
            disk: Arc::new(generation),
        })
    }

    /// Opens an overlay over this disk, or makes it where there is no file with this name.
    pub(crate) fn open_overlay(&self, file: &Path) -> Result<Overlay, Failure> {
        let about = self.overlay_base(file)?;
        let opened = Overlay::open_or_create(file, &about)?;
        self.tell_overlay(&opened, &about, file);
        Ok(opened)
    }

    /// This disk as it is with an overlay that is there already.
    pub(crate) fn with_overlay(mut self, file: &Path) -> Result<Self, Failure> {
        let about = self.overlay_base(file)?;
        let opened = Overlay::open_read_only(file, &about)?;
        self.tell_overlay(&opened, &about, file);
        self.disk = Arc::new(opened.disk(Arc::clone(&self.disk))?);
        self.overlay = Some(file.to_owned());
        let file = printable(&file.display().to_string());
        self.what = format!("{} with what is in {file}", self.what);
        self.from = format!("{} with what is in {file}", self.from);
        Ok(self)
    }

    /// What an overlay over this disk is made for.
    fn overlay_base(&self, file: &Path) -> Result<overlay::About, Failure> {
        if let Some(about) = &self.about
            && about.has_file(file)?
        {
            return Err(Failure::Refused(format!("{} is the disk itself, not an overlay over it", file.display())));
        }
        let modified = |path: &Path| {
            let time = std::fs::metadata(path).and_then(|found| found.modified()).ok()?;
            time.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
        };
        Ok(overlay::About {
            name: self.name_of_base(),
            proof: match &self.base {
                Some(proof) => proof.clone(),
                None => Proof::Other {
                    format: self.about.as_ref().map_or("raw", |about| about.format.name()).to_owned(),
                    digest: overlay::digest_of(&*self.disk)?,
                },
            },
            modified: if self.base.is_some() { 0 } else { modified(&self.name.path).unwrap_or(0) },
            disk_len: self.disk.len(),
            sector_size: self.disk.sector_size(),
        })
    }

    /// Says what the user should know of an overlay.
    fn tell_overlay(&self, opened: &Overlay, about: &overlay::About, file: &Path) {
        let made_over = opened.summary().about.modified;
        if made_over != 0 && about.modified != 0 && made_over != about.modified {
            eprintln!(
                "hikae: warning: {} was written after {} was made over it: what is not in the overlay may have changed",
                about.name,
                file.display()
            );
        }
    }

    fn name_of_base(&self) -> String {
        let path = std::path::absolute(&self.name.path).unwrap_or_else(|_| self.name.path.clone());
        match self.generation {
            Some(number) => format!("generation {number} of {}", path.display()),
            None => path.display().to_string(),
        }
    }

    /// What identifiers of files that show it come from.
    pub(crate) fn file_identity(&self) -> Result<Identity, Failure> {
        match (&self.image, self.generation) {
            (Some(image), Some(number)) => Ok(image.generation(number)?.record().identity()),
            _ => Ok(self.name.identity_of_file()),
        }
    }

    /// The files and devices that it is read from.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let files = self.about.iter().flat_map(About::chain);
        let files = files.flat_map(|about| std::iter::once(&about.file).chain(&about.more_files));
        std::iter::once(&self.name.path).chain(files).cloned().collect()
    }

    /// Refuses to write over a file that is being read.
    pub(crate) fn guard_target(&self, packs: &[PathBuf], target: &Path) -> Result<(), Failure> {
        let is_target = |file: &PathBuf| {
            file.canonicalize().is_ok_and(|file| target.canonicalize().is_ok_and(|target| target == file))
        };
        if self.overlay.as_ref().is_some_and(is_target) {
            let target = target.display();
            return Err(Failure::Refused(format!(
                "{target} is the overlay that is read: writing there would destroy it"
            )));
        }
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
