//! See `hikae_fuzz::qcow2`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::qcow2::run(data));
