//! Bytes and lengths: what is read and written, and what the files of the disk are then.

use std::ops::Range;

use crate::calls::{Calls, status};
use crate::mixed::steps::{DENIED, Held, INVALID, Worker};
use crate::mixed::world::{Kind, Shape};
use crate::random::Random;

/// Bytes by which a file may be made longer at once.
const GROWTH: usize = 4096;

impl<C: Calls> Worker<'_, C> {
    /// A range of a file of the disk, in which this thread knows what is there or whose it is.
    fn range(&mut self, number: usize) -> Range<usize> {
        let shape = self.shapes[number].clone();
        let near = |random: &mut Random, place: usize| {
            let start = (place + random.below(700) as usize).saturating_sub(600);
            start..start + 1 + random.below(GROWTH as u64) as usize
        };
        let most = self.random.below(3_000) as usize;
        match self.random.below(10) {
            0..=1 if self.knows(number) => near(&mut self.random, shape.len()),
            2 if self.knows(number) => near(&mut self.random, shape.disk_end()),
            3..=4 if self.knows(number) && !shape.front.is_empty() => {
                let start = self.random.below(shape.front.len() as u64) as usize;
                start..(start + 1 + most).min(shape.front.len() + 900)
            }
            // Near what can only be what it is.
            5 if self.knows(number) && !shape.fixed.is_empty() => {
                let place = self.random.below(shape.fixed.len() as u64) as usize;
                near(&mut self.random, shape.fixed[place].start)
            }
            _ => match self.windows.some(&mut self.random, &shape.disk) {
                Some(part) => {
                    let offset = shape.front.len();
                    offset + part.start - shape.disk.start..offset + part.end - shape.disk.start
                }
                None if self.knows(number) => near(&mut self.random, shape.len() / 2),
                None => 0..0,
            },
        }
    }

    /// The part of the disk in a range of a file.
    fn on_disk(shape: &Shape, range: &Range<usize>) -> Range<usize> {
        let start = range.start.clamp(shape.front.len(), shape.disk_end());
        let end = range.end.clamp(start, shape.disk_end().max(start));
        let by = shape.disk.start;
        start - shape.front.len() + by..end - shape.front.len() + by
    }

    /// The bytes in a range of a file of the disk, which ends in the file; `None` where this thread does not know them.
    fn content(&self, number: usize, range: &Range<usize>) -> Option<Vec<u8>> {
        let shape = &self.shapes[number];
        let (front, disk_end) = (shape.front.len(), shape.disk_end());
        let mut bytes = shape.front[range.start.min(front)..range.end.min(front)].to_vec();
        bytes.extend(self.windows.read(Self::on_disk(shape, range))?);
        let start = range.start.max(disk_end) - disk_end;
        let end = range.end.max(disk_end) - disk_end;
        bytes.extend(&shape.behind[start..end]);
        let is_around = range.start < front || range.end > disk_end;
        (!is_around || self.knows(number)).then_some(bytes)
    }

    pub(super) fn read(&mut self, index: usize) {
        let Held { open, thing: number, .. } = self.held[index];
        let thing = &self.world.things[number];
        let said = self.said(index, "read");
        let range = match &thing.kind {
            Kind::Disk(shape) => self.range(*shape),
            _ => {
                let start = self.random.below(thing.known.len + 100) as usize;
                start..start + self.random.below(20_000) as usize
            }
        };
        let (offset, len) = match self.random.below(20) {
            0 => (-1 - self.random.below(1000) as i64, 10),
            1 => (i64::MAX - 5, 10),
            2 => (range.start as i64, 0),
            _ => (range.start as i64, range.len()),
        };
        let read = self.calls.read(&open, len, offset);
        if thing.is_folder() {
            assert_eq!(read, Err(status::INVALID_DEVICE_REQUEST), "{said}");
            return;
        }
        if !(0..=i64::MAX - 10).contains(&offset) {
            assert_eq!(read, Err(INVALID), "{said} at {offset}");
            return;
        }
        if len == 0 {
            assert_eq!(read, Ok(Vec::new()), "{said}");
            return;
        }
        let file_len = match thing.kind {
            Kind::Disk(shape) => self.shapes[shape].len(),
            _ => thing.known.len as usize,
        };
        let range = range.start..range.end.min(file_len);
        if range.start >= file_len {
            assert_eq!(read, Err(status::END_OF_FILE), "{said} at {offset:#x}");
            return;
        }
        let wanted = match &thing.kind {
            Kind::Disk(shape) => self.content(*shape, &range),
            Kind::File(bytes) => bytes.as_ref().map(|bytes| bytes[range.clone()].to_vec()),
            Kind::Folder(_) => None,
        };
        assert_eq!(read.as_ref().map(Vec::len), Ok(range.len()), "{said} at {offset:#x}");
        if let Some(wanted) = wanted {
            assert!(read.as_ref() == Ok(&wanted), "{said}: {} bytes at {offset:#x}", range.len());
        }
    }

    pub(super) fn write(&mut self, index: usize, is_page: bool) {
        let open = self.held[index].open;
        let said = self.said(index, "write to");
        let Kind::Disk(number) = self.thing(index).kind else {
            let offset = self.random.one_of(&[Some(0), Some(1 << 40), Some(-5), None]);
            assert_eq!(self.calls.write(&open, b"data", offset, is_page), Err(DENIED), "{said}");
            return;
        };
        let range = self.range(number);
        let shape = &self.shapes[number];
        let (fixed_len, len) = (shape.least.is_none(), shape.len());
        match self.random.below(24) {
            0 => return assert_eq!(self.calls.write(&open, b"data", Some(-7), is_page), Err(INVALID), "{said}"),
            1 => return assert_eq!(self.calls.write(&open, b"data", Some(i64::MAX), is_page), Err(INVALID), "{said}"),
            2 => return assert_eq!(self.calls.write(&open, b"", Some(range.start as i64), is_page), Ok(0), "{said}"),
            _ => {}
        }
        let to_end = self.knows(number) && self.random.below(8) == 0;
        let start = if to_end { len } else { range.start };
        let wished = start..start + range.len();
        let mut range = wished.clone();
        if is_page {
            range.end = range.end.min(len.max(start));
        }
        let shape = &self.shapes[number];
        let on_disk = Self::on_disk(shape, &range);
        let is_around = range.start < shape.front.len() || range.end > shape.disk_end();
        if !self.windows.owns(&on_disk) || is_around && !self.knows(number) {
            return;
        }
        let there = self.content(number, &(range.start.min(len)..range.end.min(len))).unwrap();
        let mut bytes: Vec<u8> = (0..wished.len()).map(|n| (n / 5) as u8).collect();
        let add = self.random.below(256) as u8;
        bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(add));
        if self.random.below(3) == 0 {
            bytes[..there.len()].copy_from_slice(&there);
        }
        let is_moved = shape.fixed.iter().any(|fixed| {
            let (start, end) = (fixed.start.max(range.start), fixed.end.min(range.end));
            start < end
                && bytes[start - range.start..end - range.start] != there[start - range.start..end - range.start]
        });
        let wanted = match range.is_empty() {
            false if is_moved || range.end > len && fixed_len => Err(DENIED),
            _ => Ok(range.len()),
        };
        let offset = if to_end { None } else { Some(range.start as i64) };
        let written = self.calls.write(&open, &bytes, offset, is_page);
        assert_eq!(written, wanted, "{said}: {} bytes at {start:#x} of {len:#x}, page: {is_page}", wished.len());
        if written.is_ok() && !range.is_empty() {
            self.put(number, &range, &bytes[..range.len()], &on_disk);
        }
    }

    /// Notes what was written.
    fn put(&mut self, number: usize, range: &Range<usize>, bytes: &[u8], on_disk: &Range<usize>) {
        let shape = &mut self.shapes[number];
        let (front, disk_end) = (shape.front.len(), shape.disk_end());
        for (at, byte) in range.clone().zip(bytes) {
            if at < front {
                shape.front[at] = *byte;
            } else if at >= disk_end {
                let place = at - disk_end;
                if place >= shape.behind.len() {
                    shape.behind.resize(place + 1, 0);
                }
                shape.behind[place] = *byte;
            }
        }
        if !on_disk.is_empty() {
            let skip = front.saturating_sub(range.start);
            self.windows.write(on_disk.start, &bytes[skip..skip + on_disk.len()]);
        }
    }

    /// The answer to a wish for another length, and what becomes of a file of the disk.
    fn resized(&mut self, index: usize, new: i64, is_room: bool) {
        let said = self.said(index, if is_room { "give room to" } else { "set the length of" });
        let set = self.calls.set_len(&self.held[index].open, new, is_room);
        let wanted = match (&self.thing(index).kind, usize::try_from(new)) {
            (Kind::Folder(_), _) | (_, Err(_)) => Err(INVALID),
            (Kind::File(_), _) => Err(DENIED),
            (Kind::Disk(number), Ok(new)) => {
                let shape = &mut self.shapes[*number];
                let (len, disk_end) = (shape.len(), shape.disk_end());
                match shape.least {
                    _ if new == len || is_room && new > len => Ok(()),
                    Some(least) if new >= least => {
                        shape.behind.resize(new - disk_end, 0);
                        Ok(())
                    }
                    _ => Err(DENIED),
                }
            }
        };
        assert_eq!(set, wanted, "{said}: {new:#x}");
    }

    /// A length that somebody could wish for.
    fn some_len(&mut self, index: usize) -> Option<i64> {
        let len = match self.thing(index).kind {
            Kind::Disk(number) if self.knows(number) => self.shapes[number].len(),
            Kind::Disk(_) => return (self.random.below(2) == 0).then_some(-5),
            _ => self.thing(index).known.len as usize,
        };
        let by = self.random.below(GROWTH as u64) as usize;
        Some(match self.random.below(5) {
            0 => -1 - by as i64,
            1 => len as i64,
            2 => (len + by) as i64,
            3 => self.random.below(len as u64 + 1) as i64,
            _ => len.saturating_sub(by) as i64,
        })
    }

    pub(super) fn set_len(&mut self, index: usize) {
        if let Some(new) = self.some_len(index) {
            self.resized(index, new, false);
        }
    }

    pub(super) fn set_room(&mut self, index: usize) {
        if let Some(new) = self.some_len(index) {
            self.resized(index, new, true);
        }
    }
}
