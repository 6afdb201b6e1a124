//! See `hikae_fuzz::vmdk`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::vmdk::run(data));
