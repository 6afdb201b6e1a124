//! What is served as block devices: the disk that was asked for, its partitions, and the other generations of its image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::disk::Slice;
use imgfmt::format::identity::Identity;
use imgfmt::image::{Image, OpenOptions};
use imgfmt::overlay::Overlay;
use imgfmt::partition::{Layout, Partition, read_layout};
use imgfmt::view::table::{identity_of_partition, with_table};
use imgfmt::view::writable::writable_with_table;
use imgfmt::{Error, Result};
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
    identity: Identity,
    layout: Layout,
    image: Option<Arc<Image>>,
    overlay: Option<Overlay>,
    counter: Counter,
    readahead: Option<Ahead>,
}

/// A disk that is served, or whose partitions are.
struct Shown {
    disk: ServedDisk,
    what: String,
    identity: Identity,
}

/// What follows the name of a partition that is served with a table made up around it.
const AS_DISK: &str = ".disk";

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
        let identity = any.file_identity()?;
        Ok(Self { any, disk, identity, layout, image, overlay, counter, readahead })
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

    /// A partition `pN`, or with `pN.disk` a partition with a table made up around it.
    fn part(&self, whole: &Shown, layout: &Layout, name: &str) -> Result<Option<ServedDisk>> {
        let Some(name) = name.strip_suffix(AS_DISK) else { return partition(&whole.disk, layout, name) };
        let (Some(part), Some(number)) = (partition(&whole.disk, layout, name)?, number_of(name)) else {
            return Ok(None);
        };
        let refused = |reason: String| Error::Refused(format!("{name} cannot be shown as a disk: {reason}"));
        Ok(Some(match (part, &self.overlay) {
            (ServedDisk::Writable(part), Some(overlay)) => {
                let shown = writable_with_table(overlay, part, number, &whole.identity)?;
                ServedDisk::Writable(shown.map_err(refused)?)
            }
            (ServedDisk::Writable(_), None) => return Ok(None),
            (ServedDisk::ReadOnly(part), _) => {
                let identity = identity_of_partition(&whole.identity, number);
                ServedDisk::ReadOnly(Arc::new(with_table(part, &identity).map_err(refused)?))
            }
        }))
    }

    /// The disk that was asked for.
    fn own(&self) -> Shown {
        Shown { disk: self.disk.clone(), what: self.any.what.clone(), identity: self.identity.clone() }
    }

    /// The generation that a name means.
    fn generation(&self, wish: &str) -> Result<Option<Shown>> {
        let Some(image) = &self.image else { return Ok(None) };
        let Ok(entry) = choose(image, wish) else { return Ok(None) };
        // The generation that the overlay lies over is the one that is written to, by whatever name.
        if Some(entry.number) == self.any.generation {
            return Ok(Some(self.own()));
        }
        let generation = image.generation(entry.number)?;
        let identity = generation.record().identity();
        let disk = self.counter.count(show(self.readahead.as_ref(), Arc::new(generation)));
        let what = format!("generation {}", entry.number);
        Ok(Some(Shown { disk: ServedDisk::ReadOnly(disk), what, identity }))
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

/// The number of partition `pN`.
fn number_of(name: &str) -> Option<u32> {
    name.strip_prefix('p')?.parse().ok()
}

/// The partition `pN` of a disk.
fn partition(disk: &ServedDisk, layout: &Layout, name: &str) -> Result<Option<ServedDisk>> {
    let number = number_of(name);
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
            let number = partition.number;
            all.push(described(&format!("p{number}"), format!("partition {number}, {len}")));
            let description = format!("partition {number} as a disk, with a table made up around it");
            all.push(described(&format!("p{number}{AS_DISK}"), description));
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
        let own = self.own();
        if let Some(disk) = self.part(&own, &self.layout, name)? {
            return export(disk, &format!("{name} of {}", own.what));
        }
        if let Some(shown) = self.generation(name)? {
            return export(shown.disk, &shown.what);
        }
        let Some((generation, part)) = name.rsplit_once('/') else { return Ok(None) };
        let Some(shown) = self.generation(generation)? else { return Ok(None) };
        let layout = read_layout(shown.disk.disk())?;
        match self.part(&shown, &layout, part)? {
            Some(disk) => export(disk, &format!("{part} of {}", shown.what)),
            None => Ok(None),
        }
    }
}
