//! See `hikae_fuzz::fat_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::fat_files::run(data));
