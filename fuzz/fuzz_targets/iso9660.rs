//! See `hikae_fuzz::iso9660`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::iso9660::run(data));
