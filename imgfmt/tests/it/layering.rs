//! The house has floors: a module names only modules below it.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the library from the ground up. A module may say `crate::x` for modules above its own line only.
/// A new module gets its line where its users stop and what it uses begins.
const FLOORS: &[&str] = &[
    "error",
    "bytes",
    "crc32c",
    "platform",
    "disk",
    "overlay",
    "ranges",
    "engine",
    "source",
    "target",
    "partition",
    "format",
    "view",
    "export",
    "volume",
    "filesystem",
    "readahead",
    "startup",
    "image",
    "extract",
    "capture",
    "verify",
    "restore",
    "tree",
    "compare",
];

/// Rooms whose drivers are strangers to each other: what two of them share lies in one of the files named here.
const STRANGERS: &[(&str, &[&str])] = &[
    ("filesystem", &["files", "bits", "chain", "dos_time", "elision", "listing", "utf16"]),
    ("format", &["cache", "chain", "file", "identity", "layer", "names", "policy", "unpack", "write"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Path below `src` as module names, such as `["filesystem", "ntfs", "boot"]`.
fn module_of(path: &Path, src: &Path) -> Vec<String> {
    let below = path.strip_prefix(src).unwrap().with_extension("");
    below.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
}

/// The code of a file: without comments, and without its tests, which may look wherever they like.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// What a module says behind each `crate::`, as module names.
fn names_of(code: &str) -> Vec<Vec<&str>> {
    let behind = code.split("crate::").skip(1);
    behind
        .map(|rest| {
            let path = rest.split(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter)).next().unwrap();
            path.split("::").collect()
        })
        .collect()
}

#[test]
fn a_module_names_only_modules_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floor = |name: &str| FLOORS.iter().position(|listed| *listed == name);
    let (mut files, mut breaches) = (Vec::new(), Vec::new());
    sources(&src, &mut files);
    for path in &files {
        let module = module_of(path, &src);
        if module == ["lib"] {
            continue;
        }
        let Some(own) = floor(&module[0]) else {
            panic!("{} has no floor yet: give the module {} a line in FLOORS", path.display(), module[0]);
        };
        let code = code_of(path);
        if code.contains("crate::{") {
            breaches.push(format!("{}: write `use crate::a::B`: groups cannot be checked", path.display()));
        }
        if code.contains(&"super::".repeat(module.len())) {
            breaches.push(format!("{}: reaches the crate's root by super::", path.display()));
        }
        for named in names_of(&code) {
            // Names that the root re-exports live on the lowest floors.
            if let Some(other) = floor(named[0])
                && other > own
            {
                breaches.push(format!("{}: names {}, which is above {}", path.display(), named[0], module[0]));
            }
            for (room, shared) in STRANGERS {
                if let ([a, driver, ..], [b, other, _, ..]) = (module.as_slice(), named.as_slice())
                    && (a == room && b == room && driver != other)
                    && !shared.contains(other)
                    && src.join(room).join(other).with_extension("rs").exists()
                {
                    breaches.push(format!("{}: names its neighbour {other}", path.display()));
                }
            }
        }
    }
    assert!(files.len() > FLOORS.len(), "the sources lie elsewhere");
    assert!(breaches.is_empty(), "{breaches:#?}");
    for name in FLOORS {
        assert!(src.join(name).with_extension("rs").exists(), "FLOORS lists {name}, which does not exist");
    }
}

#[test]
fn the_names_behind_crate_are_found() {
    assert_eq!(
        names_of("use crate::disk::{Disk, Extent};\nlet x = crate::bytes::le32(b);"),
        [vec!["disk", ""], vec!["bytes", "le32"]]
    );
}

#[test]
fn the_page_on_architecture_lists_the_rooms_in_this_order() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/architecture.md");
    let page = fs::read_to_string(page).unwrap();
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(rows, FLOORS, "give the new room its row in docs/architecture.md");
}
