//! See `hikae_fuzz::overlay`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::overlay::run(data));
