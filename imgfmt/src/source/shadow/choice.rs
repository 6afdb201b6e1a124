//! Which volumes of a source get a shadow copy, and where on the source each one lies.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::platform::windows_names::volume_name;
use crate::source::device::replies::DiskRun;

/// A volume of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What people call it.
    pub(super) name: String,
    /// Its path as the system wants it, with a `\` at its end.
    pub(super) path: String,
    /// The bytes of the source where it lies; a volume that is the source itself has all of them.
    pub(super) range: Range<u64>,
    /// Whether it has a drive letter or folder, so that anybody may write to it.
    pub(super) mounted: bool,
}

/// What is known of a volume of a disk.
pub(super) struct Known<'a> {
    pub(super) name: String,
    /// With or without a `\` at its end.
    pub(super) path: &'a str,
    pub(super) runs: &'a [DiskRun],
    pub(super) mounted: bool,
}

/// The volumes of disk `number`, in the order of the disk. Refuses the disk where a volume has more than one piece: a copy of it is the whole volume,
/// which lies nowhere on the disk as it is.
pub(super) fn on_disk(number: u32, volumes: &[Known<'_>]) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for volume in volumes.iter().filter(|volume| volume.runs.iter().any(|run| run.disk == number)) {
        let [run] = volume.runs else {
            return Err(Error::Refused(format!(
                "{} lies in {} pieces, on this disk and perhaps on others (a dynamic disk, or a pool of storage), and its shadow copy is one: capture the volume instead of the disk",
                volume.name,
                volume.runs.len()
            )));
        };
        let range = run.start..run.start.saturating_add(run.len);
        if range.is_empty() {
            continue;
        }
        wanted.push(Wanted {
            name: volume.name.clone(),
            path: volume_name(volume.path),
            range,
            mounted: volume.mounted,
        });
    }
    wanted.sort_by_key(|volume| volume.range.start);
    let overlap = wanted.windows(2).find(|pair| matches!(pair, [a, b] if a.range.end > b.range.start));
    if let Some([a, b]) = overlap {
        return Err(Error::Refused(format!("{} and {} lie on the same bytes of the disk", a.name, b.name)));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(disk: u32, start: u64, len: u64) -> DiskRun {
        DiskRun { disk, start, len }
    }

    fn known<'a>(name: &str, runs: &'a [DiskRun]) -> Known<'a> {
        Known { name: name.into(), path: r"\\?\Volume{1}", runs, mounted: true }
    }

    #[test]
    fn the_volumes_of_a_disk_are_those_that_lie_on_it_alone() {
        let (data, system, other) = ([run(1, 500, 100)], [run(1, 100, 400)], [run(0, 0, 1000)]);
        let wanted = on_disk(1, &[known("D", &data), known("C", &system), known("E", &other)]).unwrap();
        let names: Vec<_> = wanted.iter().map(|volume| (volume.name.as_str(), volume.range.clone())).collect();
        assert_eq!(names, [("C", 100..500), ("D", 500..600)]);
    }

    #[test]
    fn a_volume_in_pieces_or_upon_another_is_refused() {
        let spanned = [run(1, 0, 100), run(2, 0, 100)];
        let said = on_disk(1, &[known("S", &spanned)]).unwrap_err().to_string();
        assert!(said.starts_with("S lies in 2 pieces"), "{said}");
        assert!(on_disk(3, &[known("S", &spanned)]).unwrap().is_empty());
        let (a, b) = ([run(1, 0, 100)], [run(1, 99, 100)]);
        assert!(on_disk(1, &[known("A", &a), known("B", &b)]).is_err());
        let far = [run(1, u64::MAX, 5)];
        assert!(on_disk(1, &[known("F", &far)]).unwrap().is_empty());
    }
}
