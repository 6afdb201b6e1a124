//! What the kernel shows of a tree that is mounted by FUSE, in the lines of the stand-in, under the names that Windows is shown.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use imgfmt::tree::Tree;
use mount_unix::{Mount, MountOptions};
use mount_win::names;

/// Mounts a tree, and returns the lines of all that is seen in it.
///
/// Linux lists streams of up to 64 KiB only; a longer one is looked for where `ours` has it, and is opened by its name.
pub(crate) fn lines(folder: &Path, tree: Tree, ours: &[String]) -> Vec<String> {
    let dir = folder.join("fuse");
    fs::create_dir_all(&dir).unwrap();
    let options = MountOptions {
        source: "test".into(),
        allow_other: false,
        uid: None,
        gid: None,
        readahead_bytes: 16 << 20,
        log: Arc::new(|_| ()),
    };
    let mount = Mount::new(Arc::new(tree), &dir, &options).unwrap();
    let unmounter = mount.unmounter();
    let served = std::thread::spawn(move || mount.serve());
    let mut lines = Vec::new();
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| add(&dir, &dir, "\\", ours, &mut lines)));
    unmounter.unmount().unwrap();
    served.join().unwrap().unwrap();
    read.unwrap();
    lines.sort();
    lines
}

fn line(content: &[u8], path: &str) -> String {
    format!("f {} {} {path}", content.len(), blake3::hash(content).to_hex())
}

fn add(root: &Path, folder: &Path, shown: &str, ours: &[String], lines: &mut Vec<String>) {
    let mut keys = BTreeSet::new();
    // The first of names that differ by case keeps its own, in the order of the folder.
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let plain = names::shown(name.as_bytes()).filter(|shown| keys.insert(names::key(shown)));
        let name = plain.unwrap_or_else(|| names::tagged(name.as_bytes()));
        let path = format!("{}\\{}", shown.trim_end_matches('\\'), String::from_utf16_lossy(&name));
        let is_link = entry.file_type().unwrap().is_symlink();
        // Linux follows an absolute link to its own root, and none of Windows; Windows is shown the filesystem's root.
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let followed = match target.strip_prefix("/").or_else(|_| target.strip_prefix("C:/")) {
            Ok(inside) => {
                let path = entry.path();
                let partition = path.strip_prefix(root).unwrap().components().next().unwrap();
                root.join(partition).join(inside)
            }
            Err(_) => entry.path(),
        };
        let inside = !is_link || fs::canonicalize(&followed).is_ok_and(|target| target.starts_with(root));
        match fs::metadata(&followed).ok().filter(|_| inside) {
            Some(metadata) if metadata.is_dir() => {
                lines.push(format!("{} {path}", if is_link { 'l' } else { 'd' }));
                if !is_link {
                    add(root, &entry.path(), &path, ours, lines);
                }
            }
            Some(metadata) if !metadata.is_file() => {
                lines.push(line(b"", &path));
            }
            Some(_) => lines.push(line(
                &fs::read(&followed).unwrap_or_else(|error| panic!("{}: {error}", followed.display())),
                &path,
            )),
            // It leads nowhere.
            None => lines.push(line(target.as_os_str().as_bytes(), &path)),
        }
        if !is_link || inside {
            // Those of a link are those of what it leads to.
            let file = if is_link { fs::canonicalize(&followed).unwrap() } else { entry.path() };
            add_streams(&file, &path, ours, lines);
        }
    }
}

/// Named streams are extended attributes `user.NAME` in a mount by FUSE, and files `FILE:NAME`.
fn add_streams(file: &Path, path: &str, ours: &[String], lines: &mut Vec<String>) {
    let arguments = ["-h", "--absolute-names", "-m", "^user\\."];
    let listed = std::process::Command::new("getfattr").args(arguments).arg(file).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut names: BTreeSet<String> =
        listed.lines().filter_map(|line| Some(line.strip_prefix("user.")?.into())).collect();
    let long = format!(" {path}:");
    names.extend(ours.iter().filter_map(|line| Some(line.split_once(&long)?.1.into())));
    for name in names {
        if let Ok(content) = fs::read(format!("{}:{name}", file.display())) {
            lines.push(line(&content, &format!("{path}:{name}")));
        }
    }
}
