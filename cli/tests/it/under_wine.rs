//! `hikae.exe` under Wine beside the program of this system: the same answers, and each reads what the other one wrote.
//!
//! `.ci/windows` builds it, and names it in the variable that [`program`] reads.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::machine::{HIKAE, Random, program, run, shell};

/// The part of the disk that is noise, in bytes.
const NOISE: std::ops::Range<usize> = 20 << 20..22 << 20;

/// One of the two programs, and what its files are called.
struct Of {
    program: String,
    name: &'static str,
}

impl Of {
    /// Runs it. Returns its standard output.
    #[track_caller]
    fn run(&self, folder: &Path, args: &[&str]) -> Vec<u8> {
        let done = Command::new(&self.program).args(args).current_dir(folder).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{} {args:?}: {said}", self.name);
        done.stdout
    }

    fn lines(&self, folder: &Path, args: &[&str]) -> String {
        String::from_utf8(self.run(folder, args)).unwrap()
    }
}

/// Windows, Linux.
fn both() -> [Of; 2] {
    let exe = program();
    assert_ne!(exe, HIKAE, "HIKAE_PROGRAM names what runs hikae.exe");
    [Of { program: exe, name: "exe" }, Of { program: HIKAE.into(), name: "linux" }]
}

/// A disk with an ext4, and an NTFS with streams, compressed and system-compressed files and names in Unicode: the seed of the fuzz targets.
fn make(folder: &Path) -> Vec<u8> {
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/ntfs.img.zst");
    shell(
        folder,
        &format!(
            "mkdir -p tree/docs; seq 90000 > tree/docs/numbers; printf 'caf\\303\\251\\n' > 'tree/docs/caf\u{e9} \u{65e5}\u{672c}'
             truncate -s 24M disk.raw; zstd -dq '{}' -o ntfs
             printf '2048,16384,83\\n18432,6144,7\\n' | sfdisk -q disk.raw
             mke2fs -q -F -t ext4 -d tree -E offset=1048576 disk.raw 8M 2> /dev/null
             dd if=ntfs of=disk.raw bs=1M seek=9 conv=notrunc status=none",
            seed.display()
        ),
    );
    let path = folder.join("disk.raw");
    let mut bytes = std::fs::read(&path).unwrap();
    Random::new(7).fill(&mut bytes[NOISE]);
    std::fs::write(path, &bytes).unwrap();
    bytes
}

fn same(folder: &Path, a: &str, b: &str) {
    assert!(std::fs::read(folder.join(a)).unwrap() == std::fs::read(folder.join(b)).unwrap(), "{a} is not {b}");
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn windows_and_linux_read_what_the_other_one_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut bytes = make(folder);
    let programs = both();
    // Two generations by each, and then one more of each image by the other.
    let capture = |of: &Of, image: &str| of.run(folder, &["capture", "disk.raw", image, "--all-blocks"]);
    for of in &programs {
        capture(of, &format!("{}.hik", of.name));
    }
    bytes[NOISE.start..NOISE.start + 100_000].fill(b'2');
    std::fs::write(folder.join("disk.raw"), &bytes).unwrap();
    capture(&programs[1], "exe.hik");
    capture(&programs[0], "linux.hik");
    for image in ["exe.hik", "linux.hik"] {
        let answers = |args: &[&str]| {
            let [windows, linux] = [&programs[0], &programs[1]].map(|of| of.lines(folder, args));
            assert_eq!(windows, linux, "{args:?}");
            linux
        };
        answers(&["list", "--json", image]);
        answers(&["verify", image]);
        answers(&["diff", "--json", image, "1", "2"]);
        let listed = answers(&["ls", "-lR", "--streams", &format!("{image}:/p2")]);
        for name in ["resident:large", "\u{fc}n\u{ef} \u{65e5}\u{1f600}", "CASE"] {
            assert!(listed.contains(name), "{name}: {listed}");
        }
        let listed = answers(&["ls", "-R", "--json", &format!("{image}@1:/p1")]);
        assert!(listed.contains("caf\u{e9} \u{65e5}\u{672c}"), "{listed}");
        for file in ["packed/text", "resident:large", "pieces:second", "\u{fc}n\u{ef} \u{65e5}\u{1f600}", "CASE"] {
            let inside = format!("{image}:/p2/{file}");
            let [windows, linux] = [&programs[0], &programs[1]].map(|of| of.run(folder, &["cat", &inside]));
            assert!(windows == linux && !linux.is_empty(), "{inside}");
        }
        for of in &programs {
            let restored = format!("{image}.{}.restored", of.name);
            of.run(folder, &["restore", image, &restored]);
            same(folder, "disk.raw", &restored);
        }
        for name in ["vhdx", "vhd"] {
            let [windows, linux] = [&programs[0], &programs[1]].map(|of| {
                let file = format!("{image}.{}.{name}", of.name);
                of.run(folder, &["export", image, &file]);
                file
            });
            let format = if name == "vhd" { "vpc" } else { name };
            shell(folder, &format!("qemu-img compare -q -f raw -F {format} disk.raw {windows}"));
            shell(folder, &format!("qemu-img compare -q -f raw -F {format} disk.raw {linux}"));
        }
        for of in &programs {
            of.run(
                folder,
                &["cp", "-r", "--streams", "leave-out", &format!("{image}:/p1/docs"), &format!("{image}.{}", of.name)],
            );
        }
        shell(folder, &format!("diff -r {image}.exe {image}.linux; diff -r tree/docs {image}.exe"));
    }
}

/// A server, which is killed at the end: Wine passes on no polite signal.
struct Server {
    child: Child,
    uri: String,
}

impl Server {
    fn start(of: &Of, folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(&of.program);
        command.arg("serve").args(args).args(["--nbd", "127.0.0.1:0", "--json"]);
        let mut child = command.current_dir(folder).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { child, uri: ready["uri"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn an_overlay_is_written_by_one_and_read_by_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut bytes = make(folder);
    let [windows, linux] = both();
    windows.run(folder, &["capture", "disk.raw", "disk.hik", "--all-blocks"]);
    let write = |of: &Of, pattern: u8, bytes: &mut Vec<u8>| {
        let server = Server::start(of, folder, &["disk.hik", "--overlay", "over"]);
        let at = (21 << 20) + 512 * usize::from(pattern);
        let write = format!("write -P {pattern} {at} 70000");
        let args = ["-f", "raw", "-c", &write, "-c", "flush", &server.uri];
        run("qemu-io", args).expect(0);
        bytes[at..at + 70_000].fill(pattern);
        std::fs::write(folder.join("disk.raw"), &bytes).unwrap();
        run(
            "qemu-img",
            ["compare", "-q", "-f", "raw", "-F", "raw", "disk.raw", &server.uri].map(|arg| match arg {
                "disk.raw" => folder.join(arg).into_os_string(),
                arg => arg.into(),
            }),
        )
        .expect(0);
    };
    for (pattern, of) in [(7, &windows), (8, &linux), (9, &windows)] {
        write(of, pattern, &mut bytes);
    }
    let [told, said] = [&windows, &linux].map(|of| of.lines(folder, &["overlay", "info", "over", "--json"]));
    assert_eq!(told, said);
}
