//! `hikae serve`, judged by the clients of the NBD project and of QEMU.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::machine::{Random, hikae, is_exe, program, run, shell};

/// A server in a folder, ended politely.
pub(crate) struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    uri: String,
}

impl Server {
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        Self::start_heard(folder, args, Stdio::inherit())
    }

    /// Starts it with a place for what it says besides.
    fn start_heard(folder: &Path, args: &[&str], stderr: Stdio) -> Self {
        let mut command = Command::new(program());
        command.arg("serve").args(args).arg("--json").current_dir(folder).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { child, out, uri: ready["uri"].as_str().unwrap().to_owned() }
    }

    /// The address of an export.
    pub(crate) fn export(&self, name: &str) -> String {
        match self.uri.split_once("/?") {
            Some((scheme, query)) => format!("{scheme}/{name}?{query}"),
            None => format!("{}/{name}", self.uri),
        }
    }

    /// Ends it. Returns what it said at its end: nothing where Wine runs it, which passes on no polite signal.
    pub(crate) fn stop(mut self) -> serde_json::Value {
        if is_exe() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            return serde_json::Value::Null;
        }
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let said = serde_json::from_reader(&mut self.out).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: one that was stopped is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_was_read_and_what_was_decoded_for_it_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(folder);
    let server = Server::start(folder, &["disk.hik", "--nbd", "127.0.0.1:0"]);
    // One chunk of noise, in pieces and again: decoded once. Then parts of two chunks.
    let reads = ["read 20M 4k", "read 20484k 4k", "read 20M 64k", "read 20604k 8k"];
    let mut qemu_io = vec!["-f", "raw", "-r"];
    qemu_io.extend(reads.iter().flat_map(|read| ["-c", read]));
    let uri = server.export("");
    qemu_io.push(&uri);
    run("qemu-io", qemu_io).expect(0);
    let said = server.stop();
    // QEMU itself looks at the first sector of a disk.
    let read = said["read"].as_u64().unwrap();
    assert!(((80 << 10)..(80 << 10) + 4096).contains(&read), "{said}");
    assert_eq!(said["decoded"], 3 << 16, "{said}");
}

/// An image with two generations of a disk that has an ext4 partition with noise in it.
pub(crate) fn image(folder: &Path) -> Vec<u8> {
    shell(
        folder,
        "truncate -s 24M disk.raw; printf 'label: dos\\nunit: sectors\\nstart=2048, size=32768, type=83\\n' | sfdisk --quiet disk.raw
         mkdir tree; head -c 3000000 /dev/urandom > tree/noise; mke2fs -q -t ext4 -d tree -E offset=1048576 disk.raw 16M 2> /dev/null",
    );
    let path = folder.join("disk.raw");
    let mut bytes = std::fs::read(&path).unwrap();
    hikae(folder, ["capture", "disk.raw", "disk.hik", "--all-blocks"]).expect(0);
    Random::new(3).fill(&mut bytes[20 << 20..21 << 20]);
    std::fs::write(path, &bytes).unwrap();
    hikae(folder, ["capture", "disk.raw", "disk.hik", "--all-blocks"]).expect(0);
    bytes
}

#[test]
fn real_clients_read_every_export() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bytes = image(folder);
    let socket = folder.join("s");
    // Windows has TCP alone.
    let place = if is_exe() { "127.0.0.1:0".to_owned() } else { format!("unix:{}", socket.display()) };
    let server = Server::start(folder, &["disk.hik", "--nbd", &place]);
    let info = run("nbdinfo", ["--json", &server.export("")]).expect(0).json();
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], bytes.len());
    assert_eq!((&export["is_read_only"], &export["can_multi_conn"]), (&true.into(), &true.into()));
    assert_eq!(export["block_size_minimum"], 512);
    let list = run("nbdinfo", ["--list", &server.export("")]).expect(0).out;
    for name in ["\"p1\"", "\"latest\"", "\"0001_", "\"0002_"] {
        assert!(list.contains(&format!("export={name}")), "{name} is not in {list}");
    }
    let copied = |name: &str| {
        run("nbdcopy", [server.export(name).as_str(), folder.join("out").to_str().unwrap()]).expect(0);
        std::fs::read(folder.join("out")).unwrap()
    };
    assert!(copied("") == bytes && copied("latest") == bytes && copied("2") == bytes);
    assert!(copied("p1") == bytes[1 << 20..17 << 20] && copied("~1/p1") == bytes[1 << 20..17 << 20]);
    hikae(folder, ["export", "disk.hik@1", "first.raw"]).expect(0);
    assert!(copied("1") == std::fs::read(folder.join("first.raw")).unwrap());
    run("nbdinfo", [server.export("p9").as_str()]).expect(1).says(&["p9"]);
    // A partition as a disk of its own.
    for name in ["p1.disk", "latest/p1.disk"] {
        assert!(copied(name)[1 << 20..] == bytes[1 << 20..17 << 20], "{name}");
        run("sfdisk", ["--verify", folder.join("out").to_str().unwrap()]).expect(0).says(&["No errors"]);
    }
    assert!(copied("p1.disk") == copied("2/p1.disk") && copied("p1.disk") != copied("1/p1.disk"));
    run("nbdinfo", [server.export("p9.disk").as_str()]).expect(1).says(&["p9.disk"]);
    // What QEMU sees, bytes and holes.
    let raw = folder.join("disk.raw");
    run("qemu-img", ["compare", "-f", "raw", "-F", "raw", raw.to_str().unwrap(), &server.export("")]).expect(0);
    let map = run("nbdinfo", ["--json", "--map", &server.export("")]).expect(0).json();
    let hole = map.as_array().unwrap().iter().find(|run| run["offset"].as_u64().unwrap() >= 21 << 20).unwrap();
    assert_eq!((&hole["type"], &hole["length"]), (&3.into(), &(3 << 20).into()));
    let write = run("qemu-io", ["-f", "raw", "-r", "-c", "write 0 512", &server.export("")]);
    assert!(write.err.contains("read-only") || write.out.contains("read-only"), "{write:?}");
    // A socket that is in use is not taken over, and Windows has none; the server removes its own.
    hikae(folder, ["serve", "disk.hik", "--nbd", "unix:s"]).expect(3).says(&["cannot listen on s"]);
    server.stop();
    assert!(!socket.exists());
}

#[test]
fn writes_go_to_the_overlay_and_come_back_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut bytes = image(folder);
    let packs = || {
        let mut packs = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "hik") {
                packs.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
        packs.sort();
        packs
    };
    let before = packs();
    let args = ["disk.hik", "--nbd", "127.0.0.1:0", "--overlay", "try.overlay"];
    let server = Server::start(folder, &args);
    let commands = ["write -P 7 3000 70000", "write -z 4M 1M", "discard 10M 64k", "write -f -P 3 23M 512", "flush"];
    let mut qemu_io = vec!["-f".to_owned(), "raw".to_owned()];
    qemu_io.extend(commands.iter().flat_map(|command| ["-c".to_owned(), (*command).to_owned()]));
    qemu_io.push(server.export(""));
    run("qemu-io", qemu_io).expect(0);
    bytes[3000..73_000].fill(7);
    bytes[4 << 20..5 << 20].fill(0);
    bytes[10 << 20..(10 << 20) + 65_536].fill(0);
    bytes[23 << 20..(23 << 20) + 512].fill(3);
    let copied = |server: &Server, name: &str| {
        run("nbdcopy", [server.export(name).as_str(), folder.join("out").to_str().unwrap()]).expect(0);
        std::fs::read(folder.join("out")).unwrap()
    };
    assert!(copied(&server, "") == bytes && copied(&server, "latest") == bytes, "all names of the disk agree");
    assert!(copied(&server, "p1") == bytes[1 << 20..17 << 20]);
    // The partition as a disk of its own: its table takes writes too, which stay beside the disk.
    let table = server.export("p1.disk");
    run("qemu-io", ["-f", "raw", "-c", "write -P 9 2M 5000", "-c", "write -P 8 0 400", "-c", "flush", &table])
        .expect(0);
    bytes[2 << 20..(2 << 20) + 5000].fill(9);
    assert!(copied(&server, "") == bytes);
    assert!(copied(&server, "p1.disk")[..400] == [8; 400]);
    hikae(folder, ["serve", "disk.hik", "--nbd", "127.0.0.1:0", "--overlay", "try.overlay"])
        .expect(4)
        .says(&["in use by process"]);
    hikae(folder, ["overlay", "discard", "try.overlay", "--yes"]).expect(4).says(&["in use by process"]);
    server.stop();
    // After a restart it is all there; another base is refused.
    let server = Server::start(folder, &args);
    assert!(copied(&server, "") == bytes);
    server.stop();
    hikae(folder, ["serve", "disk.hik@1", "--nbd", "127.0.0.1:0", "--overlay", "try.overlay"])
        .expect(4)
        .says(&["belongs to generation 2", "not to generation 1"]);
    let info = hikae(folder, ["overlay", "info", "try.overlay", "--json"]).expect(0).json();
    assert_eq!((&info["base"]["format"], &info["in_use_by"]), (&"hikae".into(), &serde_json::Value::Null));
    assert_eq!(before, packs(), "the image was not touched");
    // What was written becomes a file, and a generation of its own.
    hikae(folder, ["export", "disk.hik", "out.raw", "--overlay", "try.overlay"]).expect(0).says(&["try.overlay"]);
    assert!(std::fs::read(folder.join("out.raw")).unwrap() == bytes);
    hikae(folder, ["capture", "disk.hik@2", "disk.hik", "--overlay", "try.overlay", "--all-blocks"]).expect(0);
    hikae(folder, ["export", "disk.hik@3", "third.raw"]).expect(0);
    assert!(std::fs::read(folder.join("third.raw")).unwrap() == bytes);
    hikae(folder, ["capture", "disk.hik@3", "disk.hik", "--overlay", "try.overlay"])
        .expect(4)
        .says(&["not to generation 3"]);
    hikae(folder, ["capture", "disk.hik@2", "disk.hik", "--overlay", "missing"]).expect(3);
    assert!(!folder.join("missing").exists());
    hikae(folder, ["overlay", "discard", "try.overlay"]).expect(4).says(&["--yes"]);
    hikae(folder, ["overlay", "discard", "try.overlay", "--yes"]).expect(0);
    assert!(!folder.join("try.overlay").exists());
}

#[test]
fn what_the_disk_failed_to_do_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(folder);
    // The noise is stored as it is: a byte of it that changes is a damaged chunk.
    let pack = std::fs::read(folder.join("disk.hik")).unwrap();
    let at = pack.len() / 2;
    shell(folder, &format!("printf '\\{:03o}' | dd of=disk.hik bs=1 seek={at} conv=notrunc status=none", pack[at] ^ 1));
    let server = {
        let heard = std::fs::File::create(folder.join("heard")).unwrap();
        Server::start_heard(folder, &["disk.hik", "--nbd", "127.0.0.1:0"], heard.into())
    };
    for _ in 0..2 {
        let read = run("nbdcopy", [server.export("p1").as_str(), "null:"]);
        assert!(read.code != 0 && read.err.contains("Input/output error"), "{read:?}");
    }
    server.stop();
    let said = std::fs::read_to_string(folder.join("heard")).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("cannot read")).collect();
    assert!(!lines.is_empty(), "{said}");
    assert!(lines.iter().all(|line| line.contains("of p1 of generation 2: frame in pack 0 at byte")), "{lines:?}");
    let distinct: std::collections::HashSet<_> = lines.iter().collect();
    assert_eq!(distinct.len(), lines.len(), "{lines:?}");
}
