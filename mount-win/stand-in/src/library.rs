//! What Dokan's library makes of one wish of a program: several calls, whose answers decide about the next one.
//!
//! Source: `DispatchCreate` (create.c) and `DispatchSetInformation` (setfile.c) of Dokan 2.

use crate::calls::{Answer, Calls, Change, DIRECTORY_FILE, NON_DIRECTORY_FILE, Open, status};

/// `DELETE`.
pub const DELETE: u32 = 0x0001_0000;
/// `FILE_ATTRIBUTE_READONLY`.
pub const READ_ONLY: u32 = 1;
/// `FILE_OPEN_FOR_BACKUP_INTENT`.
const BACKUP_INTENT: u32 = 0x4000;

/// The folder of a path, as the library cuts it off: it leaves nothing for a name in the root.
fn parent(path: &[u16]) -> &[u16] {
    let end = path.len().saturating_sub(1);
    let slash = path[..end].iter().rposition(|unit| *unit == 0x5c).unwrap_or(0);
    &path[..slash]
}

/// Opens a file. Where it may not be deleted, its folder is asked whether its entries may.
pub fn open(calls: &impl Calls, path: &[u16], access: u32, disposition: u32, options: u32) -> Answer<Open> {
    let opened = calls.create(path, access, disposition, options);
    if opened != Err(status::ACCESS_DENIED) || access & DELETE == 0 {
        return opened;
    }
    // FILE_DELETE_CHILD, FILE_LIST_DIRECTORY.
    let rights = 0x40 | u32::from(access & 0x80 != 0);
    let asked = calls.create(parent(path), rights, disposition, options & !NON_DIRECTORY_FILE | BACKUP_INTENT);
    asked.map_err(|_| status::ACCESS_DENIED)
}

/// Opens the folder into which something is to be renamed (`SL_OPEN_TARGET_DIRECTORY`). `Ok` says whether the new name is there already.
pub fn open_target(calls: &impl Calls, path: &[u16], access: u32) -> Answer<(Open, bool)> {
    let exists = match calls.create(path, access, 1, 0) {
        Ok(open) => {
            calls.cleanup(&open);
            calls.close(&open);
            true
        }
        Err(status) => status != status::OBJECT_NAME_NOT_FOUND,
    };
    let folder = parent(path);
    let folder = if folder.is_empty() { &[0x5c][..] } else { folder };
    calls.create(folder, access, 1, DIRECTORY_FILE).map(|open| (open, exists))
}

/// Marks an open file for being deleted (`FileDispositionInformation`).
pub fn delete(calls: &impl Calls, open: &Open) -> Answer<()> {
    match calls.information(open) {
        Ok(known) if known.attributes & READ_ONLY != 0 => Err(status::CANNOT_DELETE),
        _ => calls.change(open, Change::Delete),
    }
}

/// Sets attributes and times at once (`FileBasicInformation`).
pub fn set_basic(calls: &impl Calls, open: &Open, attributes: u32, times: [i64; 3]) -> Answer<()> {
    calls.change(open, Change::Attributes(attributes))?;
    calls.change(open, Change::Times(times))
}
