//! The judges.

use std::path::{Path, PathBuf};

use crate::qemu::qemu_img;
use crate::tools::{run_any_status, shell};

const JUDGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/judges/check-image.py");

/// Ends the test unless all other programs read `raw` from these files.
#[track_caller]
pub(crate) fn judged(raw: &Path, images: &[PathBuf], options: &[&str]) {
    let args = options.iter().map(Path::new).chain([raw]).chain(images.iter().map(PathBuf::as_path));
    let output = run_any_status(JUDGE, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Ends the test unless QEMU finds a disk of this length in a file, with 4 KiB of the bytes 1, 2 and so on at these places, and zeros behind the first TiB. Nobody has
/// the time to compare all the zeros of a long one.
#[track_caller]
pub(crate) fn found(image: &Path, format: &str, len: u64, places: &[u64]) {
    let format = format.replace("vhd", "vpc").replace("vpcx", "vhdx");
    let (folder, name) = (image.parent().unwrap(), image.file_name().unwrap().to_str().unwrap());
    let mut script = format!(
        "qemu-img info --output=json -f {format} {name} | grep -q '\"virtual-size\": {len},'
         qemu-io -r -f {format} {name} -c 'read -P 0 {} 1M'",
        (1_u64 << 40) + 512
    );
    for (pattern, at) in (1..).zip(places) {
        script += &format!(" -c 'read -P {pattern} {at} 4k'");
    }
    shell(folder, &format!("{script} > io.log; ! grep -i -e fail -e error io.log; grep -q 1.MiB io.log"));
}

/// Ends the test unless QEMU finds the tables of a qcow2 file whole.
#[track_caller]
pub(crate) fn whole(image: &Path) {
    qemu_img(image.parent().unwrap(), &format!("check -q {}", image.file_name().unwrap().to_str().unwrap()));
}
