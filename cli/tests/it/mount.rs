//! `hikae mount` and `hikae umount` as processes: ready when they say so, gone when told, recoverable when killed.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::machine::{HIKAE, Ran, as_root, hikae, run, shell, start, text, wait_until};

/// ENOTCONN: what a mount says whose process is gone.
const NOT_CONNECTED: i32 = 107;

/// A folder with two generations of a raw disk of `len` bytes in `a.hik`, and each as a file, `1.raw` and `2.raw`.
fn make(len: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join("mnt")).unwrap();
    shell(path, &format!("head -c {len} /dev/urandom > disk.img; truncate -s +3M disk.img; cp disk.img 1.raw"));
    hikae(path, ["capture", "disk.img", "a.hik"]).expect(0);
    shell(path, "printf changed | dd of=disk.img bs=1 seek=70000 conv=notrunc status=none; cp disk.img 2.raw");
    hikae(path, ["capture", "disk.img", "a.hik"]).expect(0);
    folder
}

/// The process that serves the mount of `image`, from the table of processes.
fn server(image: &Path) -> Option<u32> {
    let image = image.as_os_str().as_encoded_bytes();
    let is_server = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&b"mount".as_slice()) && words.contains(&image)
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(is_server)
}

fn is_mounted(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == Some(text(dir)) && line.contains(" fuse.hikae "))
}

/// Takes a mount away at the end of a test, whatever state it is in.
struct AtEnd(PathBuf);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            hikae(Path::new("/"), ["umount", "--lazy", text(&self.0)]);
        }
    }
}

#[test]
fn a_mount_is_there_when_the_command_returns_and_gone_after_umount() {
    let folder = make(5_000_000);
    let path = folder.path();
    let (image, dir) = (path.join("a.hik"), path.join("mnt"));
    let _end = AtEnd(dir.clone());
    hikae(path, ["mount", text(&image), "mnt"]).expect(0).says(&["end it with: hikae umount mnt"]);
    assert!(is_mounted(&dir));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(text(&dir))).unwrap();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(line.split([' ', ',']).any(|word| word == option), "{line}");
    }
    assert!(line.contains(text(&image)) && !line.contains("allow_other"), "{line}");
    for (number, name) in (1..).zip(["1.raw", "2.raw"]) {
        let folder = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let folder = folder.into_iter().find(|path| text(path).contains(&format!("/000{number}_"))).unwrap();
        hikae(path, ["export", &format!("a.hik@{number}"), &format!("out{number}.raw")]).expect(0);
        shell(
            path,
            &format!("cmp '{}/disk.raw' {name}; cmp '{}/disk.raw' out{number}.raw", text(&folder), text(&folder)),
        );
    }
    // Nothing can be written, and nothing is there that is not.
    assert_eq!(fs::write(dir.join("latest/new"), "x").unwrap_err().raw_os_error(), Some(30));
    assert_eq!(fs::metadata(dir.join("latest/none")).unwrap_err().raw_os_error(), Some(2));
    let second = hikae(path, ["mount", text(&image), "mnt"]).expect(3);
    second.says(&["is a mount of hikae already", "hikae umount"]);
    hikae(path, ["umount", "mnt"]).expect(0);
    assert!(!is_mounted(&dir));
    wait_until("the end of the process", || server(&image).is_none());
    hikae(path, ["umount", "mnt"]).expect(3).says(&["is no mount of hikae"]);
}

#[test]
fn one_generation_and_any_raw_disk_are_shown_without_the_level_of_generations() {
    let folder = make(300_000);
    let path = folder.path();
    let dir = path.join("mnt");
    let _end = AtEnd(dir.clone());
    for (what, model) in [("a.hik@1", "1.raw"), ("a.hik@latest", "2.raw"), ("disk.img", "2.raw")] {
        hikae(path, ["mount", what, "mnt"]).expect(0);
        shell(path, &format!("cmp mnt/disk.raw {model}; test \"$(ls mnt | xargs)\" = '{NAMES}'"));
        hikae(path, ["umount", "mnt"]).expect(0);
    }
    assert_eq!(fs::metadata(path.join("disk.img")).unwrap().mtime() / 10, {
        hikae(path, ["mount", "disk.img", "mnt"]).expect(0);
        let time = fs::metadata(dir.join("disk.raw")).unwrap().mtime();
        hikae(path, ["umount", "mnt"]).expect(0);
        time / 10
    });
    hikae(path, ["mount", "a.hik@7", "mnt"]).expect(3).says(&["there is no generation"]);
    hikae(path, ["mount", "none.hik", "mnt"]).expect(3);
    hikae(path, ["mount", "a.hik", "nowhere"]).expect(3).says(&["cannot mount on", "nowhere"]);
    hikae(path, ["mount", "a.hik", "1.raw"]).expect(3).says(&["1.raw"]);
    // There the mount would hide its own packs.
    hikae(path, ["mount", "a.hik", "."]).expect(4).says(&["holds the image itself"]);
}

#[test]
fn signals_end_a_mount_cleanly_and_a_second_one_at_once() {
    let folder = make(300_000);
    let path = folder.path();
    let (image, dir) = (path.join("a.hik"), path.join("mnt"));
    let _end = AtEnd(dir.clone());
    for signal in ["INT", "TERM", "HUP"] {
        let mut child = start(path, &["mount", "--foreground", text(&image), "mnt"]);
        wait_until("the mount", || is_mounted(&dir));
        wait_until("the disk", || dir.join("latest/disk.raw").exists());
        kill(child.id(), signal);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
        assert!(!is_mounted(&dir));
    }
    // The one in the background as well.
    hikae(path, ["mount", text(&image), "mnt"]).expect(0);
    kill(server(&image).unwrap(), "TERM");
    wait_until("the end of the mount", || !is_mounted(&dir) && server(&image).is_none());
    // One in use goes out of sight, and serves what is open until that is closed.
    let child = start(path, &["mount", "--foreground", text(&image), "mnt"]);
    wait_until("the disk", || dir.join("latest/disk.raw").exists());
    let file = fs::File::open(dir.join("latest/disk.raw")).unwrap();
    hikae(path, ["umount", "mnt"]).expect(3).says(&["is in use", "--lazy"]);
    kill(child.id(), "INT");
    wait_until("the end of the mount", || !is_mounted(&dir));
    let mut byte = [0; 100];
    file.read_exact_at(&mut byte, 200_000).unwrap();
    assert_eq!(byte, fs::read(path.join("2.raw")).unwrap()[200_000..200_100]);
    drop(file);
    let ended: Ran = child.wait_with_output().unwrap().into();
    ended.expect(0).says(&["is in use"]);
}

fn kill(pid: u32, signal: &str) {
    assert_eq!(run("kill", [&format!("-{signal}"), &pid.to_string()]).code, 0);
}

#[test]
fn a_dead_mount_is_named_taken_away_and_made_again() {
    let folder = make(300_000);
    let path = folder.path();
    let (image, dir) = (path.join("a.hik"), path.join("mnt"));
    let _end = AtEnd(dir.clone());
    for lazily in [false, true] {
        hikae(path, ["mount", text(&image), "mnt"]).expect(0);
        let open = lazily.then(|| fs::File::open(dir.join("latest/disk.raw")).unwrap());
        kill(server(&image).unwrap(), "KILL");
        wait_until("the death of the mount", || {
            fs::metadata(&dir).is_err_and(|error| error.raw_os_error() == Some(NOT_CONNECTED))
        });
        hikae(path, ["mount", text(&image), "mnt"]).expect(3).says(&["is a dead mount", "hikae umount"]);
        if lazily {
            hikae(path, ["umount", "mnt"]).expect(3).says(&["is in use"]);
            hikae(path, ["umount", "--lazy", "mnt"]).expect(0);
        } else {
            hikae(path, ["umount", "mnt"]).expect(0);
        }
        drop(open);
        hikae(path, ["mount", text(&image), "mnt"]).expect(0);
        shell(path, "cmp mnt/latest/disk.raw 2.raw");
        hikae(path, ["umount", "mnt"]).expect(0);
    }
}

/// Runs `hikae` as an ordinary user: as nobody where the test is root.
fn as_user(program: &Path, folder: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    command.args(args).current_dir(folder).env("LC_ALL", "C").output().unwrap().into()
}

#[test]
fn an_ordinary_user_mounts_for_himself_alone() {
    let folder = make(300_000);
    let path = folder.path();
    let dir = path.join("mnt");
    let _end = AtEnd(dir.clone());
    // Where nobody can get at it.
    let program = path.join("hikae");
    fs::copy(HIKAE, &program).unwrap();
    for name in ["", "hikae", "mnt", "a.hik"] {
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
    }
    as_user(&program, path, &["mount", "a.hik", "mnt"]).expect(0);
    assert!(is_mounted(&dir));
    // Others, root among them, do not even see the folder; its maker sees all.
    if is_root {
        assert_eq!(fs::read_dir(&dir).unwrap_err().raw_os_error(), Some(13));
    }
    let mut cat = Command::new("cat");
    if is_root {
        cat.uid(65534).gid(65534);
    }
    let read = cat.arg(dir.join("latest/disk.raw")).output().unwrap();
    assert!(read.stdout == fs::read(path.join("2.raw")).unwrap());
    as_user(&program, path, &["umount", "mnt"]).expect(0);
    assert!(!is_mounted(&dir));
    // Unless the administrator allows it, which Debian leaves to be done.
    let allowed = fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|conf| conf.lines().any(|line| line.trim() == "user_allow_other"));
    let other = as_user(&program, path, &["mount", "--allow-other", "a.hik", "mnt"]);
    if allowed {
        other.expect(0);
        as_user(&program, path, &["umount", "mnt"]).expect(0);
    } else {
        other.expect(3).says(&["user_allow_other", "/etc/fuse.conf"]);
    }
    // A dead one is taken away by its maker too.
    as_user(&program, path, &["mount", "a.hik", "mnt"]).expect(0);
    let word = Path::new("a.hik");
    let is_ours = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    let pid =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).find(is_ours);
    kill(pid.unwrap_or_else(|| panic!("no process serves {}", word.display())), "KILL");
    wait_until("the death of the mount", || {
        as_user(&program, path, &["mount", "a.hik", "mnt"]).err.contains("dead mount")
    });
    as_user(&program, path, &["umount", "mnt"]).expect(0);
}

#[test]
fn owners_are_mapped_and_others_let_in_only_when_told() {
    let folder = make(300_000);
    let path = folder.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let dir = path.join("mnt");
    let _end = AtEnd(dir.clone());
    let image = path.join("a.hik");
    let mount = ["mount", "--allow-other", "--uid", "1234", "--gid", "4321", text(&image), text(&dir)];
    // Only root may do that without a word of the administrator, and only root can look as somebody else.
    as_root(HIKAE, mount);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(text(&dir))).unwrap();
    assert!(line.contains("allow_other") && line.contains("default_permissions"), "{line}");
    let disk = fs::metadata(dir.join("latest/disk.raw")).unwrap();
    assert_eq!((disk.uid(), disk.gid(), disk.mode()), (1234, 4321, 0o100_444));
    let (shown, model) = (dir.join("latest/disk.raw"), path.join("2.raw"));
    as_root("setpriv", ["--reuid=65534", "--regid=65534", "--clear-groups", "cmp", text(&shown), text(&model)]);
    as_root(HIKAE, ["umount", text(&dir)]);
}

#[test]
fn what_goes_wrong_is_in_the_log() {
    let folder = make(3_000_000);
    let path = folder.path();
    let dir = path.join("mnt");
    let _end = AtEnd(dir.clone());
    // The first chunk lies early in the pack, stored as it is since it is noise.
    let model = fs::read(path.join("2.raw")).unwrap();
    let mut pack = fs::read(path.join("a.hik")).unwrap();
    let at = pack.windows(64).position(|window| window == &model[1_000_000..1_000_064]).unwrap();
    pack[at] ^= 0x40;
    fs::write(path.join("a.hik"), pack).unwrap();
    hikae(path, ["mount", "--log", "log", "a.hik", "mnt"]).expect(0);
    let file = fs::File::open(dir.join("latest/disk.raw")).unwrap();
    let mut buf = vec![0; 4096];
    assert_eq!(file.read_exact_at(&mut buf, 999_424).unwrap_err().raw_os_error(), Some(5));
    file.read_exact_at(&mut buf, 1_400_000).unwrap();
    assert_eq!(buf, model[1_400_000..1_404_096]);
    drop(file);
    hikae(path, ["umount", "mnt"]).expect(0);
    let log = fs::read_to_string(path.join("log")).unwrap();
    assert!(log.contains("of disk.raw of 0002_") && log.contains("in pack 0 at byte 0x"), "{log}");
}

/// Reads, lists and looks at random for a time; every byte is compared. Python, so that sixteen of them are sixteen processes.
/// What lies in the folder of a disk without a table.
const NAMES: &str = "disk-flat.vmdk disk.qcow2 disk.raw disk.vdi disk.vhd disk.vhdx disk.vmdk p1 p1.raw";
const STRESS: &str = r#"
import os, random, sys, time
top, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
r = random.Random(seed)
models = [open(f'{top}/{n}.raw', 'rb').read() for n in (1, 2)]
mnt = f'{top}/mnt'
folders = sorted(os.listdir(mnt))
assert len(folders) == 3, folders
end, done = time.time() + seconds, 0
while time.time() < end:
    n = r.randrange(2)
    name = f'{mnt}/{folders[n]}/{r.choice(["disk.raw", "p1.raw"])}'
    what = r.randrange(6)
    if what == 0:
        assert 'disk.raw' in os.listdir(f'{mnt}/{folders[n]}')
    elif what == 1:
        assert os.stat(name).st_size == len(models[n])
    elif what == 2:
        with open(name, 'rb') as f:
            at = r.randrange(len(models[n]))
            f.seek(at)
            for _ in range(r.randrange(1, 30)):
                data = f.read(131072)
                assert data == models[n][at:at + 131072], (name, at)
                at += len(data)
    else:
        flags = os.O_RDONLY | (os.O_DIRECT if what == 3 else 0)
        f = os.open(name, flags & ~os.O_DIRECT)
        for _ in range(r.randrange(1, 20)):
            at, size = r.randrange(len(models[n])), r.randrange(1, 200000)
            assert os.pread(f, size, at) == models[n][at:at + size], (name, at, size)
            if what == 4:
                os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(f)
    done += 1
print(done)
"#;

#[test]
fn sixteen_processes_with_a_far_too_small_cache_get_every_byte_in_bounded_memory() {
    let folder = make(48 << 20);
    let path = folder.path();
    let (image, dir) = (path.join("a.hik"), path.join("mnt"));
    let _end = AtEnd(dir.clone());
    let seconds = if std::env::var_os("HIKAE_LONG").is_some() { 600 } else { 30 };
    hikae(path, ["mount", "--cache", "2M", "--log", "log", text(&image), "mnt"]).expect(0);
    let workers: Vec<Child> = (0..16)
        .map(|seed| {
            let mut command = Command::new("python3");
            command.args(["-c", STRESS, text(path), &seconds.to_string(), &seed.to_string()]);
            command.stdout(Stdio::piped()).spawn().expect("python3 is needed by this test")
        })
        .collect();
    let mut done = 0;
    for mut worker in workers {
        let mut text = String::new();
        worker.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(worker.wait().unwrap().success());
        done += text.trim().parse::<u64>().unwrap();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server(&image).unwrap())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak < 100 << 10, "{peak} KiB with a cache of 2 MiB");
    assert!(done > 100);
    hikae(path, ["umount", "mnt"]).expect(0);
    assert_eq!(fs::read_to_string(path.join("log")).unwrap(), "");
}
