//! The report of a boot test: JSON and a picture beside the image, and a line in its verdicts.

use std::path::{Path, PathBuf};

use imgfmt::image::Image;
use imgfmt::image::verdict::{BootVerdict, Verdicts};
use serde_json::{Value, json};

use crate::boot::evidence::Decision;
use crate::boot::machine::Options;
use crate::boot::phrases::Reading;
use crate::boot::start::Found;
use crate::boot::watch::Seen;
use crate::counted::Counts;
use crate::exit::Failure;
use crate::image_name::ImageName;

/// Lines of screen and serial port that a report keeps.
const LINES: usize = 40;

/// A machine that was watched, and how it was made.
pub(crate) struct Tested<'a> {
    /// What was seen of it.
    pub(crate) seen: &'a Seen,
    /// What it was.
    pub(crate) options: &'a Options,
    /// Why it was started by that firmware.
    pub(crate) found: &'a Found,
    /// How its instructions ran.
    pub(crate) accelerator: &'a str,
    /// What it read of the disk.
    pub(crate) counts: Counts,
}

impl Tested<'_> {
    /// The report.
    pub(crate) fn json(&self) -> Value {
        let Decision { outcome, evidence, reason } = &self.seen.decision;
        let screen =
            self.seen.screen.as_ref().map(
                |screen| json!({"recognised": screen.reading == Reading::Recognised, "lines": ends(&screen.text)}),
            );
        json!({
            "verdict": outcome.name(),
            "boots": outcome.boots(),
            "evidence": evidence.name(),
            "reason": reason,
            "seconds": self.seen.took.as_secs_f64(),
            "firmware": self.options.firmware.to_string(),
            "firmware_reason": self.found.why,
            "doubts": self.found.doubts,
            "accelerator": self.accelerator,
            "bus": format!("{:?}", self.options.bus).to_lowercase(),
            "memory": self.options.memory,
            "cpus": self.options.cpus,
            "read": self.counts.read,
            "decoded": self.counts.decoded,
            "screen": screen,
            "serial": ends(&self.seen.serial),
        })
    }

    /// What the guest said last: on the screen, else on the serial port.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        let screen = self.seen.screen.as_ref().map(|screen| ends(&screen.text)).unwrap_or_default();
        if screen.is_empty() { ends(&self.seen.serial) } else { screen }
    }
}

/// The name of a file for what is told of a device whose path has none, as on Windows (`\\.\PhysicalDrive1`, `\\.\E:`).
fn name_of_device(path: &str) -> String {
    path.rsplit(['/', '\\']).next().unwrap_or_default().replace(':', "")
}

/// The last lines of a text that are not empty.
fn ends(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().to_vec()
}

/// Where the report of a disk goes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    stem: String,
}

impl Place {
    /// Beside the image, or into `folder`. A device is no file to put anything beside: its report goes into the current folder.
    pub(crate) fn new(name: &ImageName, generation: Option<u32>, folder: Option<&Path>) -> Self {
        let beside = match std::fs::metadata(&name.path) {
            Ok(found) if found.is_file() => name.path.parent().map(Path::to_owned).unwrap_or_default(),
            _ => PathBuf::new(),
        };
        let file = match name.path.file_name() {
            Some(file) => file.to_string_lossy().into_owned(),
            None => name_of_device(&name.path.to_string_lossy()),
        };
        let part = match (generation, &name.generation) {
            (Some(number), _) => format!("-{number}"),
            (None, Some(snapshot)) => {
                let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                format!("-{}", snapshot.chars().map(plain).collect::<String>())
            }
            (None, None) => String::new(),
        };
        Self { folder: folder.map_or(beside, Path::to_owned), stem: format!("{file}.boot{part}") }
    }

    /// The JSON file.
    pub(crate) fn report(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.stem))
    }

    /// The picture.
    pub(crate) fn picture(&self) -> PathBuf {
        self.folder.join(format!("{}.png", self.stem))
    }

    /// Writes both; a picture of an earlier test goes where this one has none.
    pub(crate) fn write(&self, report: &Value, picture: Option<&[u8]>) -> Result<(), Failure> {
        match picture {
            Some(picture) => replace(&self.picture(), picture)?,
            None => drop(std::fs::remove_file(self.picture())),
        }
        replace(&self.report(), format!("{report:#}\n").as_bytes())
    }
}

/// Writes a file that is whole or not there.
fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let written = std::fs::write(&temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        Failure::Failed(format!("cannot write {}: {error}; --out names another folder for the report", path.display()))
    })
}

/// Records a test in the side file that `list` shows. Says whether that worked: the file is derived, so a folder that cannot be written loses nothing.
pub(crate) fn record(image: &Image, generation: u32, verdict: BootVerdict) -> bool {
    let mut verdicts = Verdicts::read(&**image.store(), image.id());
    verdicts.boots.insert(generation, verdict);
    verdicts.write(&**image.store()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_generations_and_snapshots_have_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hik");
        std::fs::write(&path, b"").unwrap();
        let name =
            |generation: Option<&str>| ImageName { path: path.clone(), generation: generation.map(str::to_owned) };
        assert_eq!(Place::new(&name(None), Some(3), None).report(), folder.path().join("a.hik.boot-3.json"));
        assert_eq!(Place::new(&name(None), None, None).picture(), folder.path().join("a.hik.boot.png"));
        let hostile = Place::new(&name(Some("../../x")), None, Some(Path::new("out")));
        assert_eq!(hostile.report(), Path::new("out/a.hik.boot-______x.json"));
        let device = ImageName { path: "/dev/null".into(), generation: None };
        assert_eq!(Place::new(&device, None, None).report(), Path::new("null.boot.json"));
        assert_eq!(name_of_device(r"\\.\PhysicalDrive1"), "PhysicalDrive1");
        assert_eq!(name_of_device(r"\\.\E:"), "E");
    }
}
