//! Random sequences of all calls to a drive whose disk files take writes, several files open at once, each answer and each byte compared with a model.
//!
//! Each thread has parts of the disk for itself, so that it knows what is in them, whatever the others do meanwhile. The first one also has the structures around the disk,
//! the lengths of the files and the descriptor.
//!
//! Source of the answers: [MS-FSA] 2.1.5.1 (opening), .3 (reading), .4 (writing), .6 (listing), .7 (flushing), .8 (locks), .15.1, .2, .3, .4, .12 (room, attributes and times,
//! deleting, length, names); what the files of the disk take is `docs/mount.md`, "Writing, into an overlay".

mod expected;
mod steps;
mod window;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::calls::{Calls, LOOK, READ};
use crate::mixed::steps::Worker;
use crate::mixed::window::Windows;
use crate::mixed::world::{Kind, Shape, World};
use crate::walk::Seen;

/// Bytes that are read at once to compare everything.
const PIECE: usize = 4 << 20;

/// The model: the drive, and what is in the files of its disk now.
#[derive(Debug)]
pub struct Mixed {
    world: World,
    shapes: Vec<Shape>,
    disk: Vec<u8>,
    parts: Vec<Range<usize>>,
}

impl Mixed {
    /// Learns a drive from a walk over it. `base` is the content of its disk, of at least 32 MiB, with an MBR of two partitions that begin at 1 MiB and later.
    pub fn learn(calls: &impl Calls, seen: &[Seen], base: Vec<u8>) -> Self {
        const KIB: usize = 1 << 10;
        let len = base.len();
        let partitions = [partition(&base, 0), partition(&base, 1)];
        let parts = partitions.iter().map(|partition| partition.start - 64 * KIB..partition.start + 512 * KIB);
        let parts = [0..96 * KIB, 20 << 20..(20 << 20) + 256 * KIB, len - 128 * KIB..len].into_iter().chain(parts);
        let parts: Vec<_> = parts.collect();
        let world = World::learn(calls, seen, base, partitions);
        let (shapes, disk) = (world.shapes.clone(), world.base.clone());
        Self { world, shapes, disk, parts }
    }

    /// Takes `steps` random steps on each of at most five threads. Panics, with the seed, where an answer is not the model's.
    pub fn run(&mut self, calls: &impl Calls, seed: u64, threads: usize, steps: u64) {
        let mut shares: Vec<Vec<Range<usize>>> = vec![Vec::new(); threads];
        for (number, part) in self.parts.iter().enumerate() {
            shares[number % threads].push(part.clone());
        }
        let (world, before, shapes) = (&self.world, &self.disk, &self.shapes);
        let ended: Vec<_> = std::thread::scope(|scope| {
            let shares = &shares;
            let started: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn(move || {
                        let windows = Windows::new(before, shares, thread);
                        let random = seed * 1_000_003 + thread as u64;
                        let mut worker = Worker::new(calls, world, windows, shapes.clone(), thread == 0, random);
                        for step in 0..steps {
                            let taken = catch_unwind(AssertUnwindSafe(|| worker.step()));
                            taken.unwrap_or_else(|panic| told(&*panic, seed, thread, step));
                        }
                        let (windows, shapes) = worker.end();
                        (windows.changes(), shapes)
                    })
                })
                .collect();
            started.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        for (start, bytes) in ended.iter().flat_map(|(changes, _)| changes) {
            self.disk[*start..start + bytes.len()].copy_from_slice(bytes);
        }
        // The first thread has the structures.
        self.shapes = ended.into_iter().next().unwrap().1;
    }

    /// Goes on with another mount of the same: all is as it was but the numbers of files, which are those of a mount.
    pub fn meet(&mut self, calls: &impl Calls) {
        for thing in &mut self.world.things {
            let known = calls.with(&thing.path, LOOK, 0, |open| calls.information(open)).unwrap();
            thing.known.index = known.index;
        }
        self.check(calls);
    }

    /// What is on the disk now.
    pub fn disk(&self) -> &[u8] {
        &self.disk
    }

    /// Reads the files of the disk, and compares each byte that may have been written to, and the disk as a whole.
    pub fn check(&self, calls: &impl Calls) {
        for thing in self.world.disk_files.iter().map(|number| &self.world.things[*number]) {
            let Kind::Disk(number) = thing.kind else { unreachable!("a file of the disk") };
            let (shape, name) = (&self.shapes[number], String::from_utf16_lossy(&thing.path));
            let open = calls.create(&thing.path, READ, 1, 0).unwrap();
            assert_eq!(calls.information(&open).unwrap().len, shape.len() as u64, "{name}");
            let same = |at: usize, wanted: &[u8]| {
                for (number, wanted) in wanted.chunks(PIECE).enumerate() {
                    let at = at + number * PIECE;
                    let read = calls.read(&open, wanted.len(), at as i64).unwrap();
                    assert!(read == wanted, "{name}: {} bytes at {at:#x}", wanted.len());
                }
            };
            same(0, &shape.front);
            same(shape.disk_end(), &shape.behind);
            let is_whole = shape.front.is_empty() && shape.behind.is_empty();
            let all = std::slice::from_ref(&shape.disk);
            for part in if is_whole { all } else { &self.parts[..] } {
                let (start, end) = (part.start.max(shape.disk.start), part.end.min(shape.disk.end));
                if start < end {
                    same(shape.front.len() + start - shape.disk.start, &self.disk[start..end]);
                }
            }
            calls.cleanup(&open);
            calls.close(&open);
        }
    }
}

/// Where a partition lies, by its entry in the MBR.
fn partition(disk: &[u8], number: usize) -> Range<usize> {
    let bytes = |at: usize| u32::from_le_bytes(disk[at..at + 4].try_into().unwrap()) as usize * 512;
    let entry = 446 + 16 * number;
    let start = bytes(entry + 8);
    start..start + bytes(entry + 12)
}

/// Says by which seed a step can be taken again.
fn told(panic: &(dyn std::any::Any + Send), seed: u64, thread: usize, step: u64) -> ! {
    let said = panic.downcast_ref::<String>().cloned();
    let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
    panic!("seed {seed}, thread {thread}, step {step}: {said}");
}
