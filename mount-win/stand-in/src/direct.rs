//! Calls that go to the operations themselves, without Dokan's interface between.

use mount_win::information::Information;
use mount_win::operations::Operations;
use mount_win::status::Status;

use crate::calls::{Answer, Calls, Change, Entry, Known, Open, Volume};

/// The operations of a drive.
#[derive(Debug)]
pub struct Direct(pub Operations);

fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    result.map_err(|status| status.0)
}

fn times(information: &Information) -> [u64; 3] {
    [information.created, information.accessed, information.written]
}

impl Calls for Direct {
    fn create(&self, path: &[u16], access: u32, disposition: u32, options: u32) -> Answer<Open> {
        let opened = answer(self.0.create(path, access, disposition, options))?;
        Ok(Open { context: opened.handle, is_folder: opened.is_folder, existed: opened.might_have_created })
    }

    fn cleanup(&self, open: &Open) {
        let _ = self.0.cleanup(open.context);
    }

    fn close(&self, open: &Open) {
        let _ = self.0.close(open.context);
    }

    fn read(&self, open: &Open, len: usize, offset: i64) -> Answer<Vec<u8>> {
        let mut bytes = vec![0xa5; len];
        let read = answer(self.0.read(open.context, &mut bytes, offset))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn flush(&self, open: &Open) -> Answer<()> {
        answer(self.0.flush(open.context))
    }

    fn information(&self, open: &Open) -> Answer<Known> {
        let known = answer(self.0.information(open.context))?;
        let Information { attributes, len, index, links, .. } = known;
        Ok(Known { attributes, len, times: times(&known), index, links })
    }

    fn list(&self, open: &Open, pattern: Option<&[u16]>) -> Answer<Vec<Entry>> {
        let mut entries = Vec::new();
        let listed = self.0.find_files(open.context, pattern, &mut |found| {
            let Information { attributes, len, .. } = found.information;
            entries.push(Entry { name: found.name.clone(), attributes, len, times: times(&found.information) });
            true
        });
        answer(listed).map(|()| entries)
    }

    fn streams(&self, open: &Open) -> Answer<Vec<(Vec<u16>, u64)>> {
        let mut streams = Vec::new();
        let listed = self.0.find_streams(open.context, &mut |found| {
            streams.push((found.name.clone(), found.len));
            true
        });
        answer(listed).map(|()| streams)
    }

    fn security(&self, open: &Open, wanted: u32) -> Answer<Vec<u8>> {
        answer(self.0.security(open.context, wanted))
    }

    fn write(&self, open: &Open, bytes: &[u8], offset: Option<i64>, paging: bool) -> Answer<usize> {
        answer(self.0.write(open.context, bytes, offset, paging))
    }

    fn set_len(&self, open: &Open, len: i64, is_allocation: bool) -> Answer<()> {
        answer(match is_allocation {
            true => self.0.set_room(open.context, len),
            false => self.0.set_len(open.context, len),
        })
    }

    fn change(&self, open: &Open, change: Change) -> Answer<()> {
        let context = open.context;
        answer(match change {
            Change::Write => self.0.write(context, b"data", Some(0), false).map(|_| ()),
            Change::Attributes(attributes) => self.0.set_attributes(context, attributes),
            Change::Times(times) => self.0.set_times(context, times),
            Change::End => self.0.set_len(context, 1),
            Change::Allocation => self.0.set_room(context, 1),
            Change::Delete | Change::Move | Change::Security => Err(self.0.change()),
        })
    }

    fn lock(&self, open: &Open, _: i64, _: i64, _: bool) -> Answer<()> {
        answer(self.0.lock(open.context))
    }

    fn space(&self) -> Answer<[u64; 3]> {
        answer(self.0.free_space())
    }

    fn volume(&self) -> Answer<Volume> {
        let volume = self.0.volume();
        let label = String::from_utf16(&volume.label).unwrap();
        Ok((label, volume.serial, volume.max_name, volume.flags, volume.filesystem.into()))
    }
}
