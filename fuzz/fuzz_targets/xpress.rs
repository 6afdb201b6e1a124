//! See `hikae_fuzz::xpress`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::xpress::run(data));
