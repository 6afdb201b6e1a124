//! What operating systems do differently with files: one interface, one file for each system.
//!
//! Positional reads and writes never depend on a file's own position, which Windows moves all the same: nothing may use it.

#[cfg(any(windows, test))]
pub(crate) mod aligned;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
pub(crate) mod windows;
#[cfg(any(windows, test))]
pub(crate) mod windows_names;
#[cfg(any(windows, test))]
mod windows_numbers;

#[cfg(unix)]
pub(crate) use unix::{
    data_or_hole, device_len, file_id, free_space, identity, identity_of_path, kind_name, make_sparse, open_disk,
    open_plain, path_of, read_exact_at, real_path, same_file, standing, sync_folder, try_lock, try_lock_shared, unlock,
    write_all_at, written_path,
};
#[cfg(windows)]
pub(crate) use windows::{
    data_or_hole, device_len, file_id, free_space, identity, identity_of_path, kind_name, make_sparse, open_disk,
    open_plain, path_of, read_exact_at, real_path, same_file, standing, sync_folder, try_lock, try_lock_shared, unlock,
    write_all_at, written_path,
};

/// What makes a file itself, whatever it is called: device and inode number, or the like.
pub(crate) type FileId = (u64, u64);

/// What stands at a path, links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A block device, or a volume, with the number that the system knows it by.
    Device(u64),
    /// Something else.
    Other,
}

/// What the system says of a run of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileRun {
    /// There may be data up to this byte; `u64::MAX` where the system does not say.
    Data(u64),
    /// There is nothing but zeros up to this byte; `u64::MAX` for the rest of the file.
    Hole(u64),
}

#[cfg(test)]
mod tests {
    use std::fs::{File, TryLockError};

    use super::*;

    #[test]
    fn bytes_are_read_and_written_at_their_place_by_many_threads() {
        let file = tempfile::tempfile().unwrap();
        std::thread::scope(|scope| {
            for n in 0_u8..8 {
                let file = &file;
                scope.spawn(move || {
                    for at in 0..200_u64 {
                        let offset = (at * 8 + u64::from(n)) * 100;
                        write_all_at(file, &[n; 100], offset).unwrap();
                        let mut back = [0xff; 100];
                        read_exact_at(file, &mut back, offset).unwrap();
                        assert_eq!(back, [n; 100]);
                    }
                });
            }
        });
        assert_eq!(device_len(&file).unwrap(), 160_000);
        let past = read_exact_at(&file, &mut [0; 2], 159_999).unwrap_err();
        assert_eq!(past.kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_runs_of_a_sparse_file_tile_it() {
        let file = tempfile::tempfile().unwrap();
        make_sparse(&file).unwrap();
        file.set_len(8 << 20).unwrap();
        write_all_at(&file, &[1; 4096], 1 << 20).unwrap();
        let mut at = 0;
        let mut data = 0;
        while at < 8 << 20 {
            let end = match data_or_hole(&file, at) {
                FileRun::Data(end) => {
                    data += end.min(8 << 20) - at;
                    end
                }
                FileRun::Hole(end) => {
                    assert!(at >= (1 << 20) + 4096 || end <= 1 << 20, "the data lie outside of holes");
                    end
                }
            };
            assert!(end > at);
            at = end.min(8 << 20);
        }
        assert!(data >= 4096);
    }

    #[test]
    fn who_has_a_lock_keeps_others_from_it_and_nobody_from_reading() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "holder").unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (first, second) = (open(), open());
        let is_held = |tried| matches!(tried, Err(TryLockError::WouldBlock));
        try_lock(&first).unwrap();
        assert!(is_held(try_lock(&second)) && is_held(try_lock_shared(&second)));
        assert_eq!(std::fs::read(&path).unwrap(), b"holder");
        unlock(&first).unwrap();
        try_lock_shared(&second).unwrap();
        try_lock_shared(&first).unwrap();
        drop(second);
        unlock(&first).unwrap();
        try_lock(&open()).unwrap();
    }

    #[test]
    fn one_file_under_two_names_is_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&a, "x").unwrap();
        std::fs::write(&b, "x").unwrap();
        assert!(!same_file(&a, &b).unwrap());
        assert!(same_file(&a, &folder.path().join(".").join("a")).unwrap());
        std::fs::hard_link(&a, folder.path().join("c")).unwrap();
        assert!(same_file(&a, &folder.path().join("c")).unwrap());
        assert!(free_space(folder.path()).is_some());
        sync_folder(folder.path()).unwrap();
    }
}
