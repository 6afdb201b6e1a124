//! See `hikae_fuzz::lznt1`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::lznt1::run(data));
