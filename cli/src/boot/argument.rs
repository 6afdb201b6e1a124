//! Values of QEMU's arguments.

use std::ffi::OsString;
use std::path::Path;

/// A value that ends in a path, in which QEMU wants commas twice.
pub(crate) fn value_with_path(before: &str, path: &Path) -> OsString {
    let mut value = OsString::from(before);
    match path.to_str() {
        Some(text) => value.push(text.replace(',', ",,")),
        None => value.push(path),
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(value_with_path("file=", Path::new("/a,b")), OsString::from("file=/a,,b"));
    }
}
