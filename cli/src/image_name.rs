//! `IMAGE[@GEN]`: which image, and which of its generations.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imgfmt::Error;
use imgfmt::format::identity::Identity;
use imgfmt::image::catalogue::GenerationEntry;
use imgfmt::image::{FolderStore, Generation, Image, OpenOptions};

use crate::exit::Failure;

/// An image and the wish for a generation, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageName {
    /// `NAME.hik`.
    pub(crate) path: PathBuf,
    /// What stood behind the last `@`: a generation, or a snapshot in a file of another format.
    pub(crate) generation: Option<String>,
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.generation.as_ref().map_or(Ok(()), |generation| write!(f, "@{generation}"))
    }
}

impl ImageName {
    /// Splits at the last `@`, unless the whole text is an existing path.
    pub(crate) fn parse(text: &str) -> Self {
        if !Path::new(text).exists()
            && let Some((path, generation)) = text.rsplit_once('@')
        {
            return Self { path: path.into(), generation: Some(generation.to_owned()) };
        }
        Self { path: text.into(), generation: None }
    }

    /// Says whether it names a hikae image, by its name.
    pub(crate) fn is_hikae(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "hik")
    }

    /// Where the identifiers of virtual disk files come from that show a disk of another format: from its place and the time of its last change.
    pub(crate) fn identity_of_file(&self) -> Identity {
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let changed = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        let seconds = changed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let snapshot = self.generation.as_deref().unwrap_or_default();
        Identity::of(&["file", &path.to_string_lossy(), snapshot], seconds.map_or(0, |seconds| seconds.as_secs()))
    }

    /// Opens the image; packs may also lie in `more` folders. Warnings about it go to stderr.
    pub(crate) fn open(&self, more: &[PathBuf]) -> Result<Arc<Image>, Failure> {
        self.open_with(more, &OpenOptions::default())
    }

    /// The same with options.
    pub(crate) fn open_with(&self, more: &[PathBuf], options: &OpenOptions) -> Result<Arc<Image>, Failure> {
        let image = self.open_quietly(more, options)?;
        tell_warnings(&image);
        Ok(image)
    }

    /// The same without a word.
    pub(crate) fn open_quietly(&self, more: &[PathBuf], options: &OpenOptions) -> Result<Arc<Image>, Failure> {
        Ok(Arc::new(Image::open(Arc::new(folder_store(&self.path, more)?), options)?))
    }

    /// The same for a command that takes no generation.
    pub(crate) fn open_whole(&self, more: &[PathBuf]) -> Result<Arc<Image>, Failure> {
        match &self.generation {
            None => self.open(more),
            Some(generation) => Err(Failure::WrongUse(format!(
                "this command looks at a whole image: leave out @{generation} behind {}",
                self.path.display()
            ))),
        }
    }

    /// Refuses to write over a pack of the image that is being read.
    pub(crate) fn guard_target(&self, more: &[PathBuf], target: &Path) -> Result<(), Failure> {
        if !folder_store(&self.path, more)?.has_pack(target)? {
            return Ok(());
        }
        Err(Failure::Refused(format!(
            "{} is a part of the image {}: writing there would destroy what is to be read",
            target.display(),
            self.path.display()
        )))
    }

    /// Opens the image and the generation that was asked for, the latest by default.
    pub(crate) fn open_generation(&self, more: &[PathBuf]) -> Result<Generation, Failure> {
        let image = self.open(more)?;
        let wish = self.generation.as_deref().unwrap_or("latest");
        let entry = choose(&image, wish)?;
        Ok(image.generation(entry.number)?)
    }
}

/// Says what is wrong with an image, on stderr.
pub(crate) fn tell_warnings(image: &Image) {
    for warning in image.warnings() {
        eprintln!("hikae: warning: {}", crate::text::printable(warning));
    }
}

/// The packs of an image by its path. A name that no image can have is wrong use.
pub(crate) fn folder_store(path: &Path, more: &[PathBuf]) -> Result<FolderStore, Failure> {
    FolderStore::new(path, more).map_err(|error| match error {
        Error::Refused(reason) => Failure::WrongUse(reason),
        error => error.into(),
    })
}

/// Finds the generation by number, `latest`, `~N`, folder name or a prefix of it, date or time, or age.
pub(crate) fn choose(image: &Image, wish: &str) -> Result<GenerationEntry, Failure> {
    let all = image.generations();
    let none = || Error::NotFound(format!("{} has no generation yet", image.store().name(0)));
    let last = all.last().ok_or_else(none)?;
    if wish == "latest" || wish.is_empty() {
        return Ok(*last);
    }
    let unknown = || Failure::from(Error::NotFound(format!("there is no generation {wish:?}: see hikae list")));
    if let Some(back) = wish.strip_prefix('~') {
        let back: usize = back.parse().map_err(|_| unknown())?;
        return all.iter().rev().nth(back).copied().ok_or_else(unknown);
    }
    if let Ok(number) = wish.parse::<u32>() {
        return all.iter().find(|entry| entry.number == number).copied().ok_or_else(unknown);
    }
    let time = time_of(wish);
    if let Some(time) = time {
        return all.iter().rfind(|entry| entry.created <= time).copied().ok_or_else(unknown);
    }
    let matching =
        |entry: &&GenerationEntry| image.record(entry).is_ok_and(|record| record.folder_name().starts_with(wish));
    let found: Vec<_> = all.iter().filter(matching).collect();
    match found.as_slice() {
        [one] => Ok(**one),
        [] => Err(unknown()),
        _ => Err(Failure::WrongUse(format!("{wish:?} names more than one generation"))),
    }
}

/// The last second that a date, a time or an age means, in seconds since 1970.
pub(crate) fn time_of(wish: &str) -> Option<u64> {
    let seconds = |time: jiff::Timestamp| u64::try_from(time.as_second()).ok();
    if let Ok(time) = wish.parse::<jiff::Timestamp>() {
        return seconds(time);
    }
    // The names of generations are in UTC, so a time without a zone is too.
    if wish.contains([':', 'T', 't', ' ']) {
        let time = wish.parse::<jiff::civil::DateTime>().ok()?;
        return seconds(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp());
    }
    if let Ok(date) = wish.parse::<jiff::civil::Date>() {
        // All of that day.
        let end = date.tomorrow().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        return seconds(end).map(|end| end.saturating_sub(1));
    }
    let (number, unit) = wish.split_at(wish.len().checked_sub(1)?);
    let unit = match unit {
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    let age = number.parse::<u64>().ok()?.checked_mul(unit)?;
    seconds(jiff::Timestamp::now())?.checked_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_at_splits() {
        let name = ImageName::parse("/no/such/me@home.hik@~1");
        assert_eq!(name, ImageName { path: "/no/such/me@home.hik".into(), generation: Some("~1".into()) });
        assert_eq!(ImageName::parse("/no/such.hik").generation, None);
    }

    #[test]
    fn a_date_means_its_whole_day() {
        assert_eq!(time_of("1970-01-02"), Some(2 * 86_400 - 1));
        assert_eq!(time_of("1970-01-02T00:00:00Z"), Some(86_400));
        assert_eq!(time_of("1970-01-02T00:00:05"), Some(86_405));
        assert_eq!(time_of("1970-01-02 00:01"), Some(86_460));
        assert_eq!(time_of("1970-01-02T01:00+01:00"), Some(86_400));
        assert_eq!(time_of("banana"), None);
        assert!(time_of("7d").is_some());
    }
}
