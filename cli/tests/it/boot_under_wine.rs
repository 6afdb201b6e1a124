//! `hikae.exe boot` under Wine: a real QEMU of this system is started by it, as a program of Windows (`tests/stand_ins`), and reads the disk from it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::boot::{SAMPLES, tiny};
use crate::boot_test::bios_speaks_to;
use crate::machine::{HIKAE, Ran, hikae, program, run, shell, sparse_file, text, wait_until};

/// What stands in for the programs of Windows.
const STAND_INS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand_ins");

/// A folder with a program of Windows that runs a script of this system.
fn stand_in(folder: &Path, name: &str, script: &Path) {
    let built = PathBuf::from(std::env::var("HIKAE_WINDOWS").unwrap());
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(built.join("stand-in-qemu.exe"), folder.join(name)).unwrap();
    std::fs::copy(script, folder.join("machine")).unwrap();
}

/// QEMU in a folder.
fn qemu(folder: &Path) {
    stand_in(folder, "qemu-system-x86_64.exe", &Path::new(STAND_INS).join("machine"));
}

/// Where Wine has the folder of installed programs.
fn program_files() -> PathBuf {
    PathBuf::from(std::env::var("WINEPREFIX").unwrap()).join("drive_c/Program Files")
}

/// `hikae.exe` in a folder, with another one in its `PATH`.
fn windows(folder: &Path, path: &Path, arguments: &[&str]) -> Command {
    let exe = program();
    assert_ne!(exe, HIKAE, "HIKAE_PROGRAM names what runs hikae.exe");
    let mut command = Command::new(exe);
    command.args(arguments).current_dir(folder).env("WINEPATH", format!("Z:{}", text(path)).replace('/', "\\"));
    command.stdin(Stdio::null());
    command
}

/// Little memory, and time enough for a machine beside which others run.
const USUAL: [&str; 6] = ["boot", "--test", "--memory", "128M", "--limit", "240s"];

/// Tests a disk by `hikae.exe`.
fn test(folder: &Path, path: &Path, arguments: &[&str]) -> Ran {
    windows(folder, path, &[&USUAL, arguments].concat()).output().unwrap().into()
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn windows_finds_of_a_disk_what_linux_finds() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("programs");
    qemu(&path);
    tiny(folder);
    hikae_of_linux(folder, &["capture", "disk.img", "a.hik"]).expect(0);
    sparse_file(&folder.join("blank.img"), 1 << 20);
    for (arguments, code, reason) in [
        (&["a.hik", "--expect", "BOOTPROOF-TINY", "--expect", "SUM OK"][..], 0, "SUM OK"),
        (&["blank.img", "--firmware", "bios"], 1, "No bootable device"),
    ] {
        let arguments = [arguments, &["--json"]].concat();
        let ran = [test(folder, &path, &arguments), hikae_of_linux(folder, &[&USUAL, &arguments[..]].concat())];
        let [windows, linux] = ran.map(|ran| {
            let mut report = ran.expect(code).json();
            assert!(report["reason"].as_str().unwrap().contains(reason), "{report}");
            for of_this_run in ["seconds", "tested", "read", "decoded"] {
                assert!(!report[of_this_run].is_null() || report["image"].is_null(), "{of_this_run}: {report}");
                report[of_this_run] = Value::Null;
            }
            report
        });
        assert_eq!(windows, linux);
    }
    let picture = std::fs::read(folder.join("a.hik.boot-1.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.len() > 500, "{} bytes", picture.len());
    hikae_of_linux(folder, &["list", "a.hik"]).expect(0).says(&["not verified, boots"]);
}

/// The program of this system.
fn hikae_of_linux(folder: &Path, arguments: &[&str]) -> Ran {
    Command::new(HIKAE).args(arguments).current_dir(folder).output().unwrap().into()
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn what_a_guest_writes_on_windows_is_kept_in_an_overlay_and_read_on_linux() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("programs");
    qemu(&path);
    run("nasm", ["-f", "bin", "-o", text(&folder.join("disk.img")), &format!("{SAMPLES}/counter.asm")]).expect(0);
    let counts = |windows: bool, overlay: &[&str], count: u32| {
        let count = format!("COUNT {count}");
        let arguments = [&["disk.img", "--firmware", "bios", "--expect", &count], overlay].concat();
        match windows {
            true => test(folder, &path, &arguments),
            false => hikae_of_linux(folder, &[&USUAL, &arguments[..]].concat()),
        }
        .expect(0)
        .says(&["boots: serial text"]);
    };
    let overlay = ["--overlay", "guest.overlay"];
    counts(true, &overlay, 1);
    counts(false, &overlay, 2);
    counts(true, &overlay, 3);
    counts(true, &[], 1);
    let disk = std::fs::read(folder.join("disk.img")).unwrap();
    assert_eq!(disk[512], b'0', "the disk itself is as it was");
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn who_connects_before_qemu_gets_nothing_and_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("programs");
    qemu(&path);
    let words = folder.join("words");
    let before = format!("#!/bin/sh\nexec '{STAND_INS}/impostor' '{}' \"$@\"\n", text(&words));
    std::fs::write(path.join("before-qemu"), before).unwrap();
    shell(&path, "chmod +x before-qemu");
    sparse_file(&folder.join("blank.img"), 1 << 20);
    let ran = test(folder, &path, &["blank.img", "--firmware", "bios"]);
    std::fs::write(folder.join("words.stop"), "").unwrap();
    // Believed, the liars would have made it boot.
    ran.expect(1).says(&[
        "does not boot: screen text",
        "No bootable device",
        "sent away: it does not know what QEMU was told",
        "sent away: it answers what is no JSON",
    ]);
    assert_eq!(
        std::fs::read_to_string(words).unwrap(),
        "own name: 1048576\nno name: refused\nanother: refused\nnearly: refused\na part: refused\nits name is not listed\n"
    );
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn a_machine_that_is_watched_by_its_user_ends_with_its_own_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("programs");
    qemu(&path);
    tiny(folder);
    let of_qemu = ["--", "-display", "none", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"];
    let arguments = [&["boot", "--memory", "64M", "disk.img"], &of_qemu[..]].concat();
    let ran: Ran = windows(folder, &path, &arguments).output().unwrap().into();
    ran.expect(3).says(&["thrown away at the end", "SUM OK", "QEMU ended: exit code: 33"]);
}

/// Processes of QEMU that were given this word.
fn machines(word: &str) -> Vec<u32> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_one = |id: &u32| {
        // One may be gone by now.
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.starts_with(b"qemu-system") && line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    };
    processes.filter(is_one).collect()
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn killed_hard_on_windows_it_takes_the_machine_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("programs");
    qemu(&path);
    sparse_file(&folder.join("disk.img"), 1 << 20);
    let plain = ["boot", "--memory", "32M", "--firmware", "bios", "disk.img", "--", "-display", "none"];
    let tested = ["boot", "--test", "--memory", "32M", "--firmware", "bios", "--limit", "100s", "disk.img", "--"];
    for (arguments, kind) in [(&plain[..], "plain"), (&tested, "tested")] {
        let word = format!("{kind}-{}", folder.file_name().unwrap().display());
        let (says, said) = bios_speaks_to(&folder.join(kind));
        let says = says.each_ref().map(String::as_str);
        let mut hikae = windows(folder, &path, &[arguments, &["-name", &word], &says].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the machine runs", said);
        assert_eq!(machines(&word).len(), 1);
        hikae.kill().unwrap();
        hikae.wait().unwrap();
        wait_until("the machine is gone", || machines(&word).is_empty());
    }
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn programs_are_found_where_their_installers_put_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let nowhere = folder.join("nowhere");
    let installed = program_files().join("qemu");
    sparse_file(&folder.join("disk.img"), 1 << 20);
    let start = ["disk.img", "--firmware", "uefi", "--expect", "Shell>"];
    // QEMU.
    test(folder, &nowhere, &start).expect(3).says(&["install QEMU (winget install", "qemu-system-x86_64"]);
    qemu(&installed);
    test(folder, &nowhere, &start).expect(3).says(&["there is no OVMF", "edk2-x86_64-code.fd"]);
    // Its firmware.
    let share = installed.join("share");
    std::fs::create_dir_all(&share).unwrap();
    for (from, to) in [("CODE", "edk2-x86_64-code.fd"), ("VARS", "edk2-i386-vars.fd")] {
        std::fs::copy(format!("/usr/share/OVMF/OVMF_{from}_4M.fd"), share.join(to)).unwrap();
    }
    let ran = test(folder, &nowhere, &start);
    std::fs::remove_dir_all(installed).unwrap();
    ran.expect(0).says(&["boots: serial text", "starts by UEFI"]);
}

#[test]
#[ignore = "needs hikae.exe: .ci/windows"]
fn virtualbox_is_told_of_paths_of_windows() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let nowhere = folder.join("nowhere");
    tiny(folder);
    shell(folder, "mkdir 'the view'; qemu-img convert -f raw -O vmdk disk.img 'the view/disk.vmdk'");
    let start = ["boot", "--vm", "virtualbox", "--memory", "512M", r"the view\disk.vmdk"];
    let disk = format!(r"Z:{}\the view\disk.vmdk", text(&folder.canonicalize().unwrap()).replace('/', "\\"));
    let started = || -> Ran { windows(folder, &nowhere, &start).output().unwrap().into() };
    started().expect(0).says(&[
        "VBoxManage is not installed here",
        "VBoxManage createvm --name \"hikae ",
        &format!("--mtype normal --medium \"{disk}\""),
        "--type gui",
    ]);
    let log = folder.join("log");
    let script = format!(
        "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/$1 4<>/dev/tcp/127.0.0.1/$1\nshift\nprintf '%s\\n' \"$@\" >>'{}'\nprintf '\\n0' >&4\n",
        text(&log)
    );
    let machine = folder.join("machine");
    std::fs::write(&machine, script).unwrap();
    shell(folder, "chmod +x machine");
    let installed = program_files().join("Oracle/VirtualBox");
    stand_in(&installed, "VBoxManage.exe", &machine);
    let ran = started();
    std::fs::remove_dir_all(installed).unwrap();
    ran.expect(0).says(&["is registered in VirtualBox and started"]);
    let log = std::fs::read_to_string(log).unwrap();
    for words in ["createvm\n--name\nhikae ", &format!("--medium\n{disk}\n"), "startvm\nhikae ", "--memory\n512\n"] {
        assert!(log.contains(words), "{words:?} is not in {log}");
    }
    // What is no file for it is told in the words of Windows.
    hikae(folder, ["capture", "disk.img", "a.hik"]).expect(0);
    let wrong: Ran = windows(folder, &nowhere, &["boot", "--vm", "virtualbox", "a.hik"]).output().unwrap().into();
    wrong.expect(2).says(&[r"hikae mount a.hik X:", r"X:\disk.vdi"]);
}
