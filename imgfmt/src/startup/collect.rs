//! Finds everything on a disk that names disks, partitions or filesystems.

use crate::error::full_message;
use crate::startup::bcd::{self, Store};
use crate::startup::boot_ini::{ArcDisk, ArcPath, parse};
use crate::startup::grub::FOLDERS;
use crate::startup::hive::Hive;
use crate::startup::mounted_devices;
use crate::startup::reference::{Form, Identity, Reference, Spot, lines, mentions};
use crate::startup::volumes::{Found, Text, Volume, Volumes};
use crate::startup::windows::{BIOS_STORE, EFI_STORE, open_hive};

/// Text files of Linux that name filesystems.
const TEXTS: &[&str] = &[
    "/etc/fstab",
    "/etc/crypttab",
    "/etc/default/grub",
    "/etc/kernel/cmdline",
    "/etc/lilo.conf",
    "/syslinux.cfg",
    "/syslinux/syslinux.cfg",
    "/boot/syslinux/syslinux.cfg",
    "/extlinux.conf",
    "/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/extlinux/extlinux.conf",
];
/// Folders whose `.conf` files are entries of the Boot Loader Specification.
const ENTRIES: &[&str] = &["/loader/entries", "/boot/loader/entries"];
/// Folders of Windows, and the registry in them.
const SYSTEMS: &[&str] = &["/Windows/System32/config/SYSTEM", "/WINNT/system32/config/system"];
/// Most references of a disk that are listed.
const MAX_REFERENCES: usize = 10_000;
/// Entries of a folder that are read.
const MAX_FILES: usize = 500;

/// All references, and what could not be looked at.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) references: Vec<Reference>,
    pub(super) notes: Vec<String>,
}

/// Looks through all volumes.
pub(super) fn collect(volumes: &Volumes) -> Collected {
    let mut collected = Collected::default();
    for (index, volume) in volumes.all.iter().enumerate() {
        if volume.files().is_none() {
            if let Some(problem) = &volume.problem {
                let text = format!("{}: {problem}: what it names is not known", volume.name);
                collected.notes.push(text);
            } else if matches!(volume.content.as_str(), "LUKS" | "BitLocker") {
                let text = format!("{}: {} is not opened: what it names is not known", volume.name, volume.content);
                collected.notes.push(text);
            }
            continue;
        }
        for path in text_paths(volume) {
            match volume.read_text(&path) {
                Ok(Some(text)) => collected.text(index, &text),
                Ok(None) => {}
                Err(error) => collected.unread(volume, &path, &error),
            }
        }
        match volume.read_text("/boot.ini") {
            Ok(Some(text)) => collected.boot_ini(index, &text),
            Ok(None) => {}
            Err(error) => collected.unread(volume, "/boot.ini", &error),
        }
        for path in [BIOS_STORE, EFI_STORE].iter().chain(SYSTEMS) {
            match open_hive(volume, path) {
                Ok(Some((found, hive))) => {
                    let read = if SYSTEMS.contains(path) {
                        collected.registry(index, &found, &hive)
                    } else {
                        collected.store(index, &found, &hive)
                    };
                    if let Err(error) = read {
                        collected.unread(volume, path, &error);
                    }
                }
                Ok(None) => {}
                Err(error) => collected.unread(volume, path, &error),
            }
        }
    }
    collected
}

/// Paths of the text files of a volume that may name something.
fn text_paths(volume: &Volume) -> Vec<String> {
    let mut paths: Vec<String> = TEXTS.iter().map(|path| (*path).to_owned()).collect();
    for folder in FOLDERS {
        paths.extend(["grub.cfg", "grubenv", "custom.cfg"].map(|name| format!("{folder}/{name}")));
    }
    let mut add = |folder: &str, ending: &str| {
        let names = volume.names(folder).unwrap_or_default();
        let names = names.into_iter().filter(|name| name.ends_with(ending)).take(MAX_FILES);
        paths.extend(names.map(|name| format!("{folder}/{name}")));
    };
    for folder in ENTRIES {
        add(folder, ".conf");
    }
    let folders = volume.names("/EFI").unwrap_or_default();
    paths.extend(folders.into_iter().take(MAX_FILES).map(|folder| format!("/EFI/{folder}/grub.cfg")));
    paths
}

impl Collected {
    fn unread(&mut self, volume: &Volume, path: &str, error: &crate::Error) {
        self.notes.push(format!("{path} in {} cannot be read: {}", volume.name, full_message(error)));
    }

    fn push(&mut self, reference: Reference) {
        // Two paths can lead to one file.
        if self.references.len() < MAX_REFERENCES && !self.references.contains(&reference) {
            self.references.push(reference);
        }
    }

    fn text(&mut self, volume: usize, text: &Text) {
        for (number, (start, line)) in (1_usize..).zip(lines(&text.bytes)) {
            if line.trim_ascii_start().starts_with(b"#") {
                continue;
            }
            for mention in mentions(line) {
                let at = |offset: usize| u64::try_from(start.saturating_add(offset)).unwrap_or(u64::MAX);
                let range = at(mention.range.start)..at(mention.range.end);
                let is_partuuid = matches!(mention.names, Identity::PartUuid(_));
                let spots = if is_partuuid { vec![Spot { range, form: Form::PartUuidText }] } else { Vec::new() };
                self.push(Reference {
                    volume,
                    path: text.path.clone(),
                    node: text.node,
                    place: format!("line {number}"),
                    names: mention.names,
                    spots,
                    fixed: None,
                });
            }
        }
    }

    fn boot_ini(&mut self, volume: usize, text: &Text) {
        let ini = parse(&text.bytes);
        let all = ini.default.iter().chain(&ini.systems);
        for ArcPath { disk, partition, line, .. } in all {
            let (names, spots) = match disk {
                ArcDisk::Bios(disk) => (Identity::Arc { disk: *disk, partition: *partition }, Vec::new()),
                ArcDisk::Scsi => continue,
                ArcDisk::Signature { signature, digits } => {
                    let at = |offset: usize| u64::try_from(offset).unwrap_or(u64::MAX);
                    let spot = Spot { range: at(digits.start)..at(digits.end), form: Form::SignatureText };
                    (Identity::DiskSignature(*signature), vec![spot])
                }
            };
            let place = format!("line {line}");
            let (path, node) = (text.path.clone(), text.node);
            self.push(Reference { volume, path, node, place, names, spots, fixed: None });
        }
    }

    fn store(&mut self, volume: usize, found: &Found, hive: &Hive) -> crate::Result<()> {
        let store = Store::read(hive)?;
        for object in &store.objects {
            for element in &object.elements {
                for (names, spots) in bcd::partitions(element) {
                    self.push(Reference {
                        volume,
                        path: found.path.clone(),
                        node: found.node,
                        place: format!("object {}, element {:08x}", object.id, element.number),
                        names,
                        spots,
                        fixed: store.dirty.then_some(DIRTY),
                    });
                }
            }
        }
        Ok(())
    }

    fn registry(&mut self, volume: usize, found: &Found, hive: &Hive) -> crate::Result<()> {
        for device in mounted_devices::read(hive)? {
            let Some(names) = device.names else { continue };
            self.push(Reference {
                volume,
                path: found.path.clone(),
                node: found.node,
                place: format!("MountedDevices, {}", device.name),
                names,
                spots: device.spots,
                fixed: hive.is_dirty().then_some(DIRTY),
            });
        }
        Ok(())
    }
}

const DIRTY: &str = "the last write to the registry hive was not finished, and its log may hold more";
