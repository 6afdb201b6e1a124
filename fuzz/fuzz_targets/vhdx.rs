//! See `hikae_fuzz::vhdx`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::vhdx::run(data));
