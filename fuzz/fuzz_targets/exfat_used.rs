//! See `hikae_fuzz::exfat_used`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::exfat_used::run(data));
