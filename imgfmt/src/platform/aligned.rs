//! Ranges widened to whole sectors: what Windows wants of reads and writes of devices.

use std::io;

/// Reads `buf` from `offset` through a buffer of whole units; `read` is only called for ranges of those. The buffer lies at a multiple of the unit.
pub(crate) fn read(
    unit: usize,
    buf: &mut [u8],
    offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let wide = Wide::of(unit, buf.len(), offset)?;
    let mut room = wide.room()?;
    let whole = wide.part_of(&mut room)?;
    read(whole, wide.start)?;
    buf.copy_from_slice(whole.get(wide.skip..wide.skip.saturating_add(buf.len())).ok_or_else(too_large)?);
    Ok(())
}

/// Writes `bytes` at `offset` as whole units: what stands around them in the first and last unit is read and written again.
pub(crate) fn write(
    unit: usize,
    bytes: &[u8],
    offset: u64,
    read: impl FnOnce(&mut [u8], u64) -> io::Result<()>,
    write: impl FnOnce(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let wide = Wide::of(unit, bytes.len(), offset)?;
    let mut room = wide.room()?;
    let whole = wide.part_of(&mut room)?;
    if wide.len != bytes.len() {
        read(whole, wide.start)?;
    }
    let part = whole.get_mut(wide.skip..wide.skip.saturating_add(bytes.len())).ok_or_else(too_large)?;
    part.copy_from_slice(bytes);
    write(whole, wide.start)
}

fn too_large() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

/// A range and the whole units around it.
struct Wide {
    unit: usize,
    start: u64,
    len: usize,
    /// Bytes of the first unit that are not wanted.
    skip: usize,
}

impl Wide {
    fn of(unit: usize, len: usize, offset: u64) -> io::Result<Self> {
        let widened = || {
            let unit_len = u64::try_from(unit).ok()?;
            let skip = offset.checked_rem(unit_len)?;
            let skip_len = usize::try_from(skip).ok()?;
            let len = len.checked_add(skip_len)?.checked_next_multiple_of(unit)?;
            Some(Self { unit, start: offset.checked_sub(skip)?, len, skip: skip_len })
        };
        widened().ok_or_else(too_large)
    }

    fn room(&self) -> io::Result<Vec<u8>> {
        Ok(vec![0; self.len.checked_add(self.unit).ok_or_else(too_large)?])
    }

    /// The part of the room that lies at a multiple of the unit in memory.
    fn part_of<'a>(&self, room: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
        let skip = room.as_ptr().align_offset(self.unit).min(self.unit);
        room.get_mut(skip..skip.saturating_add(self.len)).ok_or_else(too_large)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const UNIT: usize = 512;

    fn disk() -> Vec<u8> {
        (0..8 * UNIT).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    fn checked(len: usize, offset: u64) -> usize {
        assert_eq!((len % UNIT, offset % 512), (0, 0), "{len} bytes at {offset} are not whole sectors");
        usize::try_from(offset).unwrap()
    }

    #[test]
    fn every_range_is_read_and_written_by_whole_sectors() {
        for (offset, len) in [(0, 512), (0, 1), (1, 511), (511, 2), (446, 66), (513, 1023), (1024, 2048), (3000, 1096)]
        {
            let image = disk();
            let at = usize::try_from(offset).unwrap();
            let mut buf = vec![0; len];
            read(UNIT, &mut buf, offset, |whole, offset| {
                assert_eq!(whole.as_ptr().align_offset(UNIT), 0);
                let at = checked(whole.len(), offset);
                whole.copy_from_slice(&image[at..at + whole.len()]);
                Ok(())
            })
            .unwrap();
            assert_eq!(buf, image[at..at + len]);

            let written = RefCell::new(image.clone());
            let bytes = vec![0xee; len];
            let read_whole = |whole: &mut [u8], offset| {
                let at = checked(whole.len(), offset);
                whole.copy_from_slice(&written.borrow()[at..at + whole.len()]);
                Ok(())
            };
            write(UNIT, &bytes, offset, read_whole, |whole, offset| {
                let at = checked(whole.len(), offset);
                written.borrow_mut()[at..at + whole.len()].copy_from_slice(whole);
                Ok(())
            })
            .unwrap();
            let mut model = image;
            model[at..at + len].fill(0xee);
            assert_eq!(written.into_inner(), model);
        }
    }

    #[test]
    fn ranges_that_no_disk_has_are_errors() {
        assert!(read(UNIT, &mut [0; 2], u64::MAX, |_, _| Err(io::ErrorKind::UnexpectedEof.into())).is_err());
        assert!(read(0, &mut [0; 2], 0, |_, _| Ok(())).is_err());
    }
}
