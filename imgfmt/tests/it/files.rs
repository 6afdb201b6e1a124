//! Files of this machine, the same way on every system.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// Makes a sparse file of `len` bytes.
pub(crate) fn sparse_file(path: &Path, len: u64) {
    File::create(path).and_then(|file| file.set_len(len)).expect("a sparse file in the temporary folder");
}

/// Writes at a place of a file, whose position moves.
pub(crate) fn write_all_at(mut file: &File, bytes: &[u8], offset: u64) {
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(bytes)).expect("a write into a file of the test");
}

/// Ends the test where a file takes more bytes of its disk than these.
#[cfg(unix)]
#[track_caller]
pub(crate) fn takes_at_most(path: &Path, most: u64) {
    let taken = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).expect("a file of the test")) * 512;
    assert!(taken <= most, "{}: {taken} bytes", path.display());
}

/// The same on Windows, where Wine does not say what a file takes: nothing is held against it.
#[cfg(windows)]
pub(crate) fn takes_at_most(_path: &Path, _most: u64) {}
