//! See `hikae_fuzz::startup`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::startup::run(data));
