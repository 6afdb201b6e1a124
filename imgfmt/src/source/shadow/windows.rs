//! Windows: shadow copies of the volumes of a disk, or of one volume.
//!
//! Nothing of this has run on a real Windows: the calls are tested against a stand-in for the service under Wine (docs/windows.md).

mod vss;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use windows_sys::core::GUID;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::platform::windows_names::{DevicePath, device_path, volume_name};
use crate::source::System;
use crate::source::device::windows::volumes::volumes;
use crate::source::file::FileDisk;
use crate::source::shadow::choice::{Known, Wanted, on_disk};
use crate::source::shadow::windows::vss::{Backup, Failed};
use crate::source::shadow::{ShadowCopies, ShadowCopy, codes};

/// How long another program that makes shadow copies is waited for.
const OTHERS_PATIENCE: Duration = Duration::from_secs(120);

/// Keeps shadow copies.
#[derive(Debug)]
pub struct Held {
    backup: Backup,
}

impl Held {
    pub(super) fn finish(self) {
        // The copies were read: what becomes of the programs' notes of it changes nothing for us.
        let _ = self.backup.complete();
    }
}

fn refused(what: &str, failed: Failed) -> Error {
    let Failed { call, code } = failed;
    Error::Refused(format!("no shadow copy of {what} could be made: {} ({call}: {code:#010x})", codes::meaning(code)))
}

impl System {
    /// Makes shadow copies of the volumes of a disk, or of a volume, all of one moment. `note` hears what is being done, which can take a minute.
    ///
    /// `None` for a file. Fails with [`Error::Refused`], which says why, where the service makes none, and for a volume that has no copy.
    pub fn shadow_copies(&self, source: &Path, note: &mut dyn FnMut(&str)) -> Result<Option<ShadowCopies>> {
        let wanted = match device_path(&source.to_string_lossy()) {
            None => return Ok(None),
            Some(DevicePath::Volume(path)) => {
                let name = volume_name(&path);
                vec![Wanted { name: name.clone(), path: name, range: 0..u64::MAX, mounted: true }]
            }
            Some(DevicePath::Disk(number)) => {
                let volumes = volumes()?;
                let paths: Vec<_> = volumes.iter().map(|volume| volume.path.to_string_lossy()).collect();
                let known = volumes.iter().zip(&paths).map(|(volume, path)| Known {
                    name: volume.name(),
                    path,
                    runs: &volume.runs,
                    mounted: !volume.places.is_empty(),
                });
                on_disk(number, &known.collect::<Vec<_>>())?
            }
        };
        let source = source.display().to_string();
        let Made { backup, chosen, without } = match make(&source, &wanted, note) {
            // The small volumes that Windows starts and repairs itself from have no space for the old state of what is written; hardly anything is.
            Err((_, failed)) if failed.code == codes::NO_SPACE && wanted.iter().any(|volume| !volume.mounted) => {
                note("there is no space for all of them: only those with a drive letter or folder get one");
                let mounted: Vec<_> = wanted.into_iter().filter(|volume| volume.mounted).collect();
                make(&source, &mounted, note)
            }
            made => made,
        }
        .map_err(|(what, failed)| refused(&what, failed))?;
        let warnings = writers(&backup);
        let mut copies = Vec::new();
        for (volume, id) in chosen {
            let device = backup.device(id).map_err(|failed| refused(&volume.name, failed))?;
            copies.push(open(volume, &device)?);
        }
        Ok(Some(ShadowCopies { copies, without, warnings, held: Held { backup } }))
    }
}

/// A backup that has made its copies.
struct Made {
    backup: Backup,
    /// The volumes with the ids of their copies.
    chosen: Vec<(Wanted, GUID)>,
    /// Mounted volumes that have none.
    without: Vec<String>,
}

/// Makes copies of those of the volumes that can have one. What could not be had, and why, where that fails.
fn make(source: &str, wanted: &[Wanted], note: &mut dyn FnMut(&str)) -> std::result::Result<Made, (String, Failed)> {
    let of_source = |failed| (source.to_owned(), failed);
    note("asking the programs of this machine to bring their files into order");
    let backup = Backup::begin().map_err(of_source)?;
    start_set(&backup, note).map_err(of_source)?;
    let (mut chosen, mut without) = (Vec::new(), Vec::new());
    for volume in wanted {
        match add(&backup, &volume.path).map_err(|failed| (volume.name.clone(), failed))? {
            Some(id) => chosen.push((volume.clone(), id)),
            None if volume.mounted => without.push(volume.name.clone()),
            None => {}
        }
    }
    if chosen.is_empty() {
        return Err(of_source(Failed { call: "IsVolumeSupported", code: codes::NOT_SUPPORTED }));
    }
    let names = chosen.iter().map(|(volume, _)| volume.name.as_str()).collect::<Vec<_>>().join(", ");
    note(&format!("making shadow copies of {names}"));
    match backup.make() {
        Ok(()) => Ok(Made { backup, chosen, without }),
        Err(failed) => Err((names, failed)),
    }
}

/// Opens the copy of a volume.
fn open(volume: Wanted, device: &Path) -> Result<ShadowCopy> {
    let sector_size = System::default().describe(device).ok().and_then(|device| device.logical_sector_size);
    let disk = FileDisk::open(device, sector_size.unwrap_or(512))?;
    let range = volume.range.start..volume.range.end.min(volume.range.start.saturating_add(disk.len()));
    Ok(ShadowCopy { volume: volume.name, range, disk: Arc::new(disk) })
}

/// Begins the set, when no other program is making one.
fn start_set(backup: &Backup, note: &mut dyn FnMut(&str)) -> std::result::Result<(), Failed> {
    let started = Instant::now();
    let mut told = false;
    loop {
        match backup.start_set() {
            Err(failed) if failed.code == codes::IN_PROGRESS && started.elapsed() < OTHERS_PATIENCE => {
                if !std::mem::replace(&mut told, true) {
                    note("another program is making shadow copies: waiting until it is done");
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            done => return done,
        }
    }
}

/// Adds a volume to the set. `None` where its filesystem has no copies.
fn add(backup: &Backup, volume: &str) -> std::result::Result<Option<GUID>, Failed> {
    let has_none = |code| matches!(code, codes::NOT_SUPPORTED | codes::NOT_SUPPORTED_BY_PROVIDER);
    match backup.supports(volume) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(failed) if has_none(failed.code) => return Ok(None),
        Err(failed) => return Err(failed),
    }
    match backup.add(volume) {
        Ok(id) => Ok(Some(id)),
        Err(failed) if has_none(failed.code) => Ok(None),
        Err(failed) => Err(failed),
    }
}

/// What the user should know of programs that did not bring their files into order.
fn writers(backup: &Backup) -> Vec<String> {
    match backup.writers() {
        Ok(writers) => writers
            .into_iter()
            .filter(|writer| codes::has_failed(writer.state))
            .map(|writer| {
                format!(
                    "{} did not bring its files into order before the shadow copy, so they are as after a power cut: {} ({:#010x})",
                    writer.name,
                    codes::writer_meaning(writer.failure),
                    writer.failure
                )
            })
            .collect(),
        Err(Failed { call, code }) => {
            vec![format!("whether programs brought their files into order before the shadow copy is not known ({call}: {code:#010x})")]
        }
    }
}
