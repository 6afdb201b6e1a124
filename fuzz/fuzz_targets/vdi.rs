//! See `hikae_fuzz::vdi`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::vdi::run(data));
