//! Shows the tree of an image or disk as a drive letter or folder, through Dokan 2.
//!
//! Thin: [`imgfmt::tree`] is what people see, this crate translates. All that is translation (names, paths, patterns, attributes, times, status
//! codes, access) is plain code that is the same on every system and tested on all; only the module `dokan`, on Windows, talks to Dokan.
//!
//! ```text
//! Dokan's threads -> dokan -> operations -> walk, folders -> imgfmt::tree
//! ```

#![cfg_attr(
    test,
    expect(clippy::as_conversions, reason = "an overflow in a test fails the test, which is what it is for")
)]

pub mod access;
#[cfg(windows)]
#[expect(unsafe_code, reason = "Dokan is a library of C")]
mod dokan;
mod folders;
pub mod handles;
pub mod information;
pub mod keep_alive;
pub mod layout;
pub mod names;
pub mod operations;
pub mod path;
pub mod place;
pub mod security;
pub mod status;
pub mod times;
pub mod volume;
mod walk;
pub mod wildcard;

#[cfg(windows)]
pub use dokan::{Mount, MountError, MountOptions, Unmounter, let_go_of_output, unmount};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// What only code for Windows says.
    const SIGNS: [&str; 5] = ["windows_sys", "unsafe ", "extern \"system\" fn(", "cfg(windows)", "std::os::windows"];

    #[test]
    fn only_one_module_talks_to_dokan_and_to_windows() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut looked_at = 0;
        for entry in fs::read_dir(src).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            let text = fs::read_to_string(entry.path()).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let said: Vec<_> = SIGNS.into_iter().filter(|sign| code.contains(sign)).collect();
            // The root names the module, and the layout has the types of the functions that pass between it and Dokan.
            let may = match entry.file_name().to_str().unwrap() {
                "lib.rs" => &["cfg(windows)"][..],
                "layout.rs" => &["unsafe ", "extern \"system\" fn("],
                _ => &[],
            };
            assert!(said.iter().all(|sign| may.contains(sign)), "{:?} says {said:?}", entry.file_name());
            looked_at += 1;
        }
        assert!(looked_at > 15, "{looked_at}");
    }
}
