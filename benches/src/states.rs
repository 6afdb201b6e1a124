//! Two states of a disk, the later with 3 % of its pages changed, in the form of each program that shows them.

use std::path::Path;
use std::process::Command;

use crate::measure::run;

/// Makes them in `folder`: `serve.hik` with both as generations, and for each `serve-N` as `.raw`, `.qcow2` (zstd) and `.bin`, the chunks of the limit, those of
/// the second compressed against the first. What hikae leaves out (unused clusters, page file) is left out for all of them. `size` is in MiB.
pub fn make(folder: &Path, programs: &Path, disk: &str, size: u64) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new(top.join("make-disk")).args([disk, &size.to_string()]).arg(folder).status().unwrap();
    assert!(status.success(), "make-disk failed");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let program = |name: &str| programs.join(name).to_str().unwrap().to_owned();
    let (hikae, image, ranges) = (program("hikae"), path("serve.hik"), path("ranges"));
    run("sh", &["-ec", &format!("cd {}; rm -rf serve.hik* serve.[0-9]*.hik serve-*", folder.display())]);
    std::fs::write(&ranges, format!("0 {}\n", size << 20)).unwrap();
    for (number, state) in ["", "-changed"].into_iter().enumerate() {
        let number = number + 1;
        run(&hikae, &["capture", "--compression", "zstd:1", &path(&format!("{disk}-{size}{state}.raw")), &image]);
        let (raw, stored) = (path(&format!("serve-{number}.raw")), path(&format!("serve-{number}.bin")));
        run(&hikae, &["export", &format!("{image}@{number}"), &raw]);
        let first = path("serve-1.bin");
        let mut words = vec!["store", &raw, &ranges, &stored];
        if number == 2 {
            words.extend(["--known", &first]);
        }
        run(&program("bench-limit"), &words);
        let qcow2 = path(&format!("serve-{number}.qcow2"));
        run("qemu-img", &["convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", &raw, &qcow2]);
    }
}
