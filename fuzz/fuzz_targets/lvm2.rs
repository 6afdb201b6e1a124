//! See `hikae_fuzz::lvm2`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::lvm2::run(data));
