//! What shells get when a user presses Tab.

use std::path::Path;
use std::process::Command;

const HIKAE: &str = env!("CARGO_BIN_EXE_hikae");

/// A disk as a file of each format.
const DISKS: [&str; 7] =
    ["/disk-flat.vmdk", "/disk.qcow2", "/disk.raw", "/disk.vdi", "/disk.vhd", "/disk.vhdx", "/disk.vmdk"];

/// A small image in a folder, with two generations; the disk and `p1` are all there is inside.
fn image(folder: &Path) {
    std::fs::write(folder.join("disk.img"), vec![7; 100_000]).unwrap();
    for _ in 0..2 {
        let done = Command::new(HIKAE).args(["capture", "disk.img", "d.hik"]).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}

/// What bash offers for a command line, through the script that users source.
fn bash(folder: &Path, line: &str) -> Vec<String> {
    let script = r#"
        source <(hikae completions bash)
        COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
        # Cut as bash cuts: at blanks (unless escaped) and around : and @.
        mapfile -t COMP_WORDS < <(printf '%s' "$1" | sed -E 's/([:@=]+)/\n\1\n/g; s/([^\\]) /\1\n/g' | sed '/^$/d')
        [[ $1 == *[[:space:]:@=] ]] && COMP_WORDS+=("")
        [[ $1 == *[:@=] ]] && unset 'COMP_WORDS[-1]'
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _hikae hikae "${COMP_WORDS[COMP_CWORD]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let bin = Path::new(HIKAE).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let out = Command::new("bash").args(["-c", script, "bash", line]).current_dir(folder).env("PATH", path).output();
    let out = out.unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_generations_and_paths_inside() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    assert_eq!(bash(folder.path(), "hikae comp"), ["completions "]);
    assert_eq!(bash(folder.path(), "hikae ls d.hik@"), ["latest", "2", "1"]);
    assert_eq!(bash(folder.path(), "hikae ls d.hik@la"), ["latest "]);
    let mut all = bash(folder.path(), "hikae ls d.hik:/");
    all.sort();
    assert_eq!(all, [&DISKS[..], &["/p1.raw", "/p1/"]].concat());
    assert_eq!(bash(folder.path(), "hikae ls d.hik@1:/disk.r"), ["/disk.raw "]);
    assert_eq!(bash(folder.path(), "hikae ls d.hik:/p1/"), ["/p1/README.txt "]);
    assert_eq!(bash(folder.path(), "hikae ls nothing.hik:/"), [""]);
}

#[test]
fn every_shell_gets_a_script_that_asks_hikae() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let out = Command::new(HIKAE).args(["completions", shell]).output().unwrap();
        assert!(out.status.success());
        let script = String::from_utf8(out.stdout).unwrap();
        assert!(script.contains("hikae") && script.contains("COMPLETE"), "{shell}: {script}");
    }
    assert_eq!(Command::new(HIKAE).args(["completions", "tcsh"]).output().unwrap().status.code(), Some(2));
}
