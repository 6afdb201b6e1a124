//! What names a disk, a partition or a filesystem: where it stands, what it says, and whether that is on this disk.

use std::ops::Range;

use crate::filesystem::files::NodeId;
use crate::partition::gpt::guid_text;
use crate::startup::volumes::Volumes;

/// What is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The disk with this signature in its MBR.
    DiskSignature(u32),
    /// The partition of a disk with an MBR that starts at byte `start`.
    MbrPartition {
        /// The disk's signature.
        signature: u32,
        /// First byte on the disk.
        start: u64,
    },
    /// The partition of a disk with a GPT.
    GptPartition {
        /// GUID of the disk, where it is said.
        disk: Option<[u8; 16]>,
        /// GUID of the partition.
        partition: [u8; 16],
    },
    /// A partition, as Linux names it: GPT partition GUID, or signature and number.
    PartUuid(String),
    /// A partition by its name in the GPT.
    PartLabel(String),
    /// A filesystem, swap area or encrypted volume by its UUID or serial number.
    Filesystem(String),
    /// A filesystem by its label.
    Label(String),
    /// The n-th partition of the n-th disk, as the firmware and the loader of Windows NT count.
    Arc {
        /// The disk, from 0 on.
        disk: u32,
        /// The partition, from 1 on.
        partition: u32,
    },
    /// A device by the name that it had on the machine: `/dev/sda1`.
    DeviceName(String),
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DiskSignature(signature) => write!(f, "disk signature {signature:08x}"),
            Self::MbrPartition { signature, start } => {
                write!(f, "disk signature {signature:08x}, partition at byte {start}")
            }
            Self::GptPartition { disk: Some(disk), partition } => {
                write!(f, "disk GUID {}, partition GUID {}", guid_text(disk), guid_text(partition))
            }
            Self::GptPartition { disk: None, partition } => write!(f, "partition GUID {}", guid_text(partition)),
            Self::PartUuid(value) => write!(f, "PARTUUID {value}"),
            Self::PartLabel(value) => write!(f, "PARTLABEL {value}"),
            Self::Filesystem(value) => write!(f, "UUID {value}"),
            Self::Label(value) => write!(f, "LABEL {value}"),
            Self::Arc { disk, partition } => write!(f, "disk {disk}, partition {partition} (by number)"),
            Self::DeviceName(name) => write!(f, "device {name}"),
        }
    }
}

impl Identity {
    /// The volume that it names on this disk.
    pub fn find(&self, volumes: &Volumes) -> Option<usize> {
        let own_signature = |signature: u32| volumes.layout.disk_id.eq_ignore_ascii_case(&format!("{signature:08x}"));
        match self {
            Self::DiskSignature(_) => None,
            Self::MbrPartition { signature, start } => {
                if own_signature(*signature) {
                    volumes.by_start(*start)
                } else {
                    None
                }
            }
            Self::GptPartition { disk, partition } => {
                let same = disk.is_none_or(|disk| volumes.layout.disk_id.eq_ignore_ascii_case(&guid_text(&disk)));
                if same { volumes.by_partuuid(&guid_text(partition)) } else { None }
            }
            Self::PartUuid(value) => volumes.by_partuuid(value),
            Self::PartLabel(value) => volumes.by_partlabel(value),
            Self::Filesystem(value) => volumes.by_uuid(value),
            Self::Label(value) => volumes.by_label(value),
            Self::Arc { partition, .. } => volumes.by_arc_number(*partition),
            Self::DeviceName(name) => device_name(name, volumes),
        }
    }

    /// What it names on this disk, in words.
    pub fn on_this_disk(&self, volumes: &Volumes) -> Option<String> {
        if let Self::DiskSignature(signature) = self {
            let own = volumes.layout.disk_id.eq_ignore_ascii_case(&format!("{signature:08x}"));
            return own.then(|| "this disk".into());
        }
        self.find(volumes).map(|index| volumes.get(index).name.clone())
    }
}

/// The volume that a name below /dev means, where the disk is the machine's first.
fn device_name(name: &str, volumes: &Volumes) -> Option<usize> {
    let name = name.strip_prefix("/dev/")?;
    if let Some(mapped) = name.strip_prefix("mapper/") {
        return volumes.by_mapped_name(mapped);
    }
    if let Some((group, volume)) = name.split_once('/') {
        return volumes.by_mapped_name(&format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--")));
    }
    let digits = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (disk, number) = name.split_at(digits);
    // sda1, hda1, vda1, xvda1; nvme0n1p1, mmcblk0p1.
    let lettered = ["sd", "hd", "vd", "xvd"].iter().any(|prefix| {
        disk.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase()))
    });
    let numbered = (disk.starts_with("nvme") || disk.starts_with("mmcblk")) && disk.ends_with('p');
    if lettered || numbered { volumes.by_number(number.parse().ok()?) } else { None }
}

/// How the bytes of a reference say what they name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `PARTUUID` as text: a GUID, or signature and number.
    PartUuidText,
    /// A disk signature as hexadecimal text.
    SignatureText,
    /// A disk signature, little-endian.
    Signature,
    /// A GUID of a partition, as a GPT holds it.
    PartitionGuid,
    /// A GUID of a disk, as a GPT holds it.
    DiskGuid,
}

/// Bytes of a file that name a disk or partition by what a new identity changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Where they lie in the file.
    pub range: Range<u64>,
    /// What they are.
    pub form: Form,
}

/// A reference to a disk, partition or filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The volume that holds the file: an index into [`Volumes::all`].
    pub volume: usize,
    /// Path of the file. Untrusted text.
    pub path: String,
    /// Node of the file.
    pub node: NodeId,
    /// Where in the file: "line 3", "object {..}, device".
    pub place: String,
    /// What is named.
    pub names: Identity,
    /// The bytes that a new identity would change; none where it changes nothing.
    pub spots: Vec<Spot>,
    /// Why the file must not be changed, where that is so.
    pub fixed: Option<&'static str>,
}

/// What a piece of text names, and where in the text the name lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// What is named.
    pub names: Identity,
    /// The bytes of the name.
    pub range: Range<usize>,
}

/// How names are written in configurations of Linux: a key, and what its value names.
type Key = (&'static str, fn(String) -> Identity);

const KEYS: &[Key] = &[
    ("PARTUUID=", Identity::PartUuid),
    ("UUID=", Identity::Filesystem),
    ("PARTLABEL=", Identity::PartLabel),
    ("LABEL=", Identity::Label),
    ("/dev/disk/by-partuuid/", Identity::PartUuid),
    ("/dev/disk/by-uuid/", Identity::Filesystem),
    ("/dev/disk/by-partlabel/", Identity::PartLabel),
    ("/dev/disk/by-label/", Identity::Label),
];

/// Says whether a byte can be part of a name; labels with others are written in escapes.
fn is_value(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'\\') || byte >= 0x80
}

/// Finds what a line of a configuration of Linux names: by `UUID=` and its like, by paths below /dev, and in `search` commands of GRUB.
pub fn mentions(line: &[u8]) -> Vec<Mention> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let rest = line.get(at..).unwrap_or_default();
        let boundary = at.checked_sub(1).and_then(|before| line.get(before)).is_none_or(|byte| !is_value(*byte));
        let key = KEYS.iter().find(|(key, _)| rest.starts_with(key.as_bytes())).filter(|_| boundary);
        if let Some((key, make)) = key {
            let start = at.saturating_add(key.len());
            let quoted = line.get(start).is_some_and(|byte| matches!(byte, b'"' | b'\''));
            let start = start.saturating_add(usize::from(quoted));
            let end = end_of(line, start);
            if end > start {
                found.push(Mention { names: make(text(line, start..end)), range: start..end });
            }
            at = end.max(at.saturating_add(1));
        } else if boundary && rest.starts_with(b"/dev/") && !rest.starts_with(b"/dev/disk/") {
            let mut end = end_of(line, at.saturating_add(5));
            while line.get(end) == Some(&b'/') {
                end = end_of(line, end.saturating_add(1));
            }
            let name = text(line, at..end);
            if is_disk_name(&name) {
                found.push(Mention { names: Identity::DeviceName(name), range: at..end });
            }
            at = end;
        } else {
            at = at.saturating_add(1);
        }
    }
    found.extend(grub_search(line));
    found
}

fn end_of(line: &[u8], start: usize) -> usize {
    let rest = line.get(start..).unwrap_or_default();
    start.saturating_add(rest.iter().position(|byte| !is_value(*byte)).unwrap_or(rest.len()))
}

fn text(line: &[u8], range: Range<usize>) -> String {
    String::from_utf8_lossy(line.get(range).unwrap_or_default()).into_owned()
}

/// Says whether a name below /dev is one of a disk or of something mapped.
fn is_disk_name(name: &str) -> bool {
    let below = name.strip_prefix("/dev/").unwrap_or(name);
    ["sd", "hd", "vd", "xvd", "nvme", "mmcblk", "mapper/", "md"].iter().any(|prefix| below.starts_with(prefix))
        && below != "mapper/"
}

/// What a `search` command of GRUB looks for: `search --fs-uuid ... UUID`, `search.fs_uuid UUID`.
///
/// Source: GRUB manual, "search".
fn grub_search(line: &[u8]) -> Option<Mention> {
    let words: Vec<Range<usize>> = words(line);
    let first = words.first().map(|range| text(line, range.clone()))?;
    let (make, value): (fn(String) -> Identity, _) = match first.as_str() {
        "search.fs_uuid" => (Identity::Filesystem, words.get(1)?.clone()),
        "search.fs_label" => (Identity::Label, words.get(1)?.clone()),
        "search" => {
            let options: Vec<String> = words.iter().map(|range| text(line, range.clone())).collect();
            let has = |names: [&str; 2]| options.iter().any(|option| names.contains(&option.as_str()));
            let make: fn(String) -> Identity = if has(["--fs-uuid", "-u"]) {
                Identity::Filesystem
            } else if has(["--label", "-l"]) {
                Identity::Label
            } else {
                return None;
            };
            (make, words.iter().rfind(|range| !text(line, (*range).clone()).starts_with('-'))?.clone())
        }
        _ => return None,
    };
    // Quotes are no part of the name.
    let quote = |at: usize| line.get(at).is_some_and(|byte| matches!(byte, b'"' | b'\''));
    let start = value.start.saturating_add(usize::from(quote(value.start)));
    let end = value.end.saturating_sub(usize::from(value.end > start && quote(value.end.saturating_sub(1))));
    let name = text(line, start..end);
    (end > start && name != "search" && !name.contains('$')).then(|| Mention { names: make(name), range: start..end })
}

/// The words of a line, apart at blanks.
fn words(line: &[u8]) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, byte) in line.iter().enumerate() {
        match (byte.is_ascii_whitespace(), start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                words.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    words.extend(start.map(|from| from..line.len()));
    words
}

/// The lines of a text, each with the place of its first byte.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0_usize;
    text.split(|byte| *byte == b'\n').map(move |line| {
        let start = at;
        at = at.saturating_add(line.len()).saturating_add(1);
        (start, line.strip_suffix(b"\r").unwrap_or(line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> Vec<String> {
        mentions(line.as_bytes()).iter().map(|mention| mention.names.to_string()).collect()
    }

    #[test]
    fn names_in_lines_of_configurations_are_found_where_they_lie() {
        let line = "PARTUUID=7111b007-02 /boot ext4 defaults 0 2";
        let found = &mentions(line.as_bytes())[0];
        assert_eq!(&line[found.range.clone()], "7111b007-02");
        assert_eq!(named("\tlinux /vmlinuz root=UUID=aa-bb ro resume=/dev/sda5"), ["UUID aa-bb", "device /dev/sda5"]);
        assert_eq!(named("UUID=\"AA-BB\" none swap"), ["UUID AA-BB"]);
        assert_eq!(named("x /dev/disk/by-partuuid/aabb none luks"), ["PARTUUID aabb"]);
        assert_eq!(named("/dev/mapper/vg-root / ext4"), ["device /dev/mapper/vg-root"]);
        assert_eq!(named("search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1 aa-bb"), ["UUID aa-bb"]);
        assert_eq!(named("  search.fs_uuid aa-bb root hd0,gpt2"), ["UUID aa-bb"]);
        assert_eq!(named("search --no-floppy --fs-uuid --set=root $uuid"), Vec::<String>::new());
        assert_eq!(named("tmpfs /tmp tmpfs size=/dev/null NOTUUID=x"), Vec::<String>::new());
    }

    #[test]
    fn lines_know_where_they_start() {
        let found: Vec<_> = lines(b"a\r\nbc\n\nd").collect();
        assert_eq!(found, [(0, &b"a"[..]), (3, b"bc"), (6, b""), (7, b"d")]);
    }
}
