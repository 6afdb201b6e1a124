//! See `hikae_fuzz::nbd`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::nbd::run(data));
