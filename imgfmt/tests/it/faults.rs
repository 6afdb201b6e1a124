//! Failing writes, short writes, failed syncs and pulled plugs at every point of a capture.

use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::capture::capture;
use imgfmt::disk::MemoryDisk;
use imgfmt::engine::{Cancel, quiet};
use imgfmt::image::PackStore;
use imgfmt::image::codec::Compression;
use imgfmt::verify::verify;

use crate::capture::{open, options, random_bytes, run_capture, source};
use crate::conformance::Random;
use crate::memory_store::{Fault, MemoryStore, State};

fn copy_of(state: &State) -> State {
    State { finished: state.finished.clone(), partial: state.partial.clone(), ..State::default() }
}

/// What the disk holds after the plug was pulled: of every unfinished pack what was synced, and of the rest a random part, torn.
fn pull_plug(state: &mut State, random: &mut Random) {
    for content in state.partial.values_mut() {
        let unsynced = content.bytes.len() - content.synced;
        let kept = content.synced + random.below(unsynced as u64 + 1) as usize;
        content.bytes.truncate(kept);
        if kept > content.synced && random.below(2) == 0 {
            // A sector of what was not synced never reached the disk, though a later one did.
            let at = content.synced + random.below((kept - content.synced) as u64) as usize;
            let end = (at + 512).min(kept);
            content.bytes[at..end].fill(0);
        }
    }
}

#[test]
fn a_fault_at_any_operation_costs_only_the_capture_in_progress() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::new(21);
    let options = options(14, 1 << 20, Compression::Zstd(1));
    let before = random_bytes(2 << 20, &mut random);
    let mut after = before.clone();
    random.fill(&mut after[100_000..1_900_000]);
    let base = MemoryStore::new(folder.path());
    run_capture(MemoryDisk::new(before.clone()), &(Arc::new(base.clone()) as Arc<dyn PackStore>), &options);
    // How many operations a capture has.
    let other = tempfile::tempdir().unwrap();
    let counting = MemoryStore::new(other.path());
    *counting.state.lock().unwrap() = copy_of(&base.state.lock().unwrap());
    run_capture(MemoryDisk::new(after.clone()), &(Arc::new(counting.clone()) as Arc<dyn PackStore>), &options);
    let operations = counting.state.lock().unwrap().operations;
    assert!(operations > 15, "{operations}");

    let mut reused = 0;
    for at in 1..=operations {
        for (fault, plug) in [(Fault::Error, false), (Fault::Short, false), (Fault::Error, true), (Fault::Short, true)]
        {
            let folder = tempfile::tempdir().unwrap();
            let store = MemoryStore::new(folder.path());
            *store.state.lock().unwrap() = copy_of(&base.state.lock().unwrap());
            store.state.lock().unwrap().fault = Some((at, fault));
            let shared: Arc<dyn PackStore> = Arc::new(store.clone());
            let result = capture(
                &source(MemoryDisk::new(after.clone())),
                Arc::clone(&shared),
                &options,
                quiet(&Cancel::default()),
            );
            assert!(result.is_err(), "operation {at} failed and the capture says it did not");
            {
                let mut state = store.state.lock().unwrap();
                state.fault = None;
                if plug {
                    pull_plug(&mut state, &mut random);
                }
            }
            let image = open(&shared);
            assert_eq!(image.generations().len(), 1, "operation {at}: nothing is half visible");
            let mut buf = vec![0; before.len()];
            image.generation(1).unwrap().read_at(&mut buf, 0).unwrap();
            assert!(buf == before);
            assert!(verify(&image, quiet(&Cancel::default())).unwrap().is_clean());

            // The next capture works, and takes what the torn one left.
            let next = run_capture(MemoryDisk::new(after.clone()), &shared, &options);
            reused += next.salvage.frames;
            assert_eq!(next.record.generation, 2);
            let image = open(&shared);
            for (number, model) in [(1, &before), (2, &after)] {
                image.generation(number).unwrap().read_at(&mut buf, 0).unwrap();
                assert!(buf == *model, "operation {at}, generation {number}");
            }
            assert!(verify(&image, quiet(&Cancel::default())).unwrap().is_clean());
        }
    }
    assert!(reused > 100, "{reused} frames of torn captures were reused");
}

#[test]
fn a_first_capture_that_was_torn_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(14, 1 << 30, Compression::Zstd(1));
    let bytes = random_bytes(5 << 20, &mut Random::new(2));
    let store = MemoryStore::new(folder.path());
    let shared: Arc<dyn PackStore> = Arc::new(store.clone());
    store.state.lock().unwrap().fault = Some((4, Fault::Short));
    let source = source(MemoryDisk::new(bytes.clone()));
    assert!(capture(&source, Arc::clone(&shared), &options, quiet(&Cancel::default())).is_err());
    assert!(imgfmt::image::Image::open(Arc::clone(&shared), &Default::default()).is_err(), "there is no image yet");
    store.state.lock().unwrap().fault = None;
    let next = capture(&source, Arc::clone(&shared), &options, quiet(&Cancel::default())).unwrap();
    assert!(next.salvage.frames > 0 && next.record.counts.chunks_reused > 0);
    assert_eq!(next.record.generation, 1);
}
