//! The end of an extraction: hard links, removals, and the metadata of folders, which every file in them would change.

use std::ffi::OsString;
use std::sync::Arc;

use crate::engine::{Progress, Run};
use crate::error::{Error, Result, full_message};
use crate::extract::copy::Done;
use crate::extract::folder::Folder;
use crate::extract::metadata::Metadata;
use crate::extract::{Confirm, ExtractOptions, Extracted, is_fatal};

/// Folders within folders of the target that are removed.
const MAX_DEPTH: usize = 400;

/// Names from the target folder down to a folder, and a name in it.
type Spot = (Vec<OsString>, OsString);

/// What is left for the end.
#[derive(Default)]
pub(crate) struct Later {
    /// What the walk met.
    pub(crate) report: Extracted,
    /// Folders, outermost first: their place, their path in the image, what they get.
    pub(crate) folders: Vec<(Vec<OsString>, String, Metadata)>,
    /// First name, further name, path in the image of the further one.
    pub(crate) hard_links: Vec<(Spot, Spot, String)>,
    /// Names that the source does not have, with whether each is a folder.
    extra: Vec<(Spot, bool)>,
}

impl Later {
    /// Counts what was done.
    pub(crate) fn take(&mut self, done: Done, progress: &dyn Progress) -> Result<()> {
        let report = &mut self.report;
        match done {
            Done::File { path, bytes, unchanged, streams_left_out, notes } => {
                if unchanged {
                    report.unchanged = report.unchanged.saturating_add(1);
                } else {
                    report.files = report.files.saturating_add(1);
                }
                report.bytes = report.bytes.saturating_add(bytes);
                report.streams_left_out = report.streams_left_out.saturating_add(streams_left_out);
                notes.into_iter().for_each(|note| report.note(&path, note));
                progress.advance(bytes);
            }
            Done::Other { path, notes } => {
                report.links = report.links.saturating_add(1);
                notes.into_iter().for_each(|note| report.note(&path, note));
            }
            Done::Piece { bytes, last } => {
                progress.advance(bytes);
                // All earlier pieces were taken before this one, so nobody else holds the file.
                if let Some(file) = last.and_then(Arc::into_inner) {
                    let done = file.finish()?;
                    // Its bytes were told as they came.
                    return self.take(done, &crate::engine::Quiet);
                }
            }
            Done::Problem { path, what } => report.problem(&path, what),
        }
        Ok(())
    }

    /// Remembers what the source does not have in a folder of the target.
    pub(crate) fn keep_extra(&mut self, place: &[OsString], mut extra: Vec<(OsString, bool)>) {
        extra.sort_unstable();
        self.extra.extend(extra.into_iter().map(|(name, is_folder)| ((place.to_vec(), name), is_folder)));
    }
}

fn open(root: &Arc<Folder>, place: &[OsString]) -> Result<Arc<Folder>> {
    let mut folder = Arc::clone(root);
    for name in place {
        folder = Arc::new(folder.subfolder(name)?);
    }
    Ok(folder)
}

/// Does all of it and returns the report.
pub(crate) fn finish(
    root: &Arc<Folder>,
    later: Later,
    options: &ExtractOptions,
    confirm: &Confirm<'_>,
    run: Run<'_>,
) -> Result<Extracted> {
    let Later { mut report, folders, hard_links, extra } = later;
    for ((first_place, first_name), (place, name), path) in hard_links {
        run.cancel.check()?;
        let linked =
            open(root, &first_place).and_then(|first| open(root, &place)?.hard_link(&first, &first_name, &name));
        match linked {
            Ok(()) => report.links = report.links.saturating_add(1),
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => report.problem(&path, full_message(&error)),
        }
    }
    if options.delete {
        remove_extra(root, extra, confirm, &mut report, run)?;
    }
    for (place, path, metadata) in folders.into_iter().rev() {
        run.cancel.check()?;
        match open(root, &place) {
            Ok(folder) => folder.apply(&metadata).into_iter().for_each(|note| report.note(&path, note)),
            Err(error) => report.problem(&path, full_message(&error)),
        }
    }
    Ok(report)
}

/// Removes what the source does not have, unless anything of the source could not be read: what is missing may then only seem to be.
fn remove_extra(
    root: &Arc<Folder>,
    extra: Vec<(Spot, bool)>,
    confirm: &Confirm<'_>,
    report: &mut Extracted,
    run: Run<'_>,
) -> Result<()> {
    let shown = |(place, name): &Spot| {
        let mut path = root.path().to_owned();
        path.extend(place);
        path.join(name).display().to_string()
    };
    if extra.is_empty() {
        return Ok(());
    }
    if report.problem_count > 0 {
        report.problem(
            "",
            format!("nothing was removed ({} names would have been), since not all was read", extra.len()),
        );
        return Ok(());
    }
    let names: Vec<String> = extra.iter().map(|(spot, _)| shown(spot)).collect();
    if !confirm(&names) {
        return Ok(());
    }
    for ((spot, is_folder), shown) in extra.into_iter().zip(names) {
        run.cancel.check()?;
        let (place, name) = spot;
        match open(root, &place).and_then(|folder| remove(&folder, &name, is_folder, 0)) {
            Ok(count) => report.removed = report.removed.saturating_add(count),
            Err(error) => report.problem(&shown, full_message(&error)),
        }
    }
    Ok(())
}

fn remove(folder: &Folder, name: &OsString, is_folder: bool, depth: usize) -> Result<u64> {
    let mut count = 1_u64;
    if is_folder {
        if depth > MAX_DEPTH {
            return Err(Error::Refused(format!("{} holds too many folders within folders", folder.path().display())));
        }
        let inner = folder.subfolder(name)?;
        for (name, is_folder) in inner.entries()? {
            count = count.saturating_add(remove(&inner, &name, is_folder, depth.saturating_add(1))?);
        }
    }
    folder.remove(name, is_folder)?;
    Ok(count)
}
