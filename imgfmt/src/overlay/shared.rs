//! What all disks of an open overlay share: the file, the map of each layer, the slots; and how a state becomes durable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::overlay::file::Storage;
use crate::overlay::layout::{
    Commit, DISK_KEY, Entry, FIRST_SLOT, HOLDER_SLOT, Header, LayerState, MAX_LAYERS, MAX_LEVEL, Place, Proof, Run,
    SLOT, SLOT_LEN,
};
use crate::overlay::map::{Found, Map, Root};
use crate::overlay::medium::Medium;
use crate::overlay::space::Space;
use crate::overlay::{About, LayerSummary, Summary};

/// Bytes written after which a commit comes by itself.
const MUCH_WRITTEN: u64 = 128 << 20;
/// Runs of slots that wait to become free, after which a commit comes by itself.
const MANY_RUNS: usize = 8192;
/// Slots that wait to become free, after which a commit comes by itself: 64 MiB by which the file would grow instead.
const MANY_SLOTS: u64 = 16384;

/// A layer, as it is now.
#[derive(Clone, Debug)]
struct Layer {
    key: String,
    len: u64,
    base_len: u64,
    root: Root,
    data_blocks: u64,
}

#[derive(Debug)]
struct State {
    map: Map,
    space: Space,
    layers: Vec<Layer>,
    /// Of the last commit.
    sequence: u64,
    /// Bytes written since.
    written: u64,
    /// Something besides the map changed since.
    changed: bool,
}

/// An open overlay.
#[derive(Debug)]
pub(super) struct Shared {
    medium: Medium,
    header: Header,
    read_only: bool,
    state: Mutex<State>,
    /// Held by who writes: one at a time.
    writing: Mutex<()>,
    /// Held by who reads slots that the map named, so that they are not used again meanwhile.
    reading: RwLock<()>,
    /// Set where a sync failed: what was written before may be lost although a later one succeeds.
    failed: AtomicBool,
}

/// The right to change an overlay.
pub(super) struct Writing<'a>(#[expect(dead_code, reason = "held for its drop")] MutexGuard<'a, ()>);

impl Shared {
    /// Writes the header and the first commit of a new overlay.
    pub(super) fn create(storage: Arc<dyn Storage>, about: &About) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let header = Header { id: *uuid::Uuid::new_v4().as_bytes(), created: now, about: about.clone() };
        let medium = Medium::new(storage);
        let disk = LayerState {
            key: DISK_KEY.to_owned(),
            len: about.disk_len,
            base_len: about.disk_len,
            root: Place::default(),
            level: 0,
            data_blocks: 0,
        };
        let commit =
            Commit { sequence: 1, slots: FIRST_SLOT, free_slots: 0, free: Place::default(), layers: vec![disk] };
        // All four slots are there, so that the file is as long as its commit says.
        medium.write(HOLDER_SLOT, &[0; SLOT])?;
        medium.write(Commit::slot_of(0), &[0; SLOT])?;
        medium.write(Commit::slot_of(1), &commit.write(header.id))?;
        medium.write(0, &header.write())?;
        medium.sync()
    }

    fn load(medium: &Medium) -> Result<(Header, Commit)> {
        if medium.len()? / SLOT_LEN < FIRST_SLOT {
            return Err(medium.corrupt("header", 0, "the file is too short for an overlay of hikae"));
        }
        let header = Header::parse(&medium.raw(0)?, medium.name())?;
        let mut current: Option<Commit> = None;
        for slot in [1, 2] {
            let commit = Commit::parse(&medium.raw(slot)?, slot, &header, medium.name())?;
            if let Some(commit) =
                commit.filter(|found| current.as_ref().is_none_or(|best| found.sequence > best.sequence))
            {
                current = Some(commit);
            }
        }
        let current = current.ok_or_else(|| medium.corrupt("commit", 1, "neither of the two is valid"))?;
        if medium.len()? / SLOT_LEN < current.slots {
            return Err(medium.corrupt(
                "commit",
                Commit::slot_of(current.sequence),
                "the file is shorter than it says",
            ));
        }
        Ok((header, current))
    }

    /// Opens an overlay over the base that `about` describes.
    pub(super) fn open(storage: Arc<dyn Storage>, about: &About, read_only: bool) -> Result<Self> {
        let medium = Medium::new(storage);
        let (header, commit) = Self::load(&medium)?;
        let made_for = &header.about;
        let same = made_for.proof == about.proof
            && made_for.disk_len == about.disk_len
            && made_for.sector_size == about.sector_size;
        if !same {
            let changed = match (&made_for.proof, &about.proof) {
                (Proof::Other { .. }, Proof::Other { .. }) if made_for.name == about.name => {
                    ", whose content has changed since"
                }
                _ => "",
            };
            return Err(Error::Refused(format!(
                "overlay {} belongs to {}{changed}, not to {}: with another disk below it would be a mix of two",
                medium.name(),
                made_for.name,
                about.name
            )));
        }
        let layers = commit.layers.iter().map(|layer| Layer {
            key: layer.key.clone(),
            len: layer.len,
            base_len: layer.base_len,
            root: Root::new(layer.root, layer.level),
            data_blocks: layer.data_blocks,
        });
        let state = State {
            map: Map::default(),
            space: Space::new(commit.slots, commit.free, commit.free_slots),
            layers: layers.collect(),
            sequence: commit.sequence,
            written: 0,
            changed: false,
        };
        Ok(Self {
            medium,
            header,
            read_only,
            state: Mutex::new(state),
            writing: Mutex::new(()),
            reading: RwLock::new(()),
            failed: AtomicBool::new(false),
        })
    }

    /// Writes the process id of the holder, for messages of others.
    pub(super) fn tell_holder(&self) {
        let mut slot = [0; SLOT];
        let line = format!("{}\n", std::process::id());
        for (to, from) in slot.iter_mut().zip(line.bytes()) {
            *to = from;
        }
        // A word for people: where it cannot be written, writes will say so.
        let _ = self.medium.write(HOLDER_SLOT, &slot);
    }

    /// What a file says of itself.
    pub(super) fn summary_of(storage: Arc<dyn Storage>) -> Result<Summary> {
        let (header, commit) = Self::load(&Medium::new(storage))?;
        let layers = commit.layers.iter().map(|layer| LayerSummary {
            key: layer.key.clone(),
            len: layer.len,
            data: layer.data_blocks.saturating_mul(SLOT_LEN),
        });
        Ok(Summary {
            id: header.id,
            created: header.created,
            sequence: commit.sequence,
            file_len: commit.slots.saturating_mul(SLOT_LEN),
            free: commit.free_slots.saturating_mul(SLOT_LEN),
            layers: layers.collect(),
            about: header.about,
        })
    }

    /// What the overlay holds now.
    pub(super) fn summary(&self) -> Summary {
        let state = self.state();
        let layers = state.layers.iter().map(|layer| LayerSummary {
            key: layer.key.clone(),
            len: layer.len,
            data: layer.data_blocks.saturating_mul(SLOT_LEN),
        });
        Summary {
            id: self.header.id,
            created: self.header.created,
            about: self.header.about.clone(),
            sequence: state.sequence,
            file_len: state.space.slots().saturating_mul(SLOT_LEN),
            free: state.space.free_slots().saturating_mul(SLOT_LEN),
            layers: layers.collect(),
        }
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn medium(&self) -> &Medium {
        &self.medium
    }

    pub(super) fn sector_size(&self) -> u32 {
        self.header.about.sector_size
    }

    /// Fails unless a base has the shape that the overlay was made for.
    pub(super) fn check_shape(&self, len: u64, sector_size: u32) -> Result<()> {
        let about = &self.header.about;
        if (len, sector_size) == (about.disk_len, about.sector_size) {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "overlay {} belongs to a disk of {} bytes with sectors of {}, not to one of {len} with sectors of {sector_size}",
            self.medium.name(),
            about.disk_len,
            about.sector_size
        )))
    }

    /// The number of the layer with a key, which is made where it is not there.
    pub(super) fn layer(&self, key: &str, base_len: u64) -> Result<usize> {
        let mut state = self.state();
        if let Some(at) = state.layers.iter().position(|layer| layer.key == key) {
            if state.layers.get(at).is_some_and(|layer| layer.base_len == base_len) {
                return Ok(at);
            }
            return Err(Error::Refused(format!(
                "what overlay {} has of the {key} container belongs to a container of another length",
                self.medium.name()
            )));
        }
        let fits = (1..=8).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !fits || state.layers.len() >= MAX_LAYERS {
            return Err(Error::Refused(format!("overlay {} cannot have a layer {key:?}", self.medium.name())));
        }
        let root = Root::new(Place::default(), 0);
        state.layers.push(Layer { key: key.to_owned(), len: base_len, base_len, root, data_blocks: 0 });
        Ok(state.layers.len().saturating_sub(1))
    }

    /// Length of a layer in bytes.
    pub(super) fn len(&self, layer: usize) -> u64 {
        self.state().layers.get(layer).map_or(0, |layer| layer.len)
    }

    pub(super) fn set_len(&self, _: &Writing<'_>, layer: usize, len: u64) {
        let mut state = self.state();
        state.changed = true;
        if let Some(layer) = state.layers.get_mut(layer) {
            layer.len = len;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As long as this is held, no slot that the map names is used for anything else.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, ()> {
        self.reading.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the map says of a layer from a block on.
    pub(super) fn find(&self, layer: usize, block: u64) -> Result<Found> {
        let state = &mut *self.state();
        let root = state.layers.get(layer).map(|layer| layer.root);
        let root = root.unwrap_or(Root::new(Place::default(), 0));
        state.map.find(&self.medium, &state.space, layer, root, block)
    }

    /// Waits for the right to change the overlay.
    pub(super) fn write(&self) -> Result<Writing<'_>> {
        if self.read_only {
            return Err(Error::Refused(format!("overlay {} is open for reading only", self.medium.name())));
        }
        let guard = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failed.load(Ordering::Relaxed) {
            return Err(Error::Refused(format!(
                "overlay {} takes no writes any more: making earlier ones durable failed; opened again it is as of its last flush",
                self.medium.name()
            )));
        }
        Ok(Writing(guard))
    }

    /// Writes whole slots and has the map name them: block number, entry (its place is filled in), and whether it gets the next slot of `data`.
    pub(super) fn put(
        &self,
        _: &Writing<'_>,
        layer: usize,
        mut entries: Vec<(u64, Entry, bool)>,
        data: &[u8],
    ) -> Result<()> {
        let mut taken: Vec<Run> = Vec::new();
        let result = self.put_data(data, &mut taken);
        let state = &mut *self.state();
        let mut slots = taken.iter().flat_map(|run| run.start..run.end());
        let mut done = Ok(());
        if result.is_ok() {
            for ((_, entry, wants), bytes) in entries.iter_mut().filter(|(_, _, wants)| *wants).zip(data.chunks(SLOT)) {
                debug_assert!(*wants, "filtered above");
                entry.place =
                    Place { slot: slots.next().unwrap_or(0), checksum: crate::overlay::layout::checksum(bytes) };
            }
            done = Self::name(&self.medium, state, layer, &entries);
        }
        if result.is_err() || done.is_err() {
            taken.into_iter().for_each(|run| state.space.give_back(run));
        }
        state.written = state.written.saturating_add(u64::try_from(data.len()).unwrap_or(0));
        result.and(done)
    }

    /// Writes data into free slots.
    fn put_data(&self, mut data: &[u8], taken: &mut Vec<Run>) -> Result<()> {
        while !data.is_empty() {
            let wanted = u64::try_from(data.len() / SLOT).unwrap_or(1);
            let run = self.state().space.take(&self.medium, wanted)?;
            taken.push(run);
            let len = usize::try_from(run.len).unwrap_or(1).saturating_mul(SLOT).min(data.len());
            let (part, rest) = data.split_at(len);
            self.medium.write(run.start, part)?;
            data = rest;
        }
        Ok(())
    }

    /// Has the map say something else of blocks that lie in one page.
    fn name(medium: &Medium, state: &mut State, layer: usize, entries: &[(u64, Entry, bool)]) -> Result<()> {
        let State { map, space, layers, .. } = state;
        let (Some(layer_state), Some((first, ..))) = (layers.get_mut(layer), entries.first()) else { return Ok(()) };
        let before = map.find(medium, space, layer, layer_state.root, *first)?;
        let now: Vec<(u64, Entry)> = entries.iter().map(|(block, entry, _)| (*block, *entry)).collect();
        map.set(medium, space, layer, &mut layer_state.root, &now)?;
        for (block, entry) in now {
            let old = before.entry(block);
            if old.place.slot != 0 && old.place.slot != entry.place.slot {
                space.release(old.place.slot);
            }
            let count = layer_state.data_blocks.saturating_add(u64::from(entry.data != 0));
            layer_state.data_blocks = count.saturating_sub(u64::from(old.data != 0));
        }
        Ok(())
    }

    /// Makes whole blocks zero, at most [`super::map::MAX_ZERO`].
    pub(super) fn zero(&self, _: &Writing<'_>, layer: usize, blocks: std::ops::Range<u64>) -> Result<()> {
        let State { map, space, layers, .. } = &mut *self.state();
        let Some(layer_state) = layers.get_mut(layer) else { return Ok(()) };
        let had_data = map.zero(&self.medium, space, layer, &mut layer_state.root, blocks)?;
        layer_state.data_blocks = layer_state.data_blocks.saturating_sub(had_data);
        Ok(())
    }

    /// Commits where enough has changed. Comes before a change and not behind it: where commits fail, no more piles up in memory.
    pub(super) fn commit_if_due(&self, writing: &Writing<'_>) -> Result<()> {
        let due = {
            let state = self.state();
            let (runs, slots) = state.space.pending();
            state.map.is_crowded() || runs >= MANY_RUNS || slots >= MANY_SLOTS || state.written >= MUCH_WRITTEN
        };
        if due { self.commit_now(writing) } else { Ok(()) }
    }

    /// Makes everything that was written durable.
    pub(super) fn commit(&self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        let writing = self.write()?;
        self.commit_now(&writing)
    }

    /// Writes all changed pages of the map, those below before those above. Who holds the right to write changes nothing meanwhile, so
    /// readers are let in between any two pages: the map means the same whichever of its pages have places in the file.
    fn write_map(&self, _: &Writing<'_>) -> Result<()> {
        for level in 0..=MAX_LEVEL {
            let keys = self.state().map.changed_at(level);
            for key in keys {
                let State { map, space, layers, .. } = &mut *self.state();
                let Some(layer) = layers.get_mut(key.layer) else { continue };
                map.write_page(&self.medium, space, &mut layer.root, key)?;
            }
        }
        Ok(())
    }

    fn commit_now(&self, writing: &Writing<'_>) -> Result<()> {
        {
            let state = &mut *self.state();
            if !state.map.is_changed() && !state.changed {
                return Ok(());
            }
            // Pages count as unchanged once they are written, but until the commit names them nothing of it is durable: where it fails
            // from here on, the next flush must not find that there is nothing to do.
            state.changed = true;
        }
        self.write_map(writing)?;
        let commit = {
            let State { space, layers, sequence, .. } = &mut *self.state();
            let free = space.write_list(&self.medium)?;
            // Whoever has looked at many containers and written to none leaves room for others.
            let is_used = |layer: &Layer| layer.root.entry.place.slot != 0 || layer.len != layer.base_len;
            let layers =
                layers.iter().filter(|layer| layer.key == DISK_KEY || is_used(layer)).map(|layer| LayerState {
                    key: layer.key.clone(),
                    len: layer.len,
                    base_len: layer.base_len,
                    root: layer.root.entry.place,
                    level: layer.root.level,
                    data_blocks: layer.data_blocks,
                });
            Commit {
                sequence: sequence.saturating_add(1),
                slots: space.slots(),
                free_slots: space.free_slots(),
                free,
                layers: layers.collect(),
            }
        };
        self.medium.reach(commit.slots)?;
        self.sync()?;
        self.medium.write(Commit::slot_of(commit.sequence), &commit.write(self.header.id))?;
        self.sync()?;
        // Who began to read before may still read slots of the state before.
        drop(self.reading.write().unwrap_or_else(PoisonError::into_inner));
        let state = &mut *self.state();
        state.space.committed();
        state.sequence = commit.sequence;
        state.written = 0;
        state.changed = false;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.medium.sync().inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.failed.load(Ordering::Relaxed) {
            // Whoever needs to know has flushed.
            let _ = self.commit();
        }
    }
}
