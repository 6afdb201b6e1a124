//! What an image may make us open: nothing outside of its folder, whatever it names.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use imgfmt::Error;
use imgfmt::format::{OpenOptions, Policy, open};

use crate::image_files::{Workshop, all_of, opened};
use crate::tools::{run, shell, this_test_alone};

/// The message of a refusal, which must name the policy and what was named.
fn refused(image: &Path, named: &str) {
    match open(image, &OpenOptions::default()) {
        Err(Error::Refused(message)) => {
            assert!(message.contains("the policy is: regular files in the image's own folder"), "{message}");
            assert!(message.contains(named), "{message}");
        }
        other => panic!("{}: {other:?}", image.display()),
    }
}

/// Makes a qcow2 file whose backing file is called `name`, with no regard to what that is.
fn overlay(shop: &Workshop, file: &str, name: &str) -> PathBuf {
    shop.qemu_img(&format!("create -f qcow2 {file} 1M"));
    shop.qemu_img(&format!("rebase -u -b '{name}' -F raw {file}"));
    shop.path(file)
}

/// A folder `images` with files that name everything they should not, beside a secret.
fn hostile(shop: &Workshop) -> Vec<(PathBuf, String)> {
    std::fs::write(shop.path("secret"), [7; 4096]).unwrap();
    std::fs::create_dir(shop.path("images")).unwrap();
    run("mkfifo", [shop.path("images/fifo")]);
    symlink("../secret", shop.path("images/link-out")).unwrap();
    symlink("..", shop.path("images/folder-out")).unwrap();
    symlink("/dev/zero", shop.path("images/link-device")).unwrap();
    std::fs::create_dir(shop.path("images/folder")).unwrap();
    if rustix::process::geteuid().is_root() {
        shell(shop.folder.path(), "mknod images/device c 1 5");
    } else {
        symlink("/dev/zero", shop.path("images/device")).unwrap();
    }
    let outside = shop.path("secret").display().to_string();
    let names = [
        "/etc/shadow",
        "/dev/zero",
        "/proc/self/fd/0",
        "/nonexistent",
        "../secret",
        "../nonexistent",
        "folder/../../secret",
        &outside,
        "fifo",
        "device",
        "folder",
        "link-out",
        "link-device",
        "folder-out/secret",
        "http://example.com/x",
        "nbd:localhost:10809",
        "nbd+unix:///x?socket=y",
        "file:disk",
        "fat:rw:.",
        "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}}",
        "C:/windows/disk.vhd",
    ];
    let images = names
        .iter()
        .enumerate()
        .map(|(number, name)| (overlay(shop, &format!("images/{number}.qcow2"), name), format!("{name:?}")));
    images.collect()
}

#[test]
fn names_outside_of_the_folder_are_refused_with_the_policy() {
    let shop = Workshop::new(4096, 1);
    for (image, named) in hostile(&shop) {
        refused(&image, &named);
    }
}

#[test]
fn nothing_outside_of_the_folder_is_opened() {
    if std::env::var_os("HIKAE_CHILD_FOLDER").is_some() {
        return open_everything();
    }
    let shop = Workshop::new(4096, 1);
    hostile(&shop);
    let log = shop.path("log");
    let strace = ["strace", "-f", "-e", "trace=open,openat,openat2", "-o", log.to_str().unwrap()];
    let folder = shop.path("images");
    this_test_alone("policy::nothing_outside_of_the_folder_is_opened", &strace, &[("HIKAE_CHILD_FOLDER", &folder)]);
    let log = std::fs::read_to_string(log).unwrap();
    // The program itself opens libraries and its own /proc files before and beside the test.
    let opens = log
        .lines()
        .filter(|line| !line.contains("ENOENT") && !line.contains("/lib") && !line.contains("/sys/fs/cgroup"));
    let opens: Vec<_> = opens.filter(|line| !line.contains("\"/proc/self/") && !line.contains("/etc/ld.so")).collect();
    assert!(opens.iter().any(|line| line.contains("images/0.qcow2")), "the images themselves are opened: {log}");
    for line in opens.iter().filter(|line| line.contains("open")) {
        let inside = line.contains("/images/") && line.contains(".qcow2\"");
        let folder = line.contains("/images\"") && line.contains("O_DIRECTORY");
        assert!(inside || folder, "{line}");
    }
}

/// Opens every image of the folder; runs alone, watched.
fn open_everything() {
    let folder = PathBuf::from(std::env::var_os("HIKAE_CHILD_FOLDER").unwrap());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "qcow2") {
            assert!(open(&path, &OpenOptions::default()).is_err());
        }
    }
}

#[test]
fn an_image_over_itself_or_in_a_loop_is_refused() {
    let shop = Workshop::new(4096, 1);
    refused(&overlay(&shop, "self.qcow2", "self.qcow2"), "the image itself");
    for (file, base) in [("a.qcow2", "b.qcow2"), ("b.qcow2", "c.qcow2"), ("c.qcow2", "a.qcow2")] {
        shop.qemu_img(&format!("create -f qcow2 {file} 1M"));
        shop.qemu_img(&format!("rebase -u -b {base} -F qcow2 {file}"));
    }
    refused(&shop.path("a.qcow2"), "one that lies over it");
    // By another name it is the same file.
    let image = overlay(&shop, "hard.qcow2", "hard-link.qcow2");
    std::fs::hard_link(&image, shop.path("hard-link.qcow2")).unwrap();
    shop.qemu_img("rebase -u -b hard-link.qcow2 -F qcow2 hard.qcow2");
    refused(&image, "the image itself");
}

#[test]
fn a_chain_of_sixteen_is_read_and_one_of_a_thousand_is_refused() {
    let shop = Workshop::new(1 << 20, 1);
    shop.qemu_img("create -f qcow2 -b 0000000 -F raw -u template.qcow2 1M");
    let template = std::fs::read(shop.path("template.qcow2")).unwrap();
    let name_at = template.windows(7).position(|window| window == b"0000000").unwrap();
    let format_at = template.windows(3).position(|window| window == b"raw").unwrap();
    std::fs::rename(shop.path("disk.raw"), shop.path("0000000")).unwrap();
    for number in 1..=1000 {
        let mut bytes = template.clone();
        bytes[name_at..name_at + 7].copy_from_slice(format!("{:07}", number - 1).as_bytes());
        if number > 1 {
            // The extension's length and text: "qcow2" fits into its eight bytes.
            bytes[format_at - 1] = 5;
            bytes[format_at..format_at + 5].copy_from_slice(b"qcow2");
        }
        std::fs::write(shop.path(&format!("{number:07}")), bytes).unwrap();
    }
    // Fifteen layers and the raw disk.
    assert!(all_of(&opened(&shop.path("0000015"))) == shop.bytes);
    refused(&shop.path("0000016"), "longer than 16 images");
    refused(&shop.path("0001000"), "longer than 16 images");
}

#[test]
fn other_folders_are_opened_only_when_they_are_allowed() {
    let shop = Workshop::new(1 << 20, 1);
    std::fs::create_dir(shop.path("snapshots")).unwrap();
    let image = overlay(&shop, "snapshots/top.qcow2", "../disk.raw");
    refused(&image, "\"../disk.raw\"");
    let allowed = Policy::Folders(vec![shop.folder.path().to_owned()]);
    let options = OpenOptions { policy: allowed, ..OpenOptions::default() };
    assert!(all_of(&open(&image, &options).unwrap()) == shop.bytes);
    let elsewhere = Policy::Folders(vec![shop.path("snapshots")]);
    let error = open(&image, &OpenOptions { policy: elsewhere, ..OpenOptions::default() }).unwrap_err();
    assert!(error.to_string().contains("/snapshots"), "{error}");
    // Below the image's own folder is in it; absolute names and symbolic links are taken by where they lead.
    let deep = overlay(&shop, "deep.qcow2", "snapshots/../disk.raw");
    assert!(all_of(&opened(&deep)) == shop.bytes);
    let absolute = overlay(&shop, "absolute.qcow2", shop.path("disk.raw").to_str().unwrap());
    assert!(all_of(&opened(&absolute)) == shop.bytes);
    symlink(&absolute, shop.path("snapshots/link.qcow2")).unwrap();
    assert!(all_of(&opened(&shop.path("snapshots/link.qcow2"))) == shop.bytes);
    // Under the strictest policy even a neighbour is not opened.
    let nothing = OpenOptions { policy: Policy::Nothing, ..OpenOptions::default() };
    assert!(matches!(open(&deep, &nothing), Err(Error::Refused(_))));
    open(&shop.path("disk.raw"), &nothing).unwrap();
}

#[test]
fn data_files_pass_the_same_gate() {
    let shop = Workshop::new(1 << 20, 1);
    let image = shop.converted("d.qcow2", "-O qcow2 -o data_file=xx-shadow-yy");
    let mut bytes = std::fs::read(&image).unwrap();
    let at = bytes.windows(12).position(|window| window == b"xx-shadow-yy").unwrap();
    bytes[at..at + 12].copy_from_slice(b"/etc//shadow");
    std::fs::write(&image, bytes).unwrap();
    refused(&image, "external data file \"/etc//shadow\"");
}
