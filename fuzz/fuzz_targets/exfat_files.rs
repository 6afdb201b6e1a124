//! See `hikae_fuzz::exfat_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::exfat_files::run(data));
