//! The calls that programs make Dokan make, in their order.
//!
//! What each function of Win32 asks of the system is in its documentation (learn.microsoft.com/windows/win32/api: `CreateFileW`, `FindFirstFileExW`,
//! `GetFileInformationByHandle`, `FindFirstStreamW`, `GetFileSecurityW`, `CopyFile2`, `BackupRead`), what the system asks of the filesystem in [MS-FSA] 2.1.5, and what
//! Dokan's library makes of that in `library.rs`. What a program asks of Win32 has its source at the program.

use crate::calls::{
    Calls, DIRECTORY_FILE, LIST, LOOK, NON_DIRECTORY_FILE, OPEN, READ, REPARSE_POINT, join, status, units,
};
use crate::walk::{Seen, list};

/// `FILE_OPEN_IF`.
const OPEN_IF: u32 = 3;
/// `FILE_GENERIC_WRITE`.
const WRITE: u32 = 0x0012_0116;
/// `DELETE`.
const DELETE: u32 = 0x0001_0000;
/// Owner, group and DACL.
const PARTS: u32 = 7;

/// Runs all programs over what was seen in a tree.
pub fn run(calls: &impl Calls, seen: &[Seen]) {
    explorer(calls, seen);
    cmd(calls, seen);
    robocopy(calls, seen);
    virtualbox(calls, seen);
}

/// Says what a call gave where something else was expected.
fn expect<T: std::fmt::Debug + PartialEq>(what: &str, path: &[u16], result: T, wanted: T) {
    assert_eq!(result, wanted, "{what} {}", String::from_utf16_lossy(path));
}

/// Explorer shows a drive, opens folders, and looks for what would change their looks.
///
/// Source: learn.microsoft.com/windows/win32/shell, "Autorun.inf entries", "How to customize folders with Desktop.ini"; [MS-FSCC] 5.6.1 (`Zone.Identifier`); making and
/// renaming are `CreateDirectoryW` and `MoveFileExW`.
fn explorer(calls: &impl Calls, seen: &[Seen]) {
    let root = units("\\");
    let (_, _, max_name, flags, filesystem) = calls.volume().unwrap();
    assert!(max_name == 255 && filesystem == "NTFS" && flags & 0x0008_0000 != 0, "{flags:#x}");
    let [available, total, free] = calls.space().unwrap();
    assert!(available <= free && free <= total && total > 0);
    for name in ["autorun.inf", "desktop.ini", "Thumbs.db", "folder.jpg"] {
        let path = join(&root, &units(name));
        expect("look for", &path, calls.create(&path, LOOK, OPEN, 0).err(), Some(status::OBJECT_NAME_NOT_FOUND));
        let below = join(&path, &units("desktop.ini"));
        expect("look for", &below, calls.create(&below, LOOK, OPEN, 0).err(), Some(status::OBJECT_PATH_NOT_FOUND));
    }
    for seen in seen.iter().filter(|seen| seen.is_folder()) {
        // A search for one name gives the name as it is stored, whatever was typed.
        let slash = seen.path.iter().rposition(|unit| *unit == 0x5c).unwrap();
        let folder = if slash == 0 { &root[..] } else { &seen.path[..slash] };
        let found = list(calls, folder, Some(&seen.entry.name));
        expect("search for", &seen.path, found, vec![seen.entry.clone()]);
        // New files, folders and names are refused.
        let new = join(&seen.path, &units("New folder"));
        let made = calls.create(&new, LIST, 2, DIRECTORY_FILE).err();
        expect("make", &new, made, Some(status::MEDIA_WRITE_PROTECTED));
        let renamed = calls.create(&seen.path, DELETE | LOOK, OPEN, 0).err();
        expect("rename", &seen.path, renamed, Some(status::MEDIA_WRITE_PROTECTED));
    }
    for seen in seen.iter().filter(|seen| !seen.is_folder()).take(200) {
        // Where did it come from? The mark of the web is a stream.
        let zone = [&seen.path[..], &units(":Zone.Identifier")].concat();
        let has_zone = seen.streams.iter().any(|(name, ..)| *name == units(":Zone.Identifier:$DATA"));
        expect("open", &zone, calls.create(&zone, READ, OPEN, 0).is_ok(), has_zone);
    }
}

/// `dir /s /r`, `type`, `copy`, `del` of cmd.
///
/// Source: learn.microsoft.com/windows-server/administration/windows-commands (dir, type, copy, del); what Win32 makes of `*.` and its like: `RtlIsNameInExpression` (ntifs.h),
/// [MS-FSA] 2.1.4.4; `del` is `DeleteFileW`.
fn cmd(calls: &impl Calls, seen: &[Seen]) {
    let folders = seen.iter().filter(|seen| seen.is_folder() && seen.entry.attributes & REPARSE_POINT == 0);
    for folder in folders {
        let all = list(calls, &folder.path, Some(&units("*")));
        expect("dir", &folder.path, list(calls, &folder.path, None), all.clone());
        // `dir *.` and `dir *.*`, as Win32 translates them: names without a dot, and all.
        let without = list(calls, &folder.path, Some(&units("<")));
        let dotless: Vec<_> = all.iter().filter(|entry| !entry.name.contains(&0x2e)).cloned().collect();
        expect("dir *. of", &folder.path, without, dotless);
        expect("dir nothing of", &folder.path, list(calls, &folder.path, Some(&units("no such*"))), Vec::new());
    }
    for file in seen.iter().filter(|seen| !seen.is_folder() && seen.entry.len <= 4 << 20).take(100) {
        let typed = calls.with(&file.path, READ, NON_DIRECTORY_FILE, |open| calls.read_all(open, 512));
        let copied = calls.with(&file.path, READ, NON_DIRECTORY_FILE, |open| calls.read_all(open, 65_536));
        assert_eq!(typed.as_ref().map(|bytes| bytes.len() as u64), Ok(file.entry.len));
        assert_eq!(typed, copied);
        let deleted = calls.create(&file.path, DELETE | LOOK, OPEN, NON_DIRECTORY_FILE | 0x1000).err();
        expect("del", &file.path, deleted, Some(status::CANNOT_DELETE));
        let emptied = calls.create(&file.path, WRITE, 5, NON_DIRECTORY_FILE).err();
        expect("empty", &file.path, emptied, Some(status::MEDIA_WRITE_PROTECTED));
    }
}

/// `robocopy /E /COPYALL /B /MT:4`: attributes, times, all streams, security of everything, by `BackupRead` with several threads.
///
/// Source: learn.microsoft.com/windows-server/administration/windows-commands/robocopy; the order of what is read: `BackupRead`, `WIN32_STREAM_ID`.
fn robocopy(calls: &impl Calls, seen: &[Seen]) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(seen) = seen.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    backup_read(calls, seen);
                }
            });
        }
    });
}

fn backup_read(calls: &impl Calls, seen: &Seen) {
    // FILE_OPEN_FOR_BACKUP_INTENT, FILE_OPEN_REPARSE_POINT; ACCESS_SYSTEM_SECURITY.
    let open = calls.create(&seen.path, READ | 0x0100_0000, OPEN, 0x4000 | 0x0020_0000).unwrap();
    let known = calls.information(&open).unwrap();
    assert_eq!((known.attributes, known.len), (seen.entry.attributes, seen.entry.len));
    let descriptor = calls.security(&open, PARTS).unwrap();
    // Revision 1, in one piece, with an owner within.
    assert!(descriptor.len() >= 20 && descriptor[0] == 1 && descriptor[3] & 0x80 != 0, "{descriptor:02x?}");
    let owner = u32::from_le_bytes(descriptor[4..8].try_into().unwrap()) as usize;
    assert!(owner >= 20 && owner < descriptor.len());
    for (name, len, _) in &seen.streams {
        if *len <= 4 << 20 && *name != units("::$DATA") {
            let path = [&seen.path[..], name].concat();
            let bytes = calls.with(&path, READ, 0, |open| calls.read_all(open, 65_536));
            assert_eq!(bytes.map(|bytes| bytes.len() as u64), Ok(*len));
        }
    }
    calls.cleanup(&open);
    calls.close(&open);
}

/// VirtualBox attaches a disk: it wants to write, is content to read, looks for formats at both ends, and reads here and there.
///
/// Source: VirtualBox, src/VBox/Storage/VD.cpp (`VDOpen`: it tries again without writing where writing is refused as protected or denied), and what probes the
/// formats beside it (VHD.cpp looks for a footer at the end); src/VBox/Runtime/r3/win/fileio-win.cpp (`RTFileOpen`).
fn virtualbox(calls: &impl Calls, seen: &[Seen]) {
    let disks = seen.iter().filter(|seen| {
        let name = String::from_utf16_lossy(&seen.entry.name);
        name.starts_with("disk.")
    });
    for disk in disks {
        // Container views are plain files: neither sparse, compressed nor encrypted.
        assert_eq!(disk.entry.attributes & (0x200 | 0x800 | 0x4000), 0);
        let refused = calls.create(&disk.path, READ | WRITE, OPEN, NON_DIRECTORY_FILE).err();
        expect("open to write", &disk.path, refused, Some(status::MEDIA_WRITE_PROTECTED));
        let open = calls.create(&disk.path, READ, OPEN_IF, NON_DIRECTORY_FILE).unwrap();
        assert!(open.existed);
        let len = calls.information(&open).unwrap().len as i64;
        for offset in [0, len - 512, (len / 2) & !511, 512, 65_536, len - 1024] {
            let offset = offset.clamp(0, (len - 512).max(0));
            let sector = calls.read(&open, 512, offset).unwrap();
            assert_eq!(sector, calls.read(&open, 512, offset).unwrap());
            assert_eq!(sector.len() as i64, len.min(512));
        }
        assert_eq!(calls.read(&open, 512, len), Err(status::END_OF_FILE));
        assert_eq!(calls.flush(&open), Err(status::MEDIA_WRITE_PROTECTED));
        calls.cleanup(&open);
        calls.close(&open);
    }
}

/// VirtualBox runs a guest from a VDI on a drive that takes writes: it reads header and map, says in the header that the disk changes, writes and flushes. The guest writes
/// what is there already.
///
/// Source: VirtualBox, src/VBox/Storage/VDI.cpp (`vdiOpenImage`, `vdiUpdateHeader`, `vdiWrite`, `vdiFlush`).
pub fn virtualbox_writes(calls: &impl Calls, folder: &[u16]) {
    /// The identifier of the last change, and where the blocks' map and the blocks lie.
    const CHANGED: usize = 0x198;
    const PLACES: usize = 0x154;
    let path = join(folder, &units("disk.vdi"));
    let run = || {
        let open = calls.create(&path, READ | WRITE, OPEN, NON_DIRECTORY_FILE).unwrap();
        let header = calls.read(&open, 512, 0).unwrap();
        let places = [PLACES, PLACES + 4].map(|at| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()));
        (open, header, places.map(i64::from))
    };
    let (open, header, [map, data]) = run();
    let changed: Vec<u8> = header[CHANGED..CHANGED + 16].iter().map(|byte| byte ^ 0x5a).collect();
    let same = |offset: i64, len: usize| {
        let bytes = calls.read(&open, len, offset).unwrap();
        assert_eq!(calls.write(&open, &bytes, Some(offset), false), Ok(len), "{offset:#x}");
    };
    assert_eq!(calls.write(&open, &changed, Some(CHANGED as i64), false), Ok(16));
    for sector in 0..40 {
        same(data + sector * 7 * 512, 4096);
    }
    // The map is written again as it is, when a block is used for the first time.
    same(map, 4);
    assert_eq!(calls.flush(&open), Ok(()));
    calls.cleanup(&open);
    calls.close(&open);
    let (open, again, _) = run();
    assert_eq!(again[CHANGED..CHANGED + 16], changed[..]);
    assert_eq!(calls.write(&open, &header[CHANGED..CHANGED + 16], Some(CHANGED as i64), false), Ok(16));
    calls.cleanup(&open);
    calls.close(&open);
}
