//! What is served as block devices: the disk that was asked for, its partitions, and the other generations of its image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::Result;
use imgfmt::disk::Slice;
use imgfmt::image::{Image, OpenOptions};
use imgfmt::overlay::Overlay;
use imgfmt::partition::{Layout, Partition, read_layout};
use serve::server::Log;
use serve::{Address, Export, ExportName, Exports, Limits, ServedDisk, Server};

use crate::ahead::{Ahead, show};
use crate::any_disk::AnyDisk;
use crate::counted::{Counter, Counts};
use crate::exit::Failure;
use crate::image_name::{ImageName, choose};
use crate::source::DiskOptions;
use crate::text::{printable, short_size};

/// An opened disk with everything that can be served beside it.
pub(crate) struct Served {
    any: AnyDisk,
    disk: ServedDisk,
    layout: Layout,
    image: Option<Arc<Image>>,
    overlay: Option<Overlay>,
    counter: Counter,
    readahead: Option<Ahead>,
}

impl Served {
    /// Opens what `name` says; with an overlay its writes go there.
    pub(crate) fn open(
        name: &ImageName,
        packs: &[PathBuf],
        cache_bytes: u64,
        options: &DiskOptions,
        overlay: Option<&Path>,
    ) -> Result<Self, Failure> {
        let (image, readahead) = match name.is_hikae() {
            true => {
                let (readahead, cache_bytes) = Ahead::start(cache_bytes)?;
                (Some(name.open_with(packs, &OpenOptions { cache_bytes })?), Some(readahead))
            }
            false => (None, None),
        };
        let any = match &image {
            Some(image) => AnyDisk::of_image(image, name)?,
            None => AnyDisk::open(name.clone(), packs, options)?,
        };
        let overlay = overlay.map(|path| any.open_overlay(path)).transpose()?;
        let layout = read_layout(&*any.disk)?;
        let counter = Counter::of(image.clone());
        // Under the overlay, since what lies in it can change.
        let shown = counter.count(show(readahead.as_ref(), Arc::clone(&any.disk)));
        let disk = match &overlay {
            Some(overlay) => ServedDisk::Writable(overlay.disk(shown)?),
            None => ServedDisk::ReadOnly(shown),
        };
        Ok(Self { any, disk, layout, image, overlay, counter, readahead })
    }

    /// The image that the disk is in.
    pub(crate) fn image(&self) -> Option<&Arc<Image>> {
        self.image.as_ref()
    }

    /// The disk, without what is in the overlay.
    pub(crate) fn base(&self) -> &AnyDisk {
        &self.any
    }

    /// What takes the writes.
    pub(crate) fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref()
    }

    /// Listens for clients.
    pub(crate) fn listen(
        self: &Arc<Self>,
        address: &Address,
        connections: usize,
        log: Box<Log>,
    ) -> Result<Server, Failure> {
        let limits = Limits { connections: connections.max(1), ..Limits::default() };
        let exports: Arc<dyn Exports> = Arc::<Self>::clone(self);
        let server = Server::bind(address, exports, limits, log)
            .map_err(|error| Failure::Failed(format!("cannot listen on {}: {error}", address_text(address))))?;
        let place = server.place();
        if place.is_public() {
            eprintln!("hikae: warning: whoever can reach {place} can read this disk: NBD has no passwords");
        }
        Ok(server)
    }

    /// What it is, for people.
    pub(crate) fn description(&self) -> &str {
        &self.any.from
    }

    /// Whether clients may write.
    pub(crate) fn is_writable(&self) -> bool {
        self.overlay.is_some()
    }

    /// What clients have read.
    pub(crate) fn counts(&self) -> Counts {
        self.counter.counts()
    }

    /// Makes everything that clients wrote durable.
    pub(crate) fn flush(&self) -> Result<()> {
        self.overlay.as_ref().map_or(Ok(()), Overlay::flush)
    }

    /// The generation that a name means.
    fn generation(&self, wish: &str) -> Result<Option<(ServedDisk, String)>> {
        let Some(image) = &self.image else { return Ok(None) };
        let Ok(entry) = choose(image, wish) else { return Ok(None) };
        // The generation that the overlay lies over is the one that is written to, by whatever name.
        if Some(entry.number) == self.any.generation {
            return Ok(Some((self.disk.clone(), self.any.what.clone())));
        }
        let disk = show(self.readahead.as_ref(), Arc::new(image.generation(entry.number)?));
        Ok(Some((ServedDisk::ReadOnly(self.counter.count(disk)), format!("generation {}", entry.number))))
    }
}

fn address_text(address: &Address) -> String {
    match address {
        Address::Tcp(text) => text.clone(),
        Address::Unix(path) => path.display().to_string(),
    }
}

fn usable(layout: &Layout) -> impl Iterator<Item = &Partition> {
    layout.partitions.iter().filter(|partition| partition.unusable.is_none())
}

/// The partition `pN` of a disk.
fn partition(disk: &ServedDisk, layout: &Layout, name: &str) -> Result<Option<ServedDisk>> {
    let number = name.strip_prefix('p').and_then(|number| number.parse::<u32>().ok());
    let found = usable(layout).find(|partition| Some(partition.number) == number);
    let Some(found) = found else { return Ok(None) };
    let range = found.range.clone();
    Ok(Some(match disk {
        ServedDisk::ReadOnly(disk) => ServedDisk::ReadOnly(Arc::new(Slice::open(Arc::clone(disk), range)?)),
        ServedDisk::Writable(disk) => ServedDisk::Writable(Arc::new(Slice::open(Arc::clone(disk), range)?)),
    }))
}

impl Exports for Served {
    fn list(&self) -> Vec<ExportName> {
        let described = |name: &str, description: String| ExportName { name: name.to_owned(), description };
        let mut all = vec![described("", self.any.from.clone())];
        for partition in usable(&self.layout) {
            let len = short_size(partition.range.end.saturating_sub(partition.range.start));
            all.push(described(&format!("p{}", partition.number), format!("partition {}, {len}", partition.number)));
        }
        if let Some(image) = &self.image {
            all.push(described("latest", "the latest generation".to_owned()));
            for entry in image.generations() {
                let name = imgfmt::image::record::folder_name(entry.number, entry.created);
                all.push(described(&name, format!("generation {}", entry.number)));
            }
        }
        all
    }

    fn open(&self, name: &str) -> Result<Option<Export>> {
        let export = |disk, what: &str| Ok(Some(Export { disk, description: printable(what) }));
        if name.is_empty() {
            return export(self.disk.clone(), &self.any.from);
        }
        if let Some(disk) = partition(&self.disk, &self.layout, name)? {
            return export(disk, &format!("{name} of {}", self.any.what));
        }
        if let Some((disk, what)) = self.generation(name)? {
            return export(disk, &what);
        }
        let Some((generation, part)) = name.rsplit_once('/') else { return Ok(None) };
        let Some((disk, what)) = self.generation(generation)? else { return Ok(None) };
        let layout = read_layout(disk.disk())?;
        match partition(&disk, &layout, part)? {
            Some(disk) => export(disk, &format!("{part} of {what}")),
            None => Ok(None),
        }
    }
}
