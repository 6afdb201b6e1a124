//! The chain of a BIOS: code in the first sector, an active partition or GRUB's core, a loader, its configuration, the system.

use std::sync::Arc;

use crate::bytes::le16;
use crate::disk::{Disk, Slice, read_vec};
use crate::error::Result;
use crate::partition::Scheme;
use crate::startup::boot_code::{DiskCode, PartitionCode, of_disk, of_partition};
use crate::startup::chain::Chain;
use crate::startup::grub::{FOLDERS, State, follow};
use crate::startup::linux::{Weight, check_file, check_kernel};
use crate::startup::text_files::syslinux;
use crate::startup::volumes::Volumes;
use crate::startup::{core_image, windows};

/// Follows the chain.
pub(super) fn follow_bios(disk: &Arc<dyn Disk>, volumes: &Volumes) -> Result<Chain> {
    let mut chain = Chain::default();
    if disk.len() < 512 {
        chain.absent("the disk is shorter than a boot sector");
        return Ok(chain);
    }
    let first = match read_vec(disk, 0, 512) {
        Ok(first) => first,
        Err(error) if error.is_unreadable_medium() => {
            chain.broken("unreadable", "the first sector cannot be read: no BIOS starts this disk");
            return Ok(chain);
        }
        Err(error) => return Err(error),
    };
    if le16(&first, 510) != Some(0xaa55) {
        chain.absent("the first sector has no boot signature: no BIOS starts this disk");
        return Ok(chain);
    }
    if volumes.layout.scheme == Scheme::None {
        chain.step("the disk has no partition table: the BIOS starts the boot sector of its filesystem");
        follow_partition(&mut chain, disk, volumes, 0);
        return Ok(chain);
    }
    let is_mbr = volumes.layout.scheme == Scheme::Mbr;
    let active = volumes.all.iter().position(|volume| volume.partition.as_ref().is_some_and(|found| found.active));
    match of_disk(&first) {
        DiskCode::Empty if is_mbr && active.is_some() => {
            chain.broken("boot-code-absent", "a partition is active, and the first sector has no boot code that could start it: restore --boot-code writes it");
        }
        DiskCode::Empty => chain.absent("the first sector has no boot code: the disk is not made for a BIOS"),
        DiskCode::Grub(sector) => {
            chain.step(format!(
                "the first sector has the boot code of GRUB, which loads the core image from sector {sector}"
            ));
            follow_core(&mut chain, disk, volumes, sector);
        }
        DiskCode::GrubLegacy(sector) => {
            chain.step(format!("the first sector has the boot code of GRUB legacy, which loads from sector {sector}"));
            chain.doubt("not-followed", "GRUB legacy is not followed");
        }
        DiskCode::Lilo => {
            chain.step("the first sector has the boot code of LILO");
            chain.doubt("not-followed", "LILO loads blocks that it knows by number: they are not followed");
        }
        DiskCode::SyslinuxGpt => {
            chain.step("the first sector has the boot code of Syslinux, which starts the partition with the legacy boot attribute");
            follow_active(&mut chain, disk, volumes, "has the legacy boot attribute");
        }
        DiskCode::ActivePartition => {
            chain.step("the first sector has boot code that starts the active partition");
            follow_active(&mut chain, disk, volumes, "is active");
        }
        DiskCode::Unknown if !is_mbr => {
            chain.doubt("not-followed", "the first sector has boot code that is not known");
        }
        DiskCode::Unknown => {
            chain.step("the first sector has boot code that is not known: it is taken for one that starts the active partition");
            chain.note("boot-code-unknown", "the boot code in the first sector is not known");
            follow_active(&mut chain, disk, volumes, "is active");
        }
    }
    Ok(chain)
}

/// Follows the active partition.
fn follow_active(chain: &mut Chain, disk: &Arc<dyn Disk>, volumes: &Volumes, how: &str) {
    let is_primary = |number: u32| volumes.layout.scheme != Scheme::Mbr || number <= 4;
    let active: Vec<usize> = (0..volumes.all.len())
        .filter(|index| {
            volumes.get(*index).partition.as_ref().is_some_and(|found| found.active && is_primary(found.number))
        })
        .collect();
    match active.as_slice() {
        [] => chain.broken(
            "active-partition-missing",
            format!("active partition missing: no partition {how}, so the boot code has nothing to start (sfdisk --activate sets the flag)"),
        ),
        [index] => {
            chain.step(format!("{} {how}", volumes.get(*index).name));
            follow_partition(chain, disk, volumes, *index);
        }
        [_, _, ..] => {
            let names: Vec<_> = active.iter().map(|index| volumes.get(*index).name.as_str()).collect();
            let text = format!("more than one partition {how} ({}): boot code refuses such a table", names.join(", "));
            chain.broken("active-partitions", text);
        }
    }
}

/// Follows the boot sectors of a partition.
fn follow_partition(chain: &mut Chain, disk: &Arc<dyn Disk>, volumes: &Volumes, index: usize) {
    let volume = volumes.get(index);
    let Some(partition) = &volume.partition else { return };
    let slice = Slice::open(Arc::clone(disk), partition.range.clone());
    let code = slice.and_then(|slice| of_partition(&slice));
    let Some(code) = chain.read(&format!("the boot sector of {}", volume.name), code) else { return };
    let name = &volume.name;
    match code {
        PartitionCode::NoSignature => {
            chain.broken(
                "boot-sector-absent",
                format!("{name} has no boot sector (\"Missing operating system\"): restore --boot-sector writes it"),
            );
        }
        PartitionCode::NotBootable => {
            chain.broken(
                "boot-sector-empty",
                format!("the boot sector of {name} starts nothing: no system was made bootable there"),
            );
        }
        PartitionCode::File(path) => {
            chain.step(format!("the boot sector of {name} loads {path}"));
            follow_file(chain, volumes, index, path);
        }
        PartitionCode::Syslinux | PartitionCode::Extlinux => follow_syslinux(chain, volumes, index, code),
        PartitionCode::Grub(sector) => {
            chain.step(format!(
                "the boot sector of {name} is that of GRUB, which loads the core image from sector {sector}"
            ));
            follow_core(chain, disk, volumes, sector);
        }
        PartitionCode::Unknown => {
            chain.step(format!("the boot sector of {name} is started"));
            chain.doubt(
                "not-followed",
                format!("the code in the boot sector of {name} is not known: what it loads is not followed"),
            );
        }
    }
}

/// A loader that the boot sector looks for by its name.
fn follow_file(chain: &mut Chain, volumes: &Volumes, index: usize, path: &str) {
    let volume = volumes.get(index);
    match volume.has_file(path) {
        Ok(false) if volume.files().is_some() => {
            let (code, text) = match path {
                "/bootmgr" => ("bootmgr-absent", "bootmgr absent"),
                "/ntldr" => ("ntldr-absent", "ntldr absent"),
                _ => ("loader-absent", "loader absent"),
            };
            chain.broken(code, format!("{text}: the boot sector of {} loads {path}, which is not there", volume.name));
            return;
        }
        _ => {
            if !check_file(chain, volume, path, "the loader", "the boot sector", Weight::Default) {
                return;
            }
        }
    }
    match path {
        "/bootmgr" => windows::follow_store(chain, volumes, index, windows::BIOS_STORE),
        "/ntldr" => windows::follow_ntldr(chain, volumes, index),
        "/io.sys" => {
            check_file(chain, volume, "/command.com", "the shell", "DOS", Weight::Default);
        }
        _ => chain.doubt("not-followed", format!("{path} in {} is not followed further", volume.name)),
    }
}

/// Where Syslinux looks for its configuration, in this order.
const SYSLINUX: &[&str] = &[
    "/boot/syslinux/syslinux.cfg",
    "/syslinux/syslinux.cfg",
    "/syslinux.cfg",
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux/syslinux.cfg",
    "/extlinux/extlinux.conf",
    "/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/syslinux/extlinux.conf",
];

fn follow_syslinux(chain: &mut Chain, volumes: &Volumes, index: usize, code: PartitionCode) {
    let volume = volumes.get(index);
    let name = &volume.name;
    chain.step(format!("the boot sector of {name} loads Syslinux by the numbers of its sectors"));
    if volume.files().is_none() {
        let why = volume.problem.as_deref().unwrap_or("no filesystem that is read lies in it");
        chain.doubt("not-followed", format!("Syslinux lies in {name}: {why}"));
        return;
    }
    let places: &[&str] = match code {
        PartitionCode::Syslinux => &["/ldlinux.sys", "/syslinux/ldlinux.sys", "/boot/syslinux/ldlinux.sys"],
        _ => &[
            "/boot/extlinux/ldlinux.sys",
            "/boot/syslinux/ldlinux.sys",
            "/extlinux/ldlinux.sys",
            "/ldlinux.sys",
            "/boot/ldlinux.sys",
        ],
    };
    let there = places.iter().any(|path| volume.has_file(path).unwrap_or(false));
    if !there {
        chain.broken("loader-absent", format!("the boot sector of {name} loads Syslinux, and ldlinux.sys is absent"));
        return;
    }
    let found = SYSLINUX.iter().find(|path| volume.has_file(path).unwrap_or(false));
    let Some(path) = found else {
        chain.broken(
            "syslinux-config-absent",
            format!("Syslinux finds no configuration in {name} ({})", SYSLINUX.join(", ")),
        );
        return;
    };
    let text = volume.read_text(path);
    let Some(Some(text)) = chain.read(&format!("{path} in {name}"), text) else { return };
    chain.step(format!("Syslinux reads {} in {name}", text.path));
    let menu = syslinux(&text.bytes);
    let default =
        menu.default.unwrap_or_else(|| menu.entries.first().map(|(label, _)| label.clone()).unwrap_or_default());
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    // A path without a slash in front counts from the folder of the configuration.
    let below = |file: &str| if file.starts_with('/') { file.to_owned() } else { format!("{folder}/{file}") };
    let mut known = false;
    for (label, entry) in &menu.entries {
        let weight = if *label == default { Weight::Default } else { Weight::Other };
        known |= weight == Weight::Default;
        let mut entry = entry.clone();
        entry.kernel = if entry.kernel.is_empty() { String::new() } else { below(&entry.kernel) };
        entry.initrds = entry.initrds.iter().map(|initrd| below(initrd)).collect();
        entry.program = entry.program.as_deref().map(below);
        let who = format!("the entry {label:?} of {} in {name}", text.path);
        check_kernel(chain, volumes, volume, &entry, &who, weight);
    }
    if !known {
        // The word can be a kernel or a program itself, or NONE.
        chain
            .doubt("not-followed", format!("{} in {name} starts {default:?}, which is none of its entries", text.path));
    }
}

/// GRUB's core image and what it reads.
fn follow_core(chain: &mut Chain, disk: &Arc<dyn Disk>, volumes: &Volumes, sector: u64) {
    let core = core_image::read(disk, sector);
    let Some(core) = chain.read("GRUB's core image", core) else { return };
    let place = where_is(volumes, sector);
    let Some(core) = core else {
        chain.broken("grub-core-absent", format!("GRUB's core image is not at sector {sector} ({place}), where the boot code loads it from: restore --boot-code writes it"));
        return;
    };
    chain.step(format!("GRUB's core image lies at sector {sector} ({place})"));
    if let Some(payload) = &core.payload {
        follow_payload(chain, volumes, payload);
        return;
    }
    chain.note(
        "grub-core-packed",
        "the core image could not be unpacked: its own settings are not known, and GRUB's folder is looked for",
    );
    follow_any_folder(chain, volumes);
}

/// What a core image says of itself, for a BIOS and for UEFI alike.
pub(super) fn follow_payload(chain: &mut Chain, volumes: &Volumes, payload: &core_image::Payload) {
    let prefix = payload.prefix.clone().unwrap_or_default();
    let mut state = State::new(None, &prefix);
    if prefix.starts_with("(memdisk)") || payload.memdisk_config.is_some() {
        if let Some(text) = &payload.memdisk_config {
            chain.step("GRUB reads the configuration inside of its core image");
            crate::startup::grub::follow_text(
                chain,
                volumes,
                state,
                text,
                "the configuration in GRUB's core image",
                Weight::Default,
            );
        } else {
            chain.doubt("not-followed", "GRUB reads a configuration inside of its core image, which is not followed");
        }
        return;
    }
    if let Some(text) = &payload.config {
        state.run_text(volumes, text);
        chain.step("GRUB's core image has a configuration of its own");
    }
    let prefix = state.prefix();
    if prefix.is_empty() {
        follow_any_folder(chain, volumes);
        return;
    }
    if state.is_lost(volumes, &prefix) {
        // "(,msdos1)" or no device: the partition is that which the core was loaded for.
        let path = prefix.rsplit(')').next().unwrap_or(&prefix).to_owned();
        let config = format!("{path}/grub.cfg");
        let found = (0..volumes.all.len()).find(|index| volumes.get(*index).has_file(&config).unwrap_or(false));
        if let Some(index) = found.filter(|_| !state.has_searched_in_vain()) {
            follow(chain, volumes, State::new(Some(index), &path), &config, Weight::Default);
            return;
        }
    }
    follow(chain, volumes, state, &format!("{prefix}/grub.cfg"), Weight::Default);
}

/// Looks for GRUB's folder in all volumes.
fn follow_any_folder(chain: &mut Chain, volumes: &Volumes) {
    for index in 0..volumes.all.len() {
        for folder in FOLDERS {
            let path = format!("{folder}/grub.cfg");
            if volumes.get(index).has_file(&path).unwrap_or(false) {
                follow(chain, volumes, State::new(Some(index), folder), &path, Weight::Default);
                return;
            }
        }
    }
    let unread = volumes.all.iter().any(|volume| volume.files().is_none() && volume.problem.is_some());
    let text = "no volume of this disk has GRUB's configuration (/boot/grub/grub.cfg and the like)";
    if unread {
        chain.doubt("not-followed", format!("{text}, and not all are read"));
    } else {
        chain.broken("grub-config-absent", text);
    }
}

/// What lies at a sector.
fn where_is(volumes: &Volumes, sector: u64) -> String {
    let at = sector.saturating_mul(512);
    let inside = volumes.all.iter().find_map(|volume| {
        volume.partition.as_ref().filter(|partition| partition.range.contains(&at)).map(|partition| (volume, partition))
    });
    match inside {
        Some((volume, partition)) if partition.type_name == "BIOS boot" => {
            format!("{}, a BIOS boot partition", volume.name)
        }
        Some((volume, _)) => format!("inside of {}", volume.name),
        None => "outside of every partition".into(),
    }
}
