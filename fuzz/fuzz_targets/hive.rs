//! See `hikae_fuzz::hive`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::hive::run(data));
