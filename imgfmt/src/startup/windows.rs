//! From the loaders of Windows to a system: bootmgr with its store, NTLDR with boot.ini, and what the system expects of its disk.

use crate::error::Result;
use crate::startup::bcd::{self, Device, Object, Store};
use crate::startup::boot_ini::{ArcDisk, ArcPath, BootIni, parse};
use crate::startup::chain::Chain;
use crate::startup::hive::{Hive, number, strings};
use crate::startup::linux::{Weight, check_file};
use crate::startup::mounted_devices;
use crate::startup::volumes::{Volume, Volumes};

/// The store of the boot manager for a BIOS.
pub(super) const BIOS_STORE: &str = "/Boot/BCD";
/// The store of the boot manager for UEFI.
pub(super) const EFI_STORE: &str = "/EFI/Microsoft/Boot/BCD";
/// Entries of a menu that are checked.
const MAX_ENTRIES: usize = 100;

/// Opens a hive in a volume; the path is as it was found.
pub(super) fn open_hive(volume: &Volume, path: &str) -> Result<Option<(crate::startup::volumes::Found, Hive)>> {
    let Some((found, content)) = volume.open(path)? else { return Ok(None) };
    Ok(Some((found, Hive::open(content)?)))
}

/// Follows the store of a boot manager that lies in volume `index`.
pub(super) fn follow_store(chain: &mut Chain, volumes: &Volumes, index: usize, path: &str) {
    let volume = volumes.get(index);
    let Some(opened) = chain.read(&format!("the BCD store {path} in {}", volume.name), open_hive(volume, path)) else {
        return;
    };
    let Some((found, hive)) = opened else {
        chain.broken("bcd-absent", format!("the boot manager's store {path} is absent from {}", volume.name));
        return;
    };
    let Some(store) = chain.read(&format!("the BCD store {} in {}", found.path, volume.name), Store::read(&hive))
    else {
        return;
    };
    let what = format!("the BCD store {} in {}", found.path, volume.name);
    chain.step(format!("the boot manager reads {what}"));
    if store.dirty {
        chain.note("hive-dirty", format!("the last write to {what} was not finished: its log may hold more"));
    }
    let Some(manager) = store.object(bcd::BOOT_MANAGER) else {
        chain.broken("bcd-empty", format!("{what} has no object of the boot manager"));
        return;
    };
    let mut ids = manager.list(bcd::DISPLAY_ORDER);
    let default = manager.text(bcd::DEFAULT_OBJECT).or_else(|| ids.first().cloned());
    let Some(default) = default else {
        chain.broken("bcd-empty", format!("{what} names no system to start"));
        return;
    };
    ids.retain(|id| !id.eq_ignore_ascii_case(&default));
    follow_object(chain, volumes, index, &store, &default, &what, Weight::Default);
    for id in ids.iter().take(MAX_ENTRIES) {
        follow_object(chain, volumes, index, &store, id, &what, Weight::Other);
    }
}

/// The volume of a device element, or a finding.
fn volume_of(
    chain: &mut Chain,
    volumes: &Volumes,
    own: usize,
    device: Option<Device>,
    who: &str,
    weight: Weight,
) -> Option<usize> {
    match device {
        Some(Device::Boot) => Some(own),
        Some(Device::Partition(identity)) => {
            let found = identity.find(volumes);
            if found.is_none() {
                let text = format!("{who} names a partition that is not on this disk: {identity}");
                weight.find(chain, "bcd-partition-absent", text);
            }
            found
        }
        Some(Device::Other(_)) | None => {
            if weight == Weight::Default {
                chain.doubt("not-followed", format!("{who} names a device that is no partition: it is not followed"));
            }
            None
        }
    }
}

fn follow_object(
    chain: &mut Chain,
    volumes: &Volumes,
    own: usize,
    store: &Store,
    id: &str,
    what: &str,
    weight: Weight,
) {
    let Some(object) = store.object(id) else {
        weight.find(chain, "bcd-object-absent", format!("{what} names the object {id}, and does not have it"));
        return;
    };
    let title = object.text(bcd::DESCRIPTION).unwrap_or_default();
    let who = format!("{id} ({title:?}) of {what}");
    let device = object.device(bcd::APPLICATION_DEVICE);
    let Some(path) = object.text(bcd::APPLICATION_PATH).filter(|path| !path.is_empty()) else {
        weight.find(chain, "bcd-object-empty", format!("{who} names no program"));
        return;
    };
    let Some(at) = volume_of(chain, volumes, own, device, &format!("{who}, device,"), weight) else { return };
    if !check_file(chain, volumes.get(at), &path, "the loader", &who, weight) {
        return;
    }
    if weight == Weight::Default {
        chain.step(format!("{who} starts {path} in {}", volumes.get(at).name));
    }
    follow_system(chain, volumes, own, object, &who, weight);
}

fn follow_system(chain: &mut Chain, volumes: &Volumes, own: usize, object: &Object, who: &str, weight: Weight) {
    let Some(root) = object.text(bcd::SYSTEM_ROOT) else { return };
    let device = object.device(bcd::OS_DEVICE);
    let Some(at) = volume_of(chain, volumes, own, device, &format!("{who}, osdevice,"), weight) else { return };
    let volume = volumes.get(at);
    let kernel = format!("{root}\\system32\\ntoskrnl.exe");
    if check_file(chain, volume, &kernel, "the kernel", who, weight) && weight == Weight::Default {
        chain.step(format!("the system lies in {root} in {}", volume.name));
        check_registry(chain, volumes, at, &root, weight);
    }
}

/// Follows NTLDR, which lies in volume `index`.
pub(super) fn follow_ntldr(chain: &mut Chain, volumes: &Volumes, index: usize) {
    let volume = volumes.get(index);
    check_file(chain, volume, "/ntdetect.com", "the file", "NTLDR", Weight::Default);
    let Some(text) = chain.read(&format!("/boot.ini in {}", volume.name), volume.read_text("/boot.ini")) else {
        return;
    };
    let ini = match text {
        Some(text) => {
            chain.step(format!("NTLDR reads {} in {}", text.path, volume.name));
            parse(&text.bytes)
        }
        None => {
            let text =
                format!("/boot.ini is absent from {}: NTLDR tries \\WINDOWS on the first partition", volume.name);
            chain.doubt("boot-ini-absent", text);
            let first = ArcPath { disk: ArcDisk::Bios(0), partition: 1, folder: "\\WINDOWS".into(), line: 0 };
            BootIni { default: Some(first), systems: Vec::new() }
        }
    };
    let default = ini.default.clone().or_else(|| ini.systems.first().cloned());
    let Some(default) = default else {
        chain.broken("boot-ini-empty", format!("/boot.ini in {} names no system", volume.name));
        return;
    };
    let same = |a: &ArcPath| {
        a.folder.eq_ignore_ascii_case(&default.folder) && a.partition == default.partition && a.disk == default.disk
    };
    follow_arc(chain, volumes, &default, Weight::Default);
    for other in ini.systems.iter().filter(|other| !same(other)).take(MAX_ENTRIES) {
        follow_arc(chain, volumes, other, Weight::Other);
    }
}

fn follow_arc(chain: &mut Chain, volumes: &Volumes, path: &ArcPath, weight: Weight) {
    let who = format!("line {} of boot.ini", path.line);
    match &path.disk {
        ArcDisk::Bios(0) => {}
        ArcDisk::Bios(disk) => {
            let text =
                format!("{who} names disk {disk} as the BIOS counts, which is another disk where this is the first");
            if weight == Weight::Default {
                chain.doubt("other-disk", text)
            } else {
                chain.note("other-disk", text)
            }
            return;
        }
        ArcDisk::Scsi => {
            let text =
                format!("{who} names its disk through a driver, scsi(...): on another controller it is not found");
            if weight == Weight::Default { chain.doubt("arc-scsi", text) } else { chain.note("arc-scsi", text) }
        }
        ArcDisk::Signature { signature, .. } => {
            if !volumes.layout.disk_id.eq_ignore_ascii_case(&format!("{signature:08x}")) {
                let own = &volumes.layout.disk_id;
                let text = format!("{who} names the disk with signature {signature:08x}, and this one has {own}");
                weight.find(chain, "boot-ini-signature", text);
                return;
            }
        }
    }
    let Some(index) = volumes.by_arc_number(path.partition) else {
        let text = format!("{who} names partition {}, and this disk has none with that number", path.partition);
        weight.find(chain, "boot-ini-partition-absent", text);
        return;
    };
    let volume = volumes.get(index);
    let kernel = format!("{}\\system32\\ntoskrnl.exe", path.folder);
    if check_file(chain, volume, &kernel, "the kernel", &who, weight) && weight == Weight::Default {
        chain.step(format!("{who} starts {} in {}", path.folder, volume.name));
        check_registry(chain, volumes, index, &path.folder, weight);
    }
}

/// What the registry of a system says of its disk: drive letters and page files.
fn check_registry(chain: &mut Chain, volumes: &Volumes, index: usize, folder: &str, weight: Weight) {
    let volume = volumes.get(index);
    let path = format!("{folder}\\system32\\config\\SYSTEM");
    if !check_file(chain, volume, &path, "the registry", "the system", weight) {
        return;
    }
    let what = format!("the registry {path} in {}", volume.name);
    let Some(Some((_, hive))) = chain.read(&what, open_hive(volume, &path)) else { return };
    if hive.is_dirty() {
        chain.note("hive-dirty", format!("the last write to {what} was not finished: its log may hold more"));
    }
    let letters = mounted_devices::read(&hive);
    let Some(letters) = chain.read(&what, letters) else { return };
    for device in letters.iter().filter(|device| device.letter().is_some()) {
        let letter = device.letter().unwrap_or('?');
        // The letter of the system's own volume is what Windows goes by in all its paths.
        if letter == 'C' && device.names.as_ref().is_some_and(|names| names.find(volumes) != Some(index)) {
            let names = device.names.as_ref().map(ToString::to_string).unwrap_or_default();
            let text = format!("{what} gives {letter}: to {names}, which is not {} as it is now", volume.name);
            chain.note("drive-letter", text);
        }
    }
    let Some(files) = chain.read(&what, page_files(&hive)) else { return };
    for file in files {
        let mut chars = file.chars();
        let letter = chars.next().unwrap_or('?').to_ascii_uppercase();
        let Some(path) = chars.as_str().strip_prefix(':') else { continue };
        let named = letters.iter().find(|device| device.letter() == Some(letter));
        let at = match named.and_then(|device| device.names.as_ref()).map(|names| names.find(volumes)) {
            Some(Some(at)) => at,
            // Another disk's, which has not come along.
            Some(None) if letter != 'C' => continue,
            _ => index,
        };
        let volume = volumes.get(at);
        match volume.has_file(path) {
            Ok(true) => {}
            Ok(false) => chain.doubt(
                "page-file-absent",
                format!("page file missing: the system expects {file}, and {path} is absent from {} (Windows NT and 2000 do not start without it)", volume.name),
            ),
            Err(error) => chain.doubt("unreadable", format!("{path} in {}: {}", volume.name, crate::error::full_message(&error))),
        }
    }
}

/// The page files that a system opens when it starts, as paths with drive letters.
fn page_files(hive: &Hive) -> Result<Vec<String>> {
    let Some(set) = current_control_set(hive)? else { return Ok(Vec::new()) };
    let path = [set.as_str(), "Control", "Session Manager", "Memory Management"];
    let Some(key) = hive.find(&path)? else { return Ok(Vec::new()) };
    let Some(value) = hive.value_of(&key, "PagingFiles")? else { return Ok(Vec::new()) };
    // Each is a path, its least and its greatest size.
    let paths = strings(&value.data).into_iter().filter_map(|line| {
        let path = line.split(' ').next()?.trim_start_matches("\\??\\").to_owned();
        // "?:" lets Windows choose.
        Some(path).filter(|path| !path.is_empty() && !path.starts_with('?'))
    });
    Ok(paths.take(16).collect())
}

fn current_control_set(hive: &Hive) -> Result<Option<String>> {
    let Some(select) = hive.find(&["Select"])? else { return Ok(None) };
    let current = hive.value_of(&select, "Current")?.as_ref().and_then(number);
    Ok(current.map(|current| format!("ControlSet{current:03}")))
}
