//! See `hikae_fuzz::core_image`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::core_image::run(data));
