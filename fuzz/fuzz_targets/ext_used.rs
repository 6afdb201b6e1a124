//! See `hikae_fuzz::ext_used`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::ext_used::run(data));
