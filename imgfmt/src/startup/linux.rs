//! From a menu entry to a system of Linux: the kernel, its initial file system, its root, and what that mounts.

use crate::startup::chain::Chain;
use crate::startup::reference::{Identity, mentions};
use crate::startup::text_files::{Kernel, tab_lines};
use crate::startup::volumes::{Volume, Volumes};

/// How much a missing file weighs: the entry that is started, or another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// This is what starts.
    Default,
    /// Somebody could choose it.
    Other,
}

impl Weight {
    pub(super) fn find(self, chain: &mut Chain, code: &'static str, text: String) {
        match self {
            Self::Default => chain.broken(code, text),
            Self::Other => chain.note(code, text),
        }
    }
}

/// Checks that a file is there. `what` is "the kernel", "the initial file system".
pub(super) fn check_file(
    chain: &mut Chain,
    volume: &Volume,
    path: &str,
    what: &str,
    who: &str,
    weight: Weight,
) -> bool {
    match volume.has_file(path) {
        Ok(true) => true,
        Ok(false) if volume.files().is_none() => {
            let why = volume.problem.as_deref().unwrap_or("no filesystem that is read lies in it");
            chain.doubt("not-followed", format!("{what} {path}, which {who} names, lies in {}: {why}", volume.name));
            false
        }
        Ok(false) => {
            let code = if what == "the kernel" { "kernel-absent" } else { "file-absent" };
            weight.find(chain, code, format!("{what} {path}, which {who} names, is absent from {}", volume.name));
            false
        }
        Err(error) => {
            let text = crate::error::full_message(&error);
            weight.find(chain, "unreadable", format!("{what} {path} in {} cannot be read: {text}", volume.name));
            false
        }
    }
}

/// Checks an entry whose files lie in one volume: kernel, initial file systems and root.
pub(super) fn check_kernel(
    chain: &mut Chain,
    volumes: &Volumes,
    volume: &Volume,
    entry: &Kernel,
    who: &str,
    weight: Weight,
) {
    if let Some(program) = &entry.program {
        check_file(chain, volume, program, "the program", who, weight);
        return;
    }
    if entry.kernel.is_empty() {
        weight.find(chain, "no-kernel", format!("{who} names no kernel"));
        return;
    }
    if check_file(chain, volume, &entry.kernel, "the kernel", who, weight) && weight == Weight::Default {
        chain.step(format!("{who} starts the kernel {} in {}", entry.kernel, volume.name));
    }
    for initrd in &entry.initrds {
        check_file(chain, volume, initrd, "the initial file system", who, weight);
    }
    check_root(chain, volumes, &entry.arguments, who, weight);
}

/// Follows `root=` to the system. Without it the initial file system decides.
pub(super) fn check_root(chain: &mut Chain, volumes: &Volumes, arguments: &str, who: &str, weight: Weight) {
    let Some(root) = arguments.split_whitespace().rfind(|word| word.starts_with("root=")) else { return };
    let Some(mention) = mentions(root.as_bytes()).into_iter().next() else {
        if weight == Weight::Default {
            chain.doubt("not-followed", format!("{who} says {root}, which names nothing that could be looked for"));
        }
        return;
    };
    let names = mention.names;
    let Some(found) = names.find(volumes) else {
        let text = format!("{who} names {names} as the root of the system, and nothing on this disk has it");
        match (&names, weight) {
            // Opened by the initial file system, from something that is not read here.
            (Identity::DeviceName(name), Weight::Default)
                if name.starts_with("/dev/mapper/") || name.starts_with("/dev/md") =>
            {
                chain.doubt("not-followed", text);
            }
            _ => weight.find(chain, "root-absent", text),
        }
        return;
    };
    if weight == Weight::Other {
        return;
    }
    let volume = volumes.get(found);
    if let Identity::DeviceName(name) = &names
        && !name.starts_with("/dev/mapper/")
    {
        let text = format!("{who} names the root of the system {name}: which disk has that name, the machine decides");
        chain.note("device-name", text);
    }
    check_system(chain, volumes, volume, &names);
}

/// Programs that a kernel starts, first found first.
const INITS: &[&str] = &["/sbin/init", "/usr/lib/systemd/systemd", "/etc/init", "/bin/init", "/bin/sh"];

fn check_system(chain: &mut Chain, volumes: &Volumes, volume: &Volume, names: &Identity) {
    if volume.files().is_none() {
        let why = volume.problem.as_deref().unwrap_or("no filesystem that is read lies in it");
        chain.doubt("not-followed", format!("the root of the system ({names}) is {}: {why}", volume.name));
        return;
    }
    let has_init = INITS.iter().any(|path| volume.find(path).is_ok_and(|found| found.is_some()));
    if !has_init {
        let text = format!("{} is the root of the system ({names}), and has no {}", volume.name, INITS.join(" or "));
        chain.broken("init-absent", text);
        return;
    }
    chain.step(format!("the root of the system is {} ({}, {names})", volume.name, volume.content));
    let fstab = volume.read_text("/etc/fstab");
    let Some(Some(fstab)) = chain.read(&format!("/etc/fstab in {}", volume.name), fstab) else { return };
    for line in tab_lines(&fstab.bytes) {
        let (Some(source), Some(place)) = (line.fields.first(), line.fields.get(1)) else { continue };
        let Some(mention) = mentions(source.as_bytes()).into_iter().next() else { continue };
        if mention.names.find(volumes).is_some() {
            continue;
        }
        let options = line.fields.get(3).map_or("", String::as_str);
        let optional = options.split(',').any(|option| matches!(option, "nofail" | "noauto"));
        let text = format!(
            "line {} of {} in {} mounts {} at {place}, and nothing on this disk has it{}",
            line.number,
            fstab.path,
            volume.name,
            mention.names,
            if optional { "" } else { ": the system waits for it, and then may stop" }
        );
        if optional { chain.note("fstab", text) } else { chain.doubt("fstab", text) }
    }
}
