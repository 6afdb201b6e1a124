//! See `hikae_fuzz::vhd`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::vhd::run(data));
