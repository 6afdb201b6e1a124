//! See `hikae_fuzz::swap`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::swap::run(data));
