//! The steps of one thread: what it asks, and what it must hear.

mod bytes;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::calls::{
    Answer, Calls, Change, DIRECTORY_FILE, LIST, LOOK, NON_DIRECTORY_FILE, OPEN, Open, READ, Volume, join, status,
    units,
};
use crate::library::{self, DELETE, READ_ONLY};
use crate::mixed::expected::{DELETE_ON_CLOSE, MAXIMUM, Target, Wish, is_in_expression};
use crate::mixed::window::Windows;
use crate::mixed::world::{Kind, Shape, Thing, World};
use crate::random::Random;

/// `FILE_GENERIC_READ | FILE_GENERIC_WRITE`.
const READ_WRITE: u32 = 0x0012_019f;
/// Most files that a thread has open at once.
const MOST: usize = 8;
const DENIED: u32 = status::ACCESS_DENIED;
const INVALID: u32 = status::INVALID_PARAMETER;

/// An open file.
#[derive(Clone, Copy)]
struct Held {
    open: Open,
    /// The number of its thing.
    thing: usize,
    /// The program has closed it; the cache and the memory manager have not.
    is_cleaned: bool,
}

/// A thread.
pub(super) struct Worker<'a, C> {
    calls: &'a C,
    world: &'a World,
    windows: Windows<'a>,
    shapes: Vec<Shape>,
    /// It alone changes what lies around the disk, and lengths.
    has_shapes: bool,
    random: Random,
    held: Vec<Held>,
    volume: Volume,
    space: [u64; 3],
}

impl<'a, C: Calls> Worker<'a, C> {
    pub(super) fn new(
        calls: &'a C,
        world: &'a World,
        windows: Windows<'a>,
        shapes: Vec<Shape>,
        has_shapes: bool,
        seed: u64,
    ) -> Self {
        let (volume, space) = (calls.volume().unwrap(), calls.space().unwrap());
        let (random, held) = (Random::new(seed), Vec::new());
        Self { calls, world, windows, shapes, has_shapes, random, held, volume, space }
    }

    /// Closes what is open. Returns what is on the disk now, and around it.
    pub(super) fn end(mut self) -> (Windows<'a>, Vec<Shape>) {
        while !self.held.is_empty() {
            self.close(0);
        }
        (self.windows, self.shapes)
    }

    /// Makes one call, or the few that belong together.
    pub(super) fn step(&mut self) {
        if self.held.is_empty() {
            return self.open();
        }
        let index = self.random.below(self.held.len() as u64) as usize;
        if self.held[index].is_cleaned {
            return match self.random.below(4) {
                0 => self.write(index, true),
                1 => self.close(index),
                _ => self.read(index),
            };
        }
        match self.random.below(64) {
            0..=9 => self.open(),
            10..=22 => self.read(index),
            23..=35 => {
                let is_page = self.random.below(4) == 0;
                self.write(index, is_page);
            }
            36 => self.flush(index),
            37..=38 => self.set_len(index),
            39..=40 => self.set_room(index),
            41..=42 => self.set_basic(index),
            43 => self.delete(index),
            44 => self.rename(index),
            45 => self.lock(index),
            46..=47 => self.information(index),
            48..=50 => self.list(index),
            51 => self.streams(index),
            52 => self.security(index),
            53 => self.cancel(),
            54 => {
                assert_eq!(self.calls.volume().as_ref(), Ok(&self.volume));
                assert_eq!(self.calls.space(), Ok(self.space));
            }
            55..=58 => {
                self.calls.cleanup(&self.held[index].open);
                self.held[index].is_cleaned = true;
            }
            _ => self.close(index),
        }
    }

    fn thing(&self, index: usize) -> &'a Thing {
        &self.world.things[self.held[index].thing]
    }

    fn said(&self, index: usize, what: &str) -> String {
        format!("{what} {}", String::from_utf16_lossy(&self.thing(index).path))
    }

    /// Something on the drive: often a file of the disk.
    fn some_thing(&mut self) -> usize {
        let world = self.world;
        match self.random.below(5) {
            0..=2 => self.random.one_of(&world.disk_files),
            _ => self.random.below(world.things.len() as u64) as usize,
        }
    }

    /// Whether this thread knows the length of a file of the disk, and what is around the disk in it.
    fn knows(&self, number: usize) -> bool {
        self.has_shapes || self.shapes[number].least.is_none()
    }

    fn close(&mut self, index: usize) {
        let Held { open, is_cleaned, .. } = self.held.swap_remove(index);
        if !is_cleaned {
            self.calls.cleanup(&open);
        }
        self.calls.close(&open);
        let gone = Err(status::INVALID_HANDLE);
        let late = match self.random.below(6) {
            0 => self.calls.read(&open, 1, 0).map(|_| ()),
            1 => self.calls.write(&open, b"late", Some(0), false).map(|_| ()),
            2 => self.calls.set_len(&open, 0, false),
            3 => self.calls.change(&open, Change::Attributes(0x20)),
            4 => self.calls.list(&open, None).map(|_| ()),
            _ => self.calls.flush(&open),
        };
        assert_eq!(late, gone, "a call with a closed file");
    }

    fn open(&mut self) {
        if self.held.len() >= MOST {
            return self.close(0);
        }
        let number = self.some_thing();
        let thing = &self.world.things[number];
        let (mut path, mut target) = (thing.path.clone(), thing.target(&self.shapes));
        match self.random.below(14) {
            // A stream is the last name of a path, always.
            0 | 1 if path.contains(&0x3a) => {}
            0 => {
                path = join(&path, &units("nix"));
                target = if thing.is_folder() { Target::NoName } else { Target::NoPath };
            }
            1 => (path, target) = (join(&join(&path, &units("nix")), &units("nix")), Target::NoPath),
            // Its content, by the stream's full name.
            2 if !thing.is_folder() && !path.contains(&0x3a) => path.extend(units("::$DATA")),
            _ => {}
        }
        // Names that differ by case alone are others here.
        let text = String::from_utf16_lossy(&path).to_ascii_lowercase();
        if self.random.below(3) == 0
            && !text.contains(['%', ':'])
            && !text.contains("makefile")
            && !text.contains("case")
        {
            for unit in &mut path {
                let is_letter = (0x41..=0x5a).contains(&(*unit & !0x20));
                if is_letter && self.random.below(2) == 0 {
                    *unit ^= 0x20;
                }
            }
        }
        let ends_like_folder = path.len() > 1 && !path.contains(&0x3a) && self.random.below(12) == 0;
        if ends_like_folder {
            path.push(0x5c);
        }
        let disposition = if self.random.below(3) == 0 { self.random.below(7) as u32 } else { OPEN };
        let access = match self.random.below(3) {
            0 => self.random.one_of(&[READ, LOOK, LIST, MAXIMUM]),
            1 => READ_WRITE,
            _ => self.random.one_of(&[
                2,
                4,
                0x10,
                0x40,
                0x100,
                DELETE | LOOK,
                DELETE | 0x80,
                0x4_0000,
                0x8_0000,
                READ | 2,
                0x1000_0000,
            ]),
        };
        let options = match self.random.below(3) {
            0 => self.random.one_of(&[
                DIRECTORY_FILE,
                NON_DIRECTORY_FILE,
                DELETE_ON_CLOSE,
                // FILE_WRITE_THROUGH; FILE_OPEN_FOR_BACKUP_INTENT, FILE_SYNCHRONOUS_IO_NONALERT.
                0x2,
                0x4020,
                0x41,
                DELETE_ON_CLOSE | 0x40,
            ]),
            _ => 0,
        };
        let wish = Wish { access, disposition, options, ends_like_folder };
        // Who does not know a file's length must not change it.
        if let Kind::Disk(shape) = thing.kind
            && wish.empties_it()
            && !self.knows(shape)
        {
            return;
        }
        let opened = library::open(self.calls, &path, access, disposition, options);
        let told = opened.map(|open| (open.is_folder, open.existed));
        let wanted = wish.answer(target).map(|is_folder| (is_folder, wish.tells_of_existence()));
        assert_eq!(told, wanted, "open {} {wish:x?}", String::from_utf16_lossy(&path));
        let Ok(open) = opened else { return };
        if let (Kind::Disk(shape), true) = (&thing.kind, wish.empties_it()) {
            self.shapes[*shape].behind.clear();
        }
        self.held.push(Held { open, thing: number, is_cleaned: false });
    }

    fn flush(&mut self, index: usize) {
        if self.random.below(4) == 0 {
            assert_eq!(self.calls.flush(&self.held[index].open), Ok(()), "{}", self.said(index, "flush"));
        }
    }

    fn set_basic(&mut self, index: usize) {
        let attributes = self.random.one_of(&[0, 0x20, 1, 0x80, 0x10, 0x100]);
        let times = [0; 3].map(|_| self.random.one_of(&[0, -1, -2, -3, 0x1d0_0000_0000_0000, 0]));
        let thing = self.thing(index);
        let wrong = if thing.is_folder() { 0x100 } else { 0x10 };
        let wanted = match thing.kind {
            _ if attributes & wrong != 0 => Err(INVALID),
            Kind::Disk(_) if times.contains(&-3) => Err(INVALID),
            Kind::Disk(_) => Ok(()),
            _ => Err(DENIED),
        };
        let set = library::set_basic(self.calls, &self.held[index].open, attributes, times);
        assert_eq!(set, wanted, "{}: {attributes:#x} {times:x?}", self.said(index, "set attributes and times of"));
    }

    fn delete(&mut self, index: usize) {
        let stays = self.thing(index).known.attributes & READ_ONLY != 0;
        let wanted = Err(if stays { status::CANNOT_DELETE } else { DENIED });
        let deleted = library::delete(self.calls, &self.held[index].open);
        assert_eq!(deleted, wanted, "{}", self.said(index, "delete"));
    }

    fn rename(&mut self, index: usize) {
        let number = self.some_thing();
        let target = &self.world.things[number];
        if target.path.contains(&0x3a) {
            return;
        }
        let path = join(&target.path, &units("new name"));
        let wanted = Err(if target.is_folder() { DENIED } else { status::NOT_A_DIRECTORY });
        // FILE_WRITE_DATA, SYNCHRONIZE.
        let opened = library::open_target(self.calls, &path, 0x0010_0002);
        assert_eq!(opened, wanted, "rename to {}", String::from_utf16_lossy(&path));
        let moved = self.calls.change(&self.held[index].open, Change::Move);
        assert_eq!(moved, Err(DENIED), "{}", self.said(index, "rename"));
    }

    fn lock(&mut self, index: usize) {
        let wanted = if self.thing(index).is_folder() { Err(INVALID) } else { Ok(()) };
        for is_end in [false, true] {
            let locked = self.calls.lock(&self.held[index].open, 7, 100, is_end);
            assert_eq!(locked, wanted, "{}", self.said(index, "lock"));
        }
    }

    /// The length that a file has; `None` where another thread may change it.
    fn len_of(&self, thing: &Thing) -> Option<u64> {
        match thing.kind {
            Kind::Disk(number) => self.knows(number).then(|| self.shapes[number].len() as u64),
            _ => Some(thing.known.len),
        }
    }

    fn information(&mut self, index: usize) {
        let mut known = self.calls.information(&self.held[index].open).unwrap();
        let (thing, len) = (self.thing(index), known.len);
        assert!(self.len_of(thing).is_none_or(|wanted| wanted == len), "{}: {len:#x}", self.said(index, "length of"));
        known.len = thing.known.len;
        assert_eq!(known, thing.known, "{}", self.said(index, "look at"));
    }

    fn list(&mut self, index: usize) {
        let open = self.held[index].open;
        let thing = self.thing(index);
        let Kind::Folder(entries) = &thing.kind else {
            assert_eq!(self.calls.list(&open, None), Err(INVALID), "{}", self.said(index, "list"));
            return;
        };
        let Some(entries) = entries else { return };
        let pattern = match self.random.below(12) {
            0..=1 => None,
            2..=3 => entries.get(self.random.below(entries.len() as u64) as usize).map(|entry| entry.name.clone()),
            _ => {
                let all = ["*", "<", "*.raw", "<.raw", "disk*", "P?", "<\"*", ">>>>\">>>", "*.V*", "nothing?"];
                Some(units(self.random.one_of(&all)))
            }
        };
        let is_name = pattern.as_ref().is_some_and(|pattern| entries.iter().any(|entry| entry.name == *pattern));
        let mut listed = self.calls.list(&open, pattern.as_deref()).unwrap();
        let mut wanted: Vec<_> = entries
            .iter()
            .filter(|entry| match &pattern {
                Some(name) if is_name => entry.name == *name,
                Some(pattern) => is_in_expression(&entry.name, pattern),
                None => true,
            })
            .cloned()
            .collect();
        assert_eq!(listed.len(), wanted.len(), "{} {pattern:x?}", self.said(index, "list"));
        for (listed, wanted) in listed.iter_mut().zip(&mut wanted) {
            match self.world.entry(thing, wanted).map(|entry| self.len_of(entry)) {
                Some(Some(len)) => wanted.len = len,
                Some(None) => listed.len = wanted.len,
                None => {}
            }
        }
        assert!(listed == wanted, "{} {pattern:x?}: {listed:x?}", self.said(index, "list"));
    }

    fn streams(&mut self, index: usize) {
        let thing = self.thing(index);
        let mut streams = self.calls.streams(&self.held[index].open).unwrap();
        let mut wanted = thing.streams.clone();
        if let Kind::Disk(_) = thing.kind {
            assert_eq!(streams.len(), 1, "{}", self.said(index, "streams of"));
            match self.len_of(thing) {
                Some(len) => wanted[0].1 = len,
                None => streams[0].1 = wanted[0].1,
            }
        }
        assert_eq!(streams, wanted, "{}", self.said(index, "streams of"));
    }

    fn security(&mut self, index: usize) {
        let open = self.held[index].open;
        let said = self.said(index, "security of");
        assert_eq!(self.calls.security(&open, 7).as_ref(), Ok(&self.thing(index).security), "{said}");
        let parts = self.random.below(16) as u32;
        let some = self.calls.security(&open, parts).unwrap();
        // A part that was not asked for is nowhere.
        for (bit, field) in [(1, 4), (2, 8), (4, 16), (8, 12)] {
            let place = u32::from_le_bytes(some[field..field + 4].try_into().unwrap());
            assert!(parts & bit != 0 || place == 0, "{said}: {parts:#x}");
        }
        assert_eq!(self.calls.change(&open, Change::Security), Err(DENIED), "{said}");
    }

    /// A program gives up calls that run: Dokan answers them itself and closes the file meanwhile.
    fn cancel(&mut self) {
        let files = &self.world.disk_files;
        let number = self.random.one_of(files);
        let thing = &self.world.things[number];
        let Kind::Disk(shape) = thing.kind else { unreachable!("a file of the disk") };
        let disk = self.shapes[shape].disk.clone();
        let Some(part) = self.windows.some(&mut self.random, &disk) else { return };
        let bytes = self.windows.read(part.clone()).unwrap();
        let at = (self.shapes[shape].front.len() + part.start - disk.start) as i64;
        let open = self.calls.create(&thing.path, READ_WRITE, OPEN, 0).unwrap();
        let (calls, is_closed) = (self.calls, AtomicBool::new(false));
        let until_gone = |call: &dyn Fn() -> Answer<bool>| {
            loop {
                let closed_before = is_closed.load(Ordering::Acquire);
                match call() {
                    Ok(is_right) => assert!(is_right && !closed_before, "a call that was given up"),
                    Err(status) => return assert_eq!(status, status::INVALID_HANDLE, "a call that was given up"),
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| until_gone(&|| calls.read(&open, bytes.len(), at).map(|read| read == bytes)));
            // What is there already, so that nobody has to know how far it came.
            scope.spawn(|| until_gone(&|| calls.write(&open, &bytes, Some(at), false).map(|len| len == bytes.len())));
            calls.cleanup(&open);
            calls.close(&open);
            is_closed.store(true, Ordering::Release);
        });
    }
}
