//! Open files by number. A number is never that of a file again that was closed, so a late call finds nothing instead of another file.

use std::sync::{Arc, RwLock};

/// Files that can be open at once: far more than programs open, and a bound for one that never closes.
const MAX_OPEN: usize = 1 << 20;

/// What numbers stand for.
#[derive(Debug)]
pub struct Handles<T>(RwLock<Table<T>>);

#[derive(Debug)]
struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    /// How often the slot was emptied.
    generation: u32,
    value: Option<Arc<T>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self(RwLock::new(Table { slots: Vec::new(), free: Vec::new() }))
    }
}

impl<T> Handles<T> {
    /// Gives a value a number, which is never 0; `None` where there are too many.
    pub fn open(&self, value: T) -> Option<u64> {
        let mut table = self.0.write().expect("no holder of the lock panics");
        let index = match table.free.pop() {
            Some(index) => index,
            None if table.slots.len() < MAX_OPEN => {
                let index = u32::try_from(table.slots.len()).ok()?;
                table.slots.push(Slot { generation: 1, value: None });
                index
            }
            None => return None,
        };
        let slot = table.slots.get_mut(usize::try_from(index).ok()?)?;
        slot.value = Some(Arc::new(value));
        Some(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// What a number stands for; `None` where it was closed, or never given.
    pub fn get(&self, handle: u64) -> Option<Arc<T>> {
        let (index, generation) = split(handle)?;
        let table = self.0.read().expect("no holder of the lock panics");
        let slot = table.slots.get(index).filter(|slot| slot.generation == generation)?;
        slot.value.clone()
    }

    /// Takes a number back; `None` where that was done before.
    pub fn close(&self, handle: u64) -> Option<Arc<T>> {
        let (index, generation) = split(handle)?;
        let mut table = self.0.write().expect("no holder of the lock panics");
        let slot = table.slots.get_mut(index).filter(|slot| slot.generation == generation)?;
        let value = slot.value.take()?;
        // A slot that has used up its numbers stays empty for good.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            table.free.push(u32::try_from(index).ok()?);
        }
        Some(value)
    }

    /// Numbers that are given now.
    pub fn len(&self) -> usize {
        let table = self.0.read().expect("no holder of the lock panics");
        table.slots.iter().filter(|slot| slot.value.is_some()).count()
    }
}

fn split(handle: u64) -> Option<(usize, u32)> {
    Some((usize::try_from(handle & u64::from(u32::MAX)).ok()?, u32::try_from(handle >> 32).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_number_never_means_anything_again() {
        let handles = Handles::default();
        let first = handles.open('a').unwrap();
        assert_eq!(handles.close(first).as_deref(), Some(&'a'));
        let second = handles.open('b').unwrap();
        assert_ne!(first, second);
        assert!(handles.get(first).is_none() && handles.close(first).is_none());
        assert_eq!(handles.get(second).as_deref(), Some(&'b'));
        for strange in [0, 1, u64::MAX, second + 1, second + (1 << 32)] {
            assert!(handles.get(strange).is_none() && handles.close(strange).is_none());
        }
        assert_eq!(handles.len(), 1);
    }

    #[test]
    fn there_is_an_end_to_open_files_and_closing_one_makes_room() {
        let handles = Handles::default();
        let all: Vec<u64> = (0..MAX_OPEN).map(|n| handles.open(n).unwrap()).collect();
        assert_eq!(handles.open(0), None);
        handles.close(all[7]);
        assert!(handles.open(0).is_some() && handles.open(0).is_none());
        assert_eq!(handles.len(), MAX_OPEN);
    }
}
