//! See `hikae_fuzz::image_objects`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::image_objects::run(data));
