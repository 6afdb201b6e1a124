//! See `hikae_fuzz::drive`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::drive::run(data));
