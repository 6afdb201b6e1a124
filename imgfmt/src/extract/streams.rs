//! Named streams: beside their file, as its attributes, or left out.

use std::ffi::OsString;
use std::fs::File;
use std::sync::Arc;

use crate::engine::Cancel;
use crate::error::{Error, Result, full_message};
use crate::extract::copy::{Failure, Hands, copy_range, holds};
use crate::extract::folder::{Folder, NewFile};
use crate::extract::metadata::Metadata;
use crate::extract::name::stream_file_name;
use crate::extract::{ExtractOptions, Streams};
use crate::filesystem::files::{Content, FileSystem, NodeId, NodeKind, Xattr};

/// Longest stream that becomes an extended attribute, in bytes: Linux takes no more.
const MAX_XATTR: u64 = 65_536;

/// What became of the streams of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptStreams {
    /// Streams that are not in the target.
    pub(crate) left_out: u64,
    /// A stream was written as a file.
    pub(crate) any_written: bool,
    /// Bytes of those that were.
    pub(crate) written: u64,
}

/// Whose streams they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamsOf<'a> {
    /// The file in the image.
    pub(crate) node: NodeId,
    /// What it becomes.
    pub(crate) name: &'a OsString,
    /// Where it is being written; `None` where it is there already.
    pub(crate) new: Option<&'a NewFile>,
}

/// Keeps the named streams of the file that becomes `name`, as the options say. Those that become attributes are added to `metadata`; what is not kept as
/// it was is added to `notes`, as phrases.
pub(crate) fn keep_streams(
    files: &dyn FileSystem,
    options: &ExtractOptions,
    folder: &Arc<Folder>,
    of: StreamsOf<'_>,
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) -> Result<KeptStreams> {
    let StreamsOf { node, name, new } = of;
    let streams = files.streams(node)?;
    let mut kept = KeptStreams::default();
    if options.streams == Streams::LeaveOut {
        kept.left_out = u64::try_from(streams.len()).unwrap_or(u64::MAX);
        return Ok(kept);
    }
    for stream in streams {
        let text = String::from_utf8_lossy(&stream.name).into_owned();
        let content = files.open(node, Some(&stream.name))?;
        if options.streams == Streams::AsXattrs {
            if content.len() > MAX_XATTR {
                notes.push(format!("stream {text} is too long for an extended attribute and was left out"));
                kept.left_out = kept.left_out.saturating_add(1);
                continue;
            }
            let mut value = vec![0; usize::try_from(content.len()).expect("at most MAX_XATTR")];
            content.read_at(&mut value, 0)?;
            metadata.xattrs.push(Xattr { name: [b"user.", stream.name.as_slice()].concat(), value });
            continue;
        }
        if let (Streams::AsStreams, Some(new)) = (options.streams, new) {
            match new.new_stream(&stream.name) {
                Ok(file) => {
                    fill(options, &file, &*content, folder, notes)?;
                    kept.written = kept.written.saturating_add(content.len());
                }
                // Filesystems other than NTFS have no streams.
                Err(error) => {
                    notes.push(format!("stream {text} cannot be had here and was left out: {}", full_message(&error)));
                    kept.left_out = kept.left_out.saturating_add(1);
                }
            }
            continue;
        }
        let Some((stream_name, phrase)) = stream_file_name(name, &stream.name) else {
            notes.push(format!("stream {text} has a name that is not safe to make here"));
            kept.left_out = kept.left_out.saturating_add(1);
            continue;
        };
        notes.extend(phrase);
        if options.update && is_there(folder, &stream_name, &*content)? {
            continue;
        }
        write(options, folder, &stream_name, &*content, metadata, notes)?;
        kept.any_written = true;
        kept.written = kept.written.saturating_add(content.len());
    }
    Ok(kept)
}

/// Says whether a file holds the content already. Streams have no times, so their bytes are compared.
fn is_there(folder: &Folder, name: &OsString, content: &dyn Content) -> Result<bool> {
    match folder.existing(name)? {
        Some(existing) if existing.kind == NodeKind::File && existing.len == content.len() => {
            holds(&folder.read_file(name)?, content, &mut Hands::default())
        }
        _ => Ok(false),
    }
}

fn write(
    options: &ExtractOptions,
    folder: &Arc<Folder>,
    name: &OsString,
    content: &dyn Content,
    of_file: &Metadata,
    notes: &mut Vec<String>,
) -> Result<()> {
    let new = folder.new_file()?;
    fill(options, &new.file, content, folder, notes)?;
    // Owner, rights and times are those of the file that it belongs to.
    notes.extend(new.apply(&Metadata { xattrs: Vec::new(), ..of_file.clone() }));
    new.finish(name)
}

fn fill(
    options: &ExtractOptions,
    file: &File,
    content: &dyn Content,
    folder: &Folder,
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut hands = Hands::default();
    match copy_range(content, file, 0..content.len(), &mut hands, options.salvage, &Cancel::default()) {
        Ok(unreadable) => notes.extend(unreadable),
        Err(Failure::Source(error) | Failure::Target(error)) => return Err(error),
    }
    file.set_len(content.len()).map_err(|error| Error::io("set the length of", folder.path(), error))
}
