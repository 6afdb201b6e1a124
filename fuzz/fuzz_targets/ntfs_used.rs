//! See `hikae_fuzz::ntfs_used`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::ntfs_used::run(data));
