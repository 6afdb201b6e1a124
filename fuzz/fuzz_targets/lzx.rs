//! See `hikae_fuzz::lzx`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::lzx::run(data));
