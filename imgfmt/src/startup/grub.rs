//! From GRUB to a system: its configuration is followed to the entries of its menu, and those to their kernels.

use crate::startup::chain::Chain;
use crate::startup::grub_cfg::{Command, Config, Entry, Variables, parse};
use crate::startup::linux::{Weight, check_file, check_kernel};
use crate::startup::reference::{Identity, mentions};
use crate::startup::text_files::{Kernel, loader_entry};
use crate::startup::volumes::Volumes;
use crate::startup::windows;

/// Folders in which GRUB's configuration lies, as `prefix` of distributions names them.
pub(super) const FOLDERS: &[&str] = &["/boot/grub", "/boot/grub2", "/grub", "/grub2"];
/// Configurations that lead to each other.
const MAX_DEPTH: usize = 8;
/// Entries of a menu that are checked.
const MAX_ENTRIES: usize = 500;

/// A device as GRUB would have found it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Root {
    Volume(usize),
    /// Nothing on this disk: what was looked for.
    Missing(String),
    /// Something that is not followed.
    Other(String),
}

/// Where GRUB stands while it reads its configuration.
#[derive(Clone, Debug)]
pub(super) struct State {
    root: Root,
    /// A search in vain, while `root` is still what it was before.
    in_vain: Option<Identity>,
    variables: Variables,
    depth: usize,
}

impl State {
    /// At its start in a volume, with this prefix.
    pub(super) fn new(volume: Option<usize>, prefix: &str) -> Self {
        let mut variables = Variables::default();
        variables.set("prefix", prefix);
        let root = volume.map_or_else(|| Root::Other("the device that GRUB was loaded from".into()), Root::Volume);
        Self { root, in_vain: None, variables, depth: 0 }
    }

    /// What a device name in parentheses means.
    fn device(&self, volumes: &Volumes, name: &str) -> Root {
        let name = name.trim_matches(|c| matches!(c, '(' | ')'));
        if name.is_empty() || name == "$root" {
            return self.root.clone();
        }
        if let Some(index) = name.strip_prefix("volume#").and_then(|number| number.parse().ok()) {
            return if volumes.all.len() > index { Root::Volume(index) } else { Root::Other(name.into()) };
        }
        if let Some(mapped) = name.strip_prefix("lvm/") {
            return volumes.by_mapped_name(mapped).map_or_else(|| Root::Missing(format!("({name})")), Root::Volume);
        }
        let Some((disk, partition)) = name.split_once(',') else { return Root::Other(format!("({name})")) };
        let digits = partition.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        match (disk, digits.parse::<u32>()) {
            ("hd0" | "", Ok(number)) => {
                volumes.by_number(number).map_or_else(|| Root::Missing(format!("({name})")), Root::Volume)
            }
            _ => Root::Other(format!("({name})")),
        }
    }

    /// A path with or without a device in front, as device and path.
    fn place(&self, volumes: &Volumes, path: &str) -> (Root, String) {
        let path = self.variables.put_in(path);
        match path.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            Some((device, path)) => (self.device(volumes, device), path.into()),
            None => (self.root.clone(), path),
        }
    }

    /// Runs the commands of the configuration inside of a core image.
    pub(super) fn run_text(&mut self, volumes: &Volumes, text: &[u8]) {
        for command in parse(text).commands {
            self.run(volumes, &command);
        }
    }

    /// GRUB's folder, variables put in.
    pub(super) fn prefix(&self) -> String {
        self.variables.get("prefix").unwrap_or_default().to_owned()
    }

    /// Says whether a path has no device that is known.
    pub(super) fn is_lost(&self, volumes: &Volumes, path: &str) -> bool {
        !matches!(self.place(volumes, path).0, Root::Volume(_))
    }

    /// Says whether the last search found nothing.
    pub(super) fn has_searched_in_vain(&self) -> bool {
        self.in_vain.is_some()
    }

    fn set_root(&mut self, root: Root) {
        if let Root::Volume(index) = root {
            self.variables.set("root", &format!("volume#{index}"));
        }
        self.root = root;
    }

    /// Runs a command that only changes where GRUB stands.
    fn run(&mut self, volumes: &Volumes, command: &Command) {
        let words: Vec<String> = command.iter().map(|word| self.variables.put_in(word)).collect();
        match words.first().map(String::as_str) {
            Some("set") => {
                let Some((name, value)) = words.get(1).and_then(|word| word.split_once('=')) else { return };
                self.variables.set(name, value);
                if name == "root" {
                    self.root = self.device(volumes, value);
                    self.in_vain = None;
                }
            }
            Some("search" | "search.fs_uuid" | "search.fs_label" | "search.file") => self.search(volumes, &words),
            _ => {}
        }
    }

    fn search(&mut self, volumes: &Volumes, words: &[String]) {
        let short = words.first().is_some_and(|word| word.starts_with("search."));
        let set = words.iter().find_map(|word| word.strip_prefix("--set="));
        let variable = if short { words.get(2).map(String::as_str) } else { set }.unwrap_or("root");
        let by_file = words.iter().any(|word| matches!(word.as_str(), "search.file" | "--file" | "-f"));
        let (found, names) = if by_file {
            let path = if short { words.get(1) } else { words.iter().rfind(|word| !word.starts_with('-')) };
            let Some(path) = path else { return };
            let has = |volume: &crate::startup::volumes::Volume| volume.find(path).is_ok_and(|found| found.is_some());
            (volumes.all.iter().position(has), None)
        } else {
            let line = words.join(" ");
            let Some(mention) = mentions(line.as_bytes()).into_iter().next() else { return };
            (mention.names.find(volumes), Some(mention.names))
        };
        match (found, variable) {
            (Some(index), "root") => {
                self.in_vain = None;
                self.set_root(Root::Volume(index));
            }
            (Some(index), other) => self.variables.set(other, &format!("volume#{index}")),
            (None, "root") => self.in_vain = names,
            (None, _) => {}
        }
    }
}

/// Follows the configuration that lies at `path`, in GRUB's notation.
pub(super) fn follow(chain: &mut Chain, volumes: &Volumes, mut state: State, path: &str, weight: Weight) {
    let (root, path) = state.place(volumes, path);
    let Some(index) = on_volume(chain, &state, &root, &format!("GRUB's configuration {path}"), weight) else { return };
    let volume = volumes.get(index);
    let text = volume.read_text(&path);
    let Some(text) = chain.read(&format!("GRUB's configuration {path} in {}", volume.name), text) else { return };
    let Some(text) = text else {
        if volume.files().is_none() {
            let why = volume.problem.as_deref().unwrap_or("no filesystem that is read lies in it");
            chain.doubt("not-followed", format!("GRUB's configuration {path} lies in {}: {why}", volume.name));
        } else {
            weight.find(
                chain,
                "grub-config-absent",
                format!("GRUB's configuration {path} is absent from {}", volume.name),
            );
        }
        return;
    };
    chain.step(format!("GRUB reads {} in {}", text.path, volume.name));
    state.set_root(Root::Volume(index));
    state.in_vain = None;
    follow_text(chain, volumes, state, &text.bytes, &format!("{} in {}", text.path, volume.name), weight);
}

/// The volume of a device, or a finding.
fn on_volume(chain: &mut Chain, state: &State, root: &Root, what: &str, weight: Weight) -> Option<usize> {
    match (root, &state.in_vain) {
        (Root::Volume(index), _) => return Some(*index),
        (_, Some(names)) => {
            let text = format!("{what} lies where GRUB looks for {names}, and no filesystem on this disk has it");
            weight.find(chain, "grub-search", text);
        }
        (Root::Missing(device), None) => {
            weight.find(chain, "grub-device", format!("{what} lies in {device}, and this disk has no such partition"));
        }
        (Root::Other(device), None) => {
            if weight == Weight::Default {
                chain.doubt("not-followed", format!("{what} lies in {device}, which is not followed"));
            }
        }
    }
    None
}

/// Follows the text of a configuration. `who` is what messages call it.
pub(super) fn follow_text(
    chain: &mut Chain,
    volumes: &Volumes,
    mut state: State,
    text: &[u8],
    who: &str,
    weight: Weight,
) {
    state.depth = state.depth.saturating_add(1);
    if state.depth > MAX_DEPTH {
        weight.find(chain, "grub-config-loop", format!("{who} leads through too many configurations"));
        return;
    }
    let config = parse(text);
    let mut bls = false;
    for command in &config.commands {
        match command.first().map(String::as_str) {
            Some("configfile" | "normal") if config.entries.is_empty() => {
                let prefix = state.variables.get("prefix").unwrap_or_default().to_owned();
                let path = command.get(1).cloned().unwrap_or_else(|| format!("{prefix}/grub.cfg"));
                follow(chain, volumes, state, &path, weight);
                return;
            }
            Some("blscfg") => bls = true,
            _ => state.run(volumes, command),
        }
    }
    if bls && config.entries.iter().all(|entry| entry.nested) {
        follow_bls(chain, volumes, &state, who, weight);
    }
    follow_menu(chain, volumes, &state, &config, who, weight, bls);
}

fn follow_menu(
    chain: &mut Chain,
    volumes: &Volumes,
    state: &State,
    config: &Config,
    who: &str,
    weight: Weight,
    bls: bool,
) {
    let default = config.default_entry();
    if default.is_none() && !bls {
        let linux = config.commands.iter().any(|command| command.first().is_some_and(|word| is_linux(word)));
        if linux {
            // A configuration without a menu starts its kernel at once.
            let entry = Entry { title: who.into(), commands: config.commands.clone(), ..Entry::default() };
            follow_entry(chain, volumes, state.clone(), &entry, who, weight);
        } else {
            chain.doubt("not-followed", format!("{who} has no entries that could be followed"));
        }
    }
    for entry in config.entries.iter().take(MAX_ENTRIES) {
        let is_default = default.is_some_and(|default| std::ptr::eq(default, entry)) && !bls;
        let weight = if is_default { weight } else { Weight::Other };
        let who = format!("the entry {:?} of {who}", entry.title);
        follow_entry(chain, volumes, state.clone(), entry, &who, weight);
    }
}

fn is_linux(word: &str) -> bool {
    matches!(word, "linux" | "linux16" | "linuxefi" | "linux32")
}

fn follow_entry(chain: &mut Chain, volumes: &Volumes, mut state: State, entry: &Entry, who: &str, weight: Weight) {
    let mut kernel: Option<(usize, Kernel)> = None;
    let mut followed = false;
    for command in &entry.commands {
        let Some(first) = command.first() else { continue };
        // Options of these commands come before the path.
        let argument = command.iter().skip(1).find(|word| !word.starts_with("--"));
        if is_linux(first) {
            followed = true;
            let Some(path) = argument else { continue };
            let (root, path) = state.place(volumes, path);
            let Some(index) = on_volume(chain, &state, &root, &format!("the kernel {path} of {who}"), weight) else {
                continue;
            };
            if let Some(names) = &state.in_vain {
                let there = volumes.get(index).has_file(&path).unwrap_or(false);
                let text = format!("{who} looks for {names}, and no filesystem on this disk has it");
                if there { chain.note("grub-search", text) } else { weight.find(chain, "grub-search", text) }
            }
            let words = command.iter().skip(2).map(|word| state.variables.put_in(word));
            let arguments = words.collect::<Vec<_>>().join(" ");
            kernel = Some((index, Kernel { title: entry.title.clone(), kernel: path, arguments, ..Kernel::default() }));
        } else if first.starts_with("initrd") {
            let Some((index, kernel)) = &mut kernel else { continue };
            for path in command.iter().skip(1) {
                let (root, path) = state.place(volumes, path);
                if root == Root::Volume(*index) {
                    kernel.initrds.push(path);
                }
            }
        } else if matches!(first.as_str(), "chainloader" | "ntldr") {
            followed = true;
            let Some(path) = argument else { continue };
            let (root, path) = state.place(volumes, path);
            let Some(index) = on_volume(chain, &state, &root, &format!("{path} of {who}"), weight) else { continue };
            chainload(chain, volumes, index, &path, who, weight);
        } else if first == "configfile" {
            followed = true;
            if let Some(path) = argument {
                state.depth = state.depth.saturating_add(1);
                if state.depth <= MAX_DEPTH {
                    follow(chain, volumes, state.clone(), path, weight);
                }
            }
        } else if matches!(first.as_str(), "fwsetup" | "reboot" | "halt") {
            followed = true;
        } else {
            state.run(volumes, command);
        }
    }
    if let Some((index, kernel)) = &kernel {
        check_kernel(chain, volumes, volumes.get(*index), kernel, who, weight);
    } else if !followed && weight == Weight::Default {
        chain.doubt("not-followed", format!("{who} starts nothing that could be followed"));
    }
}

/// Another loader, started by GRUB.
fn chainload(chain: &mut Chain, volumes: &Volumes, index: usize, path: &str, who: &str, weight: Weight) {
    let volume = volumes.get(index);
    if path.starts_with('+') {
        if weight == Weight::Default {
            chain.doubt(
                "not-followed",
                format!("{who} starts the boot sector of {}, which is not followed", volume.name),
            );
        }
        return;
    }
    if check_file(chain, volume, path, "the loader", who, weight) && weight == Weight::Default {
        chain.step(format!("{who} starts {path} in {}", volume.name));
        let lower = path.to_ascii_lowercase();
        if lower.ends_with("bootmgfw.efi") {
            windows::follow_store(chain, volumes, index, windows::EFI_STORE);
        } else if lower == "/bootmgr" {
            windows::follow_store(chain, volumes, index, windows::BIOS_STORE);
        } else if lower == "/ntldr" {
            windows::follow_ntldr(chain, volumes, index);
        } else {
            chain.doubt("not-followed", format!("{path} in {} is not followed further", volume.name));
        }
    }
}

/// Entries of the Boot Loader Specification, as `blscfg` reads them.
fn follow_bls(chain: &mut Chain, volumes: &Volumes, state: &State, who: &str, weight: Weight) {
    let Root::Volume(index) = state.root else {
        chain.doubt("not-followed", format!("{who} reads its entries from a device that is not followed"));
        return;
    };
    let volume = volumes.get(index);
    let folders = ["/loader/entries", "/boot/loader/entries"];
    let list = |folder: &&str| volume.names(folder).unwrap_or_default();
    let Some(folder) = folders.iter().find(|folder| list(folder).iter().any(|name| name.ends_with(".conf"))) else {
        weight.find(
            chain,
            "entries-absent",
            format!("{who} reads /loader/entries, and {} has no entries there", volume.name),
        );
        return;
    };
    let mut variables = state.variables.clone();
    let prefix = FOLDERS.iter().map(|folder| format!("{folder}/grubenv"));
    if let Some(Ok(Some(env))) = prefix.map(|path| volume.read_text(&path)).find(|read| matches!(read, Ok(Some(_)))) {
        for line in String::from_utf8_lossy(&env.bytes).lines() {
            if let Some((name, value)) = line.split_once('=') {
                variables.set(name, value);
            }
        }
    }
    let names: Vec<_> = list(folder).into_iter().filter(|name| name.ends_with(".conf")).take(MAX_ENTRIES).collect();
    for (at, name) in names.iter().enumerate() {
        // The newest version sorts last and is what starts.
        let weight = if at.saturating_add(1) == names.len() { weight } else { Weight::Other };
        let path = format!("{folder}/{name}");
        let Some(Some(text)) = chain.read(&path, volume.read_text(&path)) else { continue };
        let mut entry = loader_entry(&text.bytes);
        entry.arguments = variables.put_in(&entry.arguments);
        check_kernel(chain, volumes, volume, &entry, &format!("{path} in {}", volume.name), weight);
    }
}
