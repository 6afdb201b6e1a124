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

    fn change(&self, _: &Open, _: Change) -> Answer<()> {
        Err(self.0.change().0)
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
