//! See `hikae_fuzz::boot_texts`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hikae_fuzz::boot_texts::run(data));
