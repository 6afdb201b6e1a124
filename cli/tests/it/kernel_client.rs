//! `hikae serve`, judged by the kernel's own client: a small Linux in a virtual machine attaches its exports.

use std::fmt::Write;
use std::path::Path;

use crate::boot::{SAMPLES, machine};
use crate::boot_systems::GUEST;
use crate::machine::{Ran, run, shell, text};
use crate::serve::{Server, image};

/// What a shell script says in a guest whose network has this machine at 10.0.2.2.
fn in_guest(folder: &Path, script: &str) -> Ran {
    let (script_file, initrd) = (folder.join("script"), folder.join("initrd"));
    std::fs::write(&script_file, script).unwrap();
    run(&format!("{SAMPLES}/mk-nbd-client"), [GUEST, text(&script_file), text(&initrd)]).expect(0);
    let kernel = format!("{GUEST}/vmlinuz");
    let boot = ["-m", "256", "-cpu", "Nehalem", "-kernel", &kernel, "-initrd", text(&initrd)];
    let rest = ["-append", "console=ttyS0 quiet", "-nic", "user,model=virtio-net-pci"];
    machine(120, &[&boot[..], &rest].concat()).expect(0)
}

/// The port of a server's address.
fn port(server: &Server) -> String {
    let uri = server.export("");
    uri.rsplit(':').next().unwrap().trim_end_matches('/').to_owned()
}

fn sum(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bytes"), bytes).unwrap();
    let out = shell(folder.path(), "sha256sum bytes").out;
    out.split(' ').next().unwrap().to_owned()
}

#[test]
fn the_kernel_attaches_exports_reads_them_and_writes_to_an_overlay() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bytes = image(folder);
    let packs = "sha256sum *.hik";
    let before = shell(folder, packs).out;
    let reading = Server::start(folder, &["disk.hik", "--nbd", "127.0.0.1:0"]);
    let writing = Server::start(folder, &["disk.hik", "--nbd", "127.0.0.1:0", "--overlay", "try.overlay"]);
    let mut script = String::new();
    for (name, connections) in [("", 1), ("p1", 4), ("1", 1)] {
        let port = port(&reading);
        writeln!(
            script,
            "nbd-client 10.0.2.2 {port} /dev/nbd0 -name '{name}' -C {connections} > /dev/null || echo \"{name} is not attached\"
             echo \"[{name}] read-only $(blockdev --getro /dev/nbd0), $(sha256sum < /dev/nbd0)\"
             nbd-client -d /dev/nbd0 > /dev/null"
        )
        .unwrap();
    }
    write!(
        script,
        "nbd-client 10.0.2.2 {} /dev/nbd1 -name p1 -C 4 > /dev/null
         mount -t ext4 -o discard /dev/nbd1 /mnt && echo \"noise: $(sha256sum < /mnt/noise)\"
         rm /mnt/noise
         yes written | head -c 2000000 > /mnt/new
         fstrim /mnt && sync && umount /mnt && echo unmounted
         nbd-client -d /dev/nbd1 > /dev/null",
        port(&writing)
    )
    .unwrap();
    let said = in_guest(folder, &script);
    let noise = sum(&std::fs::read(folder.join("tree/noise")).unwrap());
    let disk = sum(&bytes);
    let part = sum(&bytes[1 << 20..17 << 20]);
    let first = {
        run("nbdcopy", [reading.export("1").as_str(), text(&folder.join("first"))]).expect(0);
        sum(&std::fs::read(folder.join("first")).unwrap())
    };
    assert_ne!(disk, first, "the generations differ");
    said.says(&[
        &format!("[] read-only 1, {disk}"),
        &format!("[p1] read-only 1, {part}"),
        &format!("[1] read-only 1, {first}"),
        &format!("noise: {noise}"),
        "unmounted",
    ]);
    // The filesystem that the guest left is whole, and has what it wrote.
    run("nbdcopy", [writing.export("p1").as_str(), text(&folder.join("after"))]).expect(0);
    run("e2fsck", ["-f", "-n", text(&folder.join("after"))]).expect(0);
    shell(folder, "debugfs -R 'dump /new new' after 2> /dev/null; yes written | head -c 2000000 | cmp - new");
    shell(folder, "! debugfs -R 'stat /noise' after 2> /dev/null | grep -q Inode");
    reading.stop();
    writing.stop();
    assert_eq!(before, shell(folder, packs).out, "the image was not touched");
}
