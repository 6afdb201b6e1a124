//! See `hikae_fuzz::fat_used`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::fat_used::run(data));
