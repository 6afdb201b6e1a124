//! See `hikae_fuzz::ext_files`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::ext_files::run(data));
