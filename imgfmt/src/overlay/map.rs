//! The map: what each block of each layer is, in pages that are read when they are needed.
//!
//! Changed pages stay in memory until a commit has written them; the others may leave it. A page that was made since the last commit has no place
//! in the file yet: the entry that leads to it says "a page" with slot 0.
//!
//! Source: docs/overlay.md sections 4 and 6.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::overlay::layout::{ALL, ENTRIES, Entry, MAX_LEVEL, Page, Place, Run, parse_page, write_page};
use crate::overlay::medium::Medium;
use crate::overlay::space::Space;

/// Pages in memory at the most: 48 MiB.
const MAX_PAGES: usize = 8192;
/// Changed pages at which a commit is due.
const MANY_CHANGED: usize = 4096;
/// Blocks that are made zero at once at the most, so that the pages in question fit into memory: 1 GiB.
pub(super) const MAX_ZERO: u64 = 1 << 18;
/// log2 of the entries of a page.
const BITS: u32 = 8;
/// What pages are called in messages.
const STRUCTURE: &str = "map page";

/// A page of the map: layer, level, and its number among the pages of this level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// The layer.
    pub(super) layer: usize,
    level: u8,
    index: u64,
}

impl Key {
    /// Blocks that an entry of the page stands for.
    fn entry_blocks(self) -> u64 {
        1_u64.checked_shl(u32::from(self.level).saturating_mul(BITS)).unwrap_or(u64::MAX)
    }

    /// The first block that the page describes.
    fn first_block(self) -> u64 {
        self.index.saturating_mul(self.entry_blocks()).saturating_mul(1 << BITS)
    }

    /// The entry for a block that the page describes.
    fn entry_of(self, block: u64) -> usize {
        let shift = u32::from(self.level).saturating_mul(BITS);
        usize::try_from(block.checked_shr(shift).unwrap_or(0) & 0xff).expect("at most 255")
    }

    /// Blocks that the page describes.
    fn blocks(self) -> Range<u64> {
        let first = self.first_block();
        first..first.saturating_add(self.entry_blocks().saturating_mul(1 << BITS))
    }

    /// The page below, where this one is above level 0.
    fn child(self, at: usize) -> Self {
        let at = u64::try_from(at).unwrap_or(0);
        Self { layer: self.layer, level: self.level.saturating_sub(1), index: (self.index << BITS).saturating_add(at) }
    }

    /// The page above, and the entry in it that leads here.
    fn parent(self) -> (Self, usize) {
        let at = usize::try_from(self.index & 0xff).unwrap_or(0);
        (Self { layer: self.layer, level: self.level.saturating_add(1), index: self.index >> BITS }, at)
    }
}

/// Where the map of a layer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// Silent, or a page.
    pub(super) entry: Entry,
    /// Level of that page.
    pub(super) level: u8,
}

impl Root {
    /// As a commit has it.
    pub(super) fn new(place: Place, level: u8) -> Self {
        let entry = if place.slot == 0 { Entry::SILENT } else { page_at(place) };
        Self { entry, level }
    }

    fn key(self, layer: usize) -> Key {
        Key { layer, level: self.level, index: 0 }
    }
}

/// What the map says from a block on.
#[derive(Debug)]
pub(super) enum Found {
    /// All these blocks are alike: silent or zero.
    Alike(Entry, Range<u64>),
    /// 256 entries, the first of which is for this block.
    Page(Arc<Page>, u64),
}

impl Found {
    /// The entry of a block that this is about.
    pub(super) fn entry(&self, block: u64) -> Entry {
        match self {
            Self::Alike(entry, _) => *entry,
            Self::Page(page, first) => {
                let at = usize::try_from(block.saturating_sub(*first)).unwrap_or(usize::MAX);
                page.get(at).copied().unwrap_or_default()
            }
        }
    }

    /// The first block that this says nothing about.
    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Alike(_, blocks) => blocks.end,
            Self::Page(_, first) => first.saturating_add(1 << BITS),
        }
    }
}

#[derive(Debug)]
struct Cached {
    page: Arc<Page>,
    changed: bool,
    used: u64,
}

/// The pages in memory.
#[derive(Debug, Default)]
pub(super) struct Map {
    pages: HashMap<Key, Cached>,
    changed: usize,
    clock: u64,
}

fn page_at(place: Place) -> Entry {
    Entry { place, data: ALL, zero: 0 }
}

impl Map {
    /// Says that so much has changed that it should be committed.
    pub(super) fn is_crowded(&self) -> bool {
        self.changed >= MANY_CHANGED
    }

    /// Says that something has changed since the last commit.
    pub(super) fn is_changed(&self) -> bool {
        self.changed > 0
    }

    /// What the map of a layer says from `block` on.
    pub(super) fn find(
        &mut self,
        medium: &Medium,
        space: &Space,
        layer: usize,
        root: Root,
        block: u64,
    ) -> Result<Found> {
        let mut key = root.key(layer);
        let mut entry = root.entry;
        let mut blocks = 0..u64::MAX;
        if !entry.is_silent() && !key.blocks().contains(&block) {
            return Ok(Found::Alike(Entry::SILENT, key.blocks().end..u64::MAX));
        }
        loop {
            if entry.data == 0 {
                return Ok(Found::Alike(entry, blocks));
            }
            let page = self.page(medium, space, key, entry.place)?;
            if key.level == 0 {
                return Ok(Found::Page(page, key.first_block()));
            }
            let at = key.entry_of(block);
            entry = page.get(at).copied().unwrap_or_default();
            key = key.child(at);
            blocks = key.blocks();
        }
    }

    /// A page, from memory or from the file.
    fn page(&mut self, medium: &Medium, space: &Space, key: Key, place: Place) -> Result<Arc<Page>> {
        self.clock = self.clock.saturating_add(1);
        if let Some(cached) = self.pages.get_mut(&key) {
            cached.used = self.clock;
            return Ok(Arc::clone(&cached.page));
        }
        let bytes = medium.read_slot(place, STRUCTURE)?;
        let page = parse_page(&bytes, key.level, space.slots());
        let page = Arc::new(page.ok_or_else(|| medium.corrupt(STRUCTURE, place.slot, "an entry breaks a rule"))?);
        self.make_room();
        self.pages.insert(key, Cached { page: Arc::clone(&page), changed: false, used: self.clock });
        Ok(page)
    }

    /// Lets the half of the unchanged pages go that was not used for longest, where there are too many.
    fn make_room(&mut self) {
        if self.pages.len() < MAX_PAGES {
            return;
        }
        let mut used: Vec<u64> =
            self.pages.values().filter(|cached| !cached.changed).map(|cached| cached.used).collect();
        used.sort_unstable();
        let middle = used.get(used.len() / 2).copied().unwrap_or(0);
        self.pages.retain(|_, cached| cached.changed || cached.used > middle);
    }

    /// Changes an entry of a page that was just used, and so is in memory.
    fn change(&mut self, key: Key, at: usize, entry: Entry) {
        let cached = self.pages.get_mut(&key).expect("a page that was just used is in memory");
        if !cached.changed {
            cached.changed = true;
            self.changed = self.changed.saturating_add(1);
        }
        if let Some(to) = Arc::make_mut(&mut cached.page).get_mut(at) {
            *to = entry;
        }
    }

    /// Makes a page whose entries are all alike.
    fn make(&mut self, key: Key, entry: Entry) {
        self.make_room();
        self.changed = self.changed.saturating_add(1);
        let page = Arc::new([entry; ENTRIES]);
        self.pages.insert(key, Cached { page, changed: true, used: self.clock });
    }

    /// Has a root that describes `block`.
    fn reach(&mut self, layer: usize, root: &mut Root, block: u64) {
        while !root.key(layer).blocks().contains(&block) && root.level < MAX_LEVEL {
            root.level = root.level.saturating_add(1);
            if root.entry.is_silent() {
                continue;
            }
            let key = root.key(layer);
            self.make(key, Entry::SILENT);
            self.change(key, 0, root.entry);
            root.entry = page_at(Place::default());
        }
    }

    /// Brings the page `key` into memory where an entry leads to it, or makes it as the entry says. Returns the entry that leads to it now.
    fn enter(&mut self, medium: &Medium, space: &Space, key: Key, entry: Entry) -> Result<Entry> {
        if entry.data == 0 {
            self.make(key, entry);
            return Ok(page_at(Place::default()));
        }
        self.page(medium, space, key, entry.place)?;
        Ok(entry)
    }

    /// Changes the entries of blocks that lie in one page of level 0.
    pub(super) fn set(
        &mut self,
        medium: &Medium,
        space: &Space,
        layer: usize,
        root: &mut Root,
        entries: &[(u64, Entry)],
    ) -> Result<()> {
        let Some((block, _)) = entries.first() else { return Ok(()) };
        self.reach(layer, root, *block);
        let mut key = root.key(layer);
        root.entry = self.enter(medium, space, key, root.entry)?;
        while key.level > 0 {
            let at = key.entry_of(*block);
            let child = key.child(at);
            let entry = self.page(medium, space, key, Place::default())?.get(at).copied().unwrap_or_default();
            let now = self.enter(medium, space, child, entry)?;
            if now != entry {
                self.change(key, at, now);
            }
            key = child;
        }
        let first = key.first_block();
        for (block, entry) in entries {
            let at = usize::try_from(block.saturating_sub(first)).unwrap_or(usize::MAX);
            self.change(key, at, *entry);
        }
        Ok(())
    }

    /// Makes whole blocks zero, at most [`MAX_ZERO`] of them at once. Returns how many of them had data, whose slots it gives up.
    pub(super) fn zero(
        &mut self,
        medium: &Medium,
        space: &mut Space,
        layer: usize,
        root: &mut Root,
        blocks: Range<u64>,
    ) -> Result<u64> {
        if blocks.is_empty() {
            return Ok(0);
        }
        self.reach(layer, root, blocks.end.saturating_sub(1));
        let key = root.key(layer);
        root.entry = self.enter(medium, space, key, root.entry)?;
        self.zero_below(medium, space, key, &blocks)
    }

    /// The same below one page, which is in memory.
    fn zero_below(&mut self, medium: &Medium, space: &mut Space, key: Key, blocks: &Range<u64>) -> Result<u64> {
        let mut had_data = 0_u64;
        let each = key.entry_blocks();
        for at in 0..ENTRIES {
            let first = key.first_block().saturating_add(each.saturating_mul(u64::try_from(at).unwrap_or(0)));
            let range = first..first.saturating_add(each);
            if range.start >= blocks.end || range.end <= blocks.start {
                continue;
            }
            let entry = self.page(medium, space, key, Place::default())?.get(at).copied().unwrap_or_default();
            if entry.is_zero() {
                continue;
            }
            let whole = blocks.start <= range.start && range.end <= blocks.end;
            let now = if key.level == 0 {
                if entry.data != 0 {
                    had_data = had_data.saturating_add(1);
                    space.release(entry.place.slot);
                }
                Entry::ZERO
            } else if whole {
                if entry.data != 0 {
                    had_data = had_data.saturating_add(self.drop_below(medium, space, key.child(at), entry.place)?);
                }
                Entry::ZERO
            } else {
                let child = key.child(at);
                let now = self.enter(medium, space, child, entry)?;
                had_data = had_data.saturating_add(self.zero_below(medium, space, child, blocks)?);
                now
            };
            if now != entry {
                self.change(key, at, now);
            }
        }
        Ok(had_data)
    }

    /// Gives up a page and all that it leads to. Returns how many blocks had data.
    fn drop_below(&mut self, medium: &Medium, space: &mut Space, key: Key, place: Place) -> Result<u64> {
        // All of it is read before any of it is given up: where that fails, the map still names it.
        let mut pages = Vec::new();
        self.collect(medium, space, key, place, &mut pages)?;
        let mut had_data = 0_u64;
        for (key, place, page) in pages {
            if key.level == 0 {
                for entry in page.iter().filter(|entry| entry.data != 0) {
                    space.release(entry.place.slot);
                    had_data = had_data.saturating_add(1);
                }
            }
            if place.slot != 0 {
                space.release(place.slot);
            }
            self.forget(key);
        }
        Ok(had_data)
    }

    /// The pages from one page downwards, with where they lie.
    fn collect(
        &mut self,
        medium: &Medium,
        space: &Space,
        key: Key,
        place: Place,
        pages: &mut Vec<(Key, Place, Arc<Page>)>,
    ) -> Result<()> {
        let page = self.page(medium, space, key, place)?;
        pages.push((key, place, Arc::clone(&page)));
        if key.level > 0 {
            for (at, entry) in page.iter().enumerate().filter(|(_, entry)| entry.data != 0) {
                self.collect(medium, space, key.child(at), entry.place, pages)?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, key: Key) {
        if self.pages.remove(&key).is_some_and(|cached| cached.changed) {
            self.changed = self.changed.saturating_sub(1);
        }
    }

    /// The changed pages of a level.
    pub(super) fn changed_at(&self, level: u8) -> Vec<Key> {
        let changed = self.pages.iter().filter(|(key, cached)| cached.changed && key.level == level);
        let mut keys: Vec<Key> = changed.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// Writes a changed page of the layer with this root; those below it were written before. Where that fails it is still changed, and the map is as it was.
    pub(super) fn write_page(&mut self, medium: &Medium, space: &mut Space, root: &mut Root, key: Key) -> Result<()> {
        let page = self.page(medium, space, key, Place::default())?;
        let is_root = key.level == root.level;
        let (parent, at) = key.parent();
        let before = if is_root {
            root.entry
        } else {
            let place = self.place_of(medium, space, root, parent)?;
            self.page(medium, space, parent, place)?.get(at).copied().unwrap_or_default()
        };
        let alike = page.first().copied().filter(|first| first.data == 0 && page.iter().all(|entry| entry == first));
        let now = match alike {
            // Zero cannot be said of a root, and parts of blocks cannot be said of pages.
            Some(entry) if entry.is_silent() || (entry.is_zero() && !is_root) => entry,
            _ => {
                let slot = space.take(medium, 1)?.start;
                match medium.write_slot(slot, &write_page(&page)) {
                    Ok(checksum) => page_at(Place { slot, checksum }),
                    Err(error) => {
                        space.give_back(Run { start: slot, len: 1 });
                        return Err(error);
                    }
                }
            }
        };
        if before.place.slot != 0 {
            space.release(before.place.slot);
        }
        if is_root {
            root.entry = now;
        } else {
            self.change(parent, at, now);
        }
        if now.data == 0 {
            self.forget(key);
        } else if let Some(cached) = self.pages.get_mut(&key) {
            cached.changed = false;
            self.changed = self.changed.saturating_sub(1);
        }
        Ok(())
    }

    /// Where a page lies that may have left memory.
    fn place_of(&mut self, medium: &Medium, space: &Space, root: &Root, wanted: Key) -> Result<Place> {
        let mut key = root.key(wanted.layer);
        let mut place = root.entry.place;
        while key.level > wanted.level {
            let levels = u32::from(key.level.saturating_sub(wanted.level)).saturating_sub(1);
            let at = (wanted.index >> levels.saturating_mul(BITS)) & 0xff;
            let at = usize::try_from(at).unwrap_or(0);
            let entry = self.page(medium, space, key, place)?.get(at).copied().unwrap_or_default();
            place = entry.place;
            key = key.child(at);
        }
        Ok(place)
    }
}
