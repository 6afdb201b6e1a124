//! See `hikae_fuzz::layout`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::layout::run(data));
