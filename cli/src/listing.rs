//! Nodes as people and programs read them: mode, time, JSON.

use imgfmt::filesystem::files::{Attributes, NodeId, NodeKind, Time};
use serde_json::json;

/// The kind in one word.
pub(crate) fn kind_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Folder => "folder",
        NodeKind::Symlink => "symlink",
        NodeKind::CharacterDevice { .. } => "character device",
        NodeKind::BlockDevice { .. } => "block device",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
    }
}

/// `drwxr-xr-x`, as ls(1) shows it; the permissions are dashes where the filesystem has none.
pub(crate) fn mode_text(attributes: &Attributes) -> String {
    let kind = match attributes.kind {
        NodeKind::File => '-',
        NodeKind::Folder => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::CharacterDevice { .. } => 'c',
        NodeKind::BlockDevice { .. } => 'b',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
    };
    let mut text = String::from(kind);
    let Some(permissions) = attributes.permissions else {
        return text + "---------";
    };
    let letters = ['r', 'w', 'x', 'r', 'w', 'x', 'r', 'w', 'x'];
    let special = [(2, 0o4000, 's', 'S'), (5, 0o2000, 's', 'S'), (8, 0o1000, 't', 'T')];
    for (place, letter) in letters.into_iter().enumerate() {
        let set = permissions & (0o400 >> place) != 0;
        let special = special.iter().find(|(at, bit, ..)| *at == place && permissions & bit != 0);
        text.push(match (special, set) {
            (Some((_, _, with_x, _)), true) => *with_x,
            (Some((_, _, _, without_x)), false) => *without_x,
            (None, true) => letter,
            (None, false) => '-',
        });
    }
    text
}

/// A time in UTC, to the second.
pub(crate) fn time_text(time: Time) -> String {
    jiff::Timestamp::from_second(time.seconds).map_or_else(|_| format!("{}s", time.seconds), |time| time.to_string())
}

/// A time in UTC with all its digits.
pub(crate) fn exact_time(time: Time) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    jiff::Timestamp::new(time.seconds, nanoseconds)
        .map_or_else(|_| format!("{}.{:09}s", time.seconds, time.nanoseconds), |time| time.to_string())
}

/// A node as JSON. Bytes of names that are no UTF-8 are replaced.
pub(crate) fn node_json(
    path: &str,
    node: NodeId,
    attributes: Option<&Attributes>,
    target: Option<&[u8]>,
) -> serde_json::Value {
    let Some(attributes) = attributes else {
        return json!({"path": path, "node": node.0, "error": "its attributes cannot be read"});
    };
    let time = |time: Option<Time>| time.map(exact_time);
    json!({
        "path": path,
        "node": node.0,
        "kind": kind_name(attributes.kind),
        "len": attributes.len,
        "allocated": attributes.allocated,
        "links": attributes.links,
        "permissions": attributes.permissions.map(|permissions| format!("{permissions:04o}")),
        "uid": attributes.uid,
        "gid": attributes.gid,
        "modified": time(attributes.modified),
        "accessed": time(attributes.accessed),
        "changed": time(attributes.changed),
        "created": time(attributes.created),
        "dos_attributes": attributes.dos_attributes,
        "target": target.map(String::from_utf8_lossy),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_like_those_of_ls() {
        let text = |kind, permissions| {
            mode_text(&Attributes {
                kind,
                len: 0,
                allocated: 0,
                links: 1,
                permissions,
                uid: None,
                gid: None,
                modified: None,
                accessed: None,
                changed: None,
                created: None,
                dos_attributes: None,
            })
        };
        assert_eq!(text(NodeKind::Folder, Some(0o1777)), "drwxrwxrwt");
        assert_eq!(text(NodeKind::File, Some(0o4755)), "-rwsr-xr-x");
        assert_eq!(text(NodeKind::File, Some(0o2644)), "-rw-r-Sr--");
        assert_eq!(text(NodeKind::Symlink, None), "l---------");
    }

    #[test]
    fn times_before_1970_and_with_all_digits() {
        assert_eq!(time_text(Time { seconds: -1, nanoseconds: 0 }), "1969-12-31T23:59:59Z");
        assert_eq!(exact_time(Time { seconds: 0, nanoseconds: 100 }), "1970-01-01T00:00:00.0000001Z");
    }
}
