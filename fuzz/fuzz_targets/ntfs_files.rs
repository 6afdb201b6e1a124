//! See `hikae_fuzz::ntfs_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::ntfs_files::run(data));
