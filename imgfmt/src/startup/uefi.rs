//! The chain of UEFI: an EFI system partition, a loader in it, its configuration, the system.
//!
//! Which loader the firmware starts stands in the machine's own memory (NVRAM entries `Boot0001` and so on), not on the disk. A machine that has no such entry
//! starts the fallback loader: UEFI specification 2.10 section 3.5.1.

use crate::bytes::{le16, le32};
use crate::error::Result;
use crate::startup::bios::follow_payload;
use crate::startup::chain::Chain;
use crate::startup::core_image::{self, Width};
use crate::startup::grub::{State, follow};
use crate::startup::linux::{Weight, check_file, check_kernel, check_root};
use crate::startup::text_files::{loader_default, loader_entry};
use crate::startup::volumes::{Volume, Volumes, read_all};
use crate::startup::windows;

/// Longest program that is looked into.
const MAX_PROGRAM: u64 = 64 << 20;
/// Loaders and entries that are looked at.
const MAX_NAMES: usize = 200;
/// Fallback loaders by architecture.
const FALLBACKS: &[&str] = &["BOOTX64.EFI", "BOOTAA64.EFI", "BOOTIA32.EFI", "BOOTRISCV64.EFI", "BOOTARM.EFI"];

/// What an EFI program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shim,
    Grub,
    SystemdBoot,
    /// A kernel with its initial file system and arguments in one file.
    Unified,
    WindowsBootManager,
    Other,
}

/// Follows the chain.
pub(super) fn follow_uefi(volumes: &Volumes) -> Chain {
    let mut chain = Chain::default();
    let all: Vec<usize> = (0..volumes.all.len()).collect();
    let is_esp = |index: &&usize| {
        volumes.get(**index).partition.as_ref().is_some_and(|partition| partition.type_name == "EFI system")
    };
    let has_loader = |index: &&usize| volumes.get(**index).find("/EFI").is_ok_and(|found| found.is_some());
    let mut esps: Vec<usize> = all.iter().filter(is_esp).copied().collect();
    if esps.is_empty() {
        // Removable disks need no type: any FAT will do.
        let is_fat = |index: &&usize| volumes.get(**index).content.starts_with("FAT");
        esps = all.iter().filter(is_fat).filter(has_loader).copied().collect();
    }
    if esps.is_empty() {
        chain.absent("no EFI system partition: the disk is not made for UEFI");
        return chain;
    }
    let mut started = false;
    for index in &esps {
        started |= follow_esp(&mut chain, volumes, *index);
    }
    if !started {
        let names: Vec<_> = esps.iter().map(|index| volumes.get(*index).name.as_str()).collect();
        chain.broken(
            "efi-loader-absent",
            format!("no EFI loader in {} (\\EFI\\BOOT\\BOOTX64.EFI and the like)", names.join(", ")),
        );
    }
    chain
}

/// Follows the loaders of one EFI system partition; `false` where it has none.
fn follow_esp(chain: &mut Chain, volumes: &Volumes, index: usize) -> bool {
    let volume = volumes.get(index);
    let name = &volume.name;
    if volume.files().is_none() {
        let why = volume.problem.as_deref().unwrap_or("no filesystem lies in it");
        chain.broken("efi-partition-unreadable", format!("the EFI system partition, {name}, cannot be used: {why}"));
        return true;
    }
    chain.step(format!("{name} is the EFI system partition ({})", volume.content));
    let fallback = FALLBACKS.iter().find(|file| volume.has_file(&format!("/EFI/BOOT/{file}")).unwrap_or(false));
    let others = other_loaders(volume);
    match fallback {
        Some(file) => follow_program(chain, volumes, index, &format!("/EFI/BOOT/{file}"), 0),
        None if others.is_empty() => return false,
        None => {
            let list = others.join(", ");
            let text = format!(
                "no fallback loader (\\EFI\\BOOT\\BOOTX64.EFI) in {name}: only a machine that remembers {list} starts this disk"
            );
            chain.doubt("efi-fallback-absent", text);
        }
    }
    for path in &others {
        follow_program(chain, volumes, index, path, 0);
    }
    true
}

/// Loaders that installers register with the firmware: the first of each folder below /EFI.
fn other_loaders(volume: &Volume) -> Vec<String> {
    let mut found = Vec::new();
    let folders = volume.names("/EFI").unwrap_or_default();
    for folder in folders.iter().filter(|folder| !folder.eq_ignore_ascii_case("BOOT")).take(MAX_NAMES) {
        let candidates =
            ["Boot/bootmgfw.efi", "shimx64.efi", "shimaa64.efi", "grubx64.efi", "grubaa64.efi", "systemd-bootx64.efi"];
        let path = candidates.iter().map(|name| format!("/EFI/{folder}/{name}"));
        found.extend(path.filter(|path| volume.has_file(path).unwrap_or(false)).take(1));
    }
    found
}

/// Follows one loader.
fn follow_program(chain: &mut Chain, volumes: &Volumes, index: usize, path: &str, depth: usize) {
    let volume = volumes.get(index);
    let name = &volume.name;
    let program = volume.open(path).and_then(|opened| {
        opened.map(|(found, content)| Ok((found.path, read_all(&*content, MAX_PROGRAM)?))).transpose()
    });
    let Some(Some((path, bytes))) = chain.read(&format!("{path} in {name}"), program) else { return };
    if !is_program(&bytes) {
        chain.broken("efi-loader-damaged", format!("{path} in {name} is no EFI program"));
        return;
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    match kind_of(&path, &bytes) {
        Kind::Shim => {
            chain.step(format!("{path} in {name} is shim"));
            let next = ["grubx64.efi", "grubaa64.efi"].iter().map(|file| format!("{folder}/{file}"));
            let found = next.into_iter().find(|next| volume.has_file(next).unwrap_or(false));
            match found {
                Some(next) if depth < 3 => follow_program(chain, volumes, index, &next, depth.saturating_add(1)),
                Some(_) => {}
                // The fallback shim starts fbx64.efi, which puts the entries of the firmware back.
                None if volume.has_file(&format!("{folder}/fbx64.efi")).unwrap_or(false) => {
                    chain.step(format!("{folder}/fbx64.efi in {name} registers the loaders of the other folders"));
                }
                None => chain
                    .broken("grub-absent", format!("{path} in {name} is shim, and grubx64.efi is absent beside it")),
            }
        }
        Kind::Grub => {
            chain.step(format!("{path} in {name} is GRUB"));
            follow_grub(chain, volumes, index, &folder, &bytes);
        }
        Kind::SystemdBoot => {
            chain.step(format!("{path} in {name} is systemd-boot"));
            follow_systemd_boot(chain, volumes, index);
        }
        Kind::Unified => {
            chain.step(format!("{path} in {name} is a unified kernel"));
            check_unified(chain, volumes, &bytes, &format!("{path} in {name}"), Weight::Default);
        }
        Kind::WindowsBootManager => {
            chain.step(format!("{path} in {name} is the Windows boot manager"));
            windows::follow_store(chain, volumes, index, windows::EFI_STORE);
        }
        Kind::Other => {
            chain.step(format!("{path} in {name} is a loader that is not known"));
            chain.doubt("not-followed", format!("what {path} in {name} starts is not followed"));
        }
    }
}

fn is_program(bytes: &[u8]) -> bool {
    let header = le32(bytes, 0x3c).and_then(|at| usize::try_from(at).ok());
    let has_header = header.is_some_and(|at| bytes.get(at..).is_some_and(|rest| rest.starts_with(b"PE\0\0")));
    bytes.starts_with(b"MZ") && has_header
}

/// The content of a section of a PE program.
///
/// Source: Microsoft PE format, "Section Table".
fn section<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let header = usize::try_from(le32(bytes, 0x3c)?).ok()?;
    let count = le16(bytes, header.checked_add(6)?)?;
    let optional = usize::from(le16(bytes, header.checked_add(20)?)?);
    let mut at = header.checked_add(24)?.checked_add(optional)?;
    for _ in 0..count.min(96) {
        let entry = bytes.get(at..at.checked_add(40)?)?;
        let found: &[u8] = entry.get(..8)?;
        let end = found.iter().position(|byte| *byte == 0).unwrap_or(8);
        if found.get(..end) == Some(name) {
            let (virtual_len, len, start) = (le32(entry, 8)?, le32(entry, 16)?, le32(entry, 20)?);
            let len = if virtual_len == 0 { len } else { len.min(virtual_len) };
            let start = usize::try_from(start).ok()?;
            return bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?);
        }
        at = at.checked_add(40)?;
    }
    None
}

fn kind_of(path: &str, bytes: &[u8]) -> Kind {
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    if section(bytes, b".linux").is_some() {
        Kind::Unified
    } else if section(bytes, b".sdmagic").is_some() || has(b"#### LoaderInfo: systemd-boot") {
        Kind::SystemdBoot
    } else if section(bytes, b"mods").is_some() {
        Kind::Grub
    } else if path.to_ascii_lowercase().ends_with("/bootmgfw.efi") || has(&utf16("bootmgfw.efi")) {
        Kind::WindowsBootManager
    } else if has(b"UEFI shim") || has(b"$Version: ") && has(&utf16("MokManager")) || has(&utf16("\\mmx64.efi")) {
        Kind::Shim
    } else {
        Kind::Other
    }
}

fn follow_grub(chain: &mut Chain, volumes: &Volumes, index: usize, folder: &str, bytes: &[u8]) {
    // PE32+ is 64 bits wide.
    let header = le32(bytes, 0x3c).and_then(|at| usize::try_from(at).ok()).unwrap_or(0);
    let wide = le16(bytes, header.saturating_add(24)) == Some(0x20b);
    let width = if wide { Width::Wide } else { Width::Narrow };
    let payload = section(bytes, b"mods").and_then(|mods| core_image::parse(mods, width));
    match payload {
        Some(payload) => {
            let on_esp = payload.config.is_none() && payload.memdisk_config.is_none();
            let prefix = payload.prefix.clone().unwrap_or_default();
            // A prefix without a device is a folder of the partition that GRUB was loaded from.
            if on_esp && prefix.starts_with('/') {
                let path = format!("{prefix}/grub.cfg");
                follow(chain, volumes, State::new(Some(index), &prefix), &path, Weight::Default);
            } else {
                follow_payload(chain, volumes, &payload);
            }
        }
        None => follow(chain, volumes, State::new(Some(index), folder), &format!("{folder}/grub.cfg"), Weight::Default),
    }
}

/// Entries in the EFI system partition and in the extended boot loader partition.
fn follow_systemd_boot(chain: &mut Chain, volumes: &Volumes, esp: usize) {
    let extended = volumes.all.iter().position(|volume| {
        let kind = volume.partition.as_ref().map(|partition| partition.type_code.as_str());
        kind == Some("BC13C2FF-59E6-4262-A352-B275FD6F7172")
    });
    let config = volumes.get(esp).read_text("/loader/loader.conf").ok().flatten();
    let pattern = config.and_then(|text| loader_default(&text.bytes));
    let mut entries: Vec<(usize, String)> = Vec::new();
    for index in std::iter::once(esp).chain(extended) {
        let names = volumes.get(index).names("/loader/entries").unwrap_or_default();
        let names = names.into_iter().filter(|name| name.ends_with(".conf")).take(MAX_NAMES);
        entries.extend(names.map(|name| (index, format!("/loader/entries/{name}"))));
        let names = volumes.get(index).names("/EFI/Linux").unwrap_or_default();
        let names = names.into_iter().filter(|name| name.to_ascii_lowercase().ends_with(".efi")).take(MAX_NAMES);
        entries.extend(names.map(|name| (index, format!("/EFI/Linux/{name}"))));
    }
    if entries.is_empty() {
        chain.broken(
            "entries-absent",
            format!(
                "systemd-boot finds no entries: /loader/entries and /EFI/Linux are empty in {}",
                volumes.get(esp).name
            ),
        );
        return;
    }
    let matches = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        pattern.as_ref().is_some_and(|pattern| {
            let pattern = pattern.trim_end_matches(".conf");
            let name = name.trim_end_matches(".conf");
            pattern.strip_suffix('*').map_or_else(|| name == pattern, |start| name.starts_with(start))
        })
    };
    // Without a default the newest version comes first, which sorts last.
    let last = entries.len().saturating_sub(1);
    let default = entries.iter().position(|(_, path)| matches(path)).unwrap_or(last);
    for (at, (index, path)) in entries.iter().enumerate() {
        let volume = volumes.get(*index);
        let weight = if at == default { Weight::Default } else { Weight::Other };
        let who = format!("{path} in {}", volume.name);
        if path.starts_with("/loader/") {
            let Some(Some(text)) = chain.read(&who, volume.read_text(path)) else { continue };
            let entry = loader_entry(&text.bytes);
            check_kernel(chain, volumes, volume, &entry, &who, weight);
        } else if check_file(chain, volume, path, "the unified kernel", "systemd-boot", weight)
            && weight == Weight::Default
        {
            let bytes = read_program(volume, path);
            if let Some(Some(bytes)) = chain.read(&who, bytes) {
                chain.step(format!("systemd-boot starts {who}"));
                check_unified(chain, volumes, &bytes, &who, weight);
            }
        }
    }
}

fn read_program(volume: &Volume, path: &str) -> Result<Option<Vec<u8>>> {
    volume.open(path)?.map(|(_, content)| read_all(&*content, MAX_PROGRAM * 8)).transpose()
}

fn check_unified(chain: &mut Chain, volumes: &Volumes, bytes: &[u8], who: &str, weight: Weight) {
    if section(bytes, b".linux").is_none() {
        weight.find(chain, "kernel-absent", format!("{who} has no kernel inside"));
        return;
    }
    let arguments = section(bytes, b".cmdline").map(|text| String::from_utf8_lossy(text).into_owned());
    check_root(chain, volumes, arguments.unwrap_or_default().trim_end_matches('\0'), who, weight);
}
