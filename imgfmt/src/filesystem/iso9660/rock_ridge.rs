//! The system use area of a record: entries of the sharing protocol, and what Rock Ridge says in them.

use crate::bytes::{array, le32, u8_at};
use crate::error::{Error, Result};
use crate::filesystem::files::{NodeKind, Time};
use crate::filesystem::iso9660::record::{long_date, short_date};

/// Areas of one record that are read, one behind the other.
const MAX_AREAS: usize = 64;
/// Bytes of the longest continuation area.
const MAX_AREA: u32 = 32 << 10;

/// What Rock Ridge says of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RockRidge {
    /// Unix mode, with the type.
    pub mode: Option<u32>,
    /// Hard links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The two numbers of a device.
    pub device: (u32, u32),
    /// Creation.
    pub created: Option<Time>,
    /// Last change of the content.
    pub modified: Option<Time>,
    /// Last access.
    pub accessed: Option<Time>,
    /// Last change of the attributes.
    pub changed: Option<Time>,
    /// Name.
    pub name: Option<Vec<u8>>,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// Block of the directory that was moved away from here.
    pub child: Option<u32>,
    /// It is a directory that was moved to here, and is shown elsewhere.
    pub relocated: bool,
    /// What keeps its content from being read.
    pub unsupported: Option<&'static str>,
}

/// A part of the image that the system use area goes on in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Block.
    pub block: u32,
    /// Byte in the block.
    pub offset: u32,
    /// Bytes; at most 32 KiB.
    pub len: u32,
}

/// Reads a part of the image.
pub type Fetch<'a> = &'a dyn Fn(Continuation) -> Result<Vec<u8>>;

/// Bytes to skip at the start of every system use area but this one, which is that of the root directory itself. `None` where the sharing
/// protocol is not used.
///
/// Source: SUSP 5.3 ("SP").
pub fn skip(root: &[u8]) -> Option<usize> {
    (array(root, 0)? == *b"SP\x07\x01\xbe\xef").then(|| u8_at(root, 6).map(usize::from))?
}

impl RockRidge {
    /// Reads all that the area of a record at byte `place` says, following its continuations.
    pub fn read(area: &[u8], place: u64, fetch: Fetch<'_>) -> Result<Self> {
        let mut found = Builder::default();
        let mut next = found.area(area);
        for _ in 0..MAX_AREAS {
            let Some(continuation) = next else { return Ok(found.extra) };
            if continuation.len > MAX_AREA {
                return Err(Error::corrupt("ISO 9660 directory record", place, "its continuation is too long"));
            }
            next = found.area(&fetch(continuation)?);
        }
        Err(Error::corrupt("ISO 9660 directory record", place, "its continuations do not end"))
    }

    /// Where it points, if it is a symbolic link.
    pub fn link_target(&self) -> Option<&Vec<u8>> {
        self.target.as_ref().filter(|_| self.kind() == Some(NodeKind::Symlink))
    }

    /// What the mode says it is.
    pub fn kind(&self) -> Option<NodeKind> {
        let (major, minor) = self.device;
        Some(match self.mode? & 0o170_000 {
            0o100_000 => NodeKind::File,
            0o040_000 => NodeKind::Folder,
            0o120_000 => NodeKind::Symlink,
            0o020_000 => NodeKind::CharacterDevice { major, minor },
            0o060_000 => NodeKind::BlockDevice { major, minor },
            0o010_000 => NodeKind::Fifo,
            0o140_000 => NodeKind::Socket,
            _ => return None,
        })
    }
}

/// Puts together what comes in pieces.
#[derive(Default)]
struct Builder {
    extra: RockRidge,
    /// Whether the next component of the link is a new name.
    separate: bool,
}

impl Builder {
    /// Takes one area; returns where it goes on.
    fn area(&mut self, area: &[u8]) -> Option<Continuation> {
        let mut rest = area;
        let mut next = None;
        while let Some([a, b, len, _version]) = array::<4>(rest, 0) {
            let len = usize::from(len);
            let Some(entry) = rest.get(..len).filter(|_| len >= 4) else { break };
            rest = rest.get(len..).unwrap_or_default();
            match &[a, b] {
                b"ST" => break,
                b"CE" => {
                    if let (Some(block), Some(offset), Some(len)) = (le32(entry, 4), le32(entry, 12), le32(entry, 20)) {
                        next = Some(Continuation { block, offset, len });
                    }
                }
                signature => {
                    // An entry that is too short says nothing.
                    let _ = self.entry(signature, entry);
                }
            }
        }
        next
    }

    /// Source: RRIP 4.1.
    fn entry(&mut self, signature: &[u8; 2], entry: &[u8]) -> Option<()> {
        let found = &mut self.extra;
        match signature {
            b"PX" => {
                let (mode, links) = (le32(entry, 4)?, le32(entry, 12)?);
                (found.uid, found.gid) = (le32(entry, 20)?, le32(entry, 28)?);
                (found.mode, found.links) = (Some(mode), links);
            }
            b"PN" => {
                let (high, low) = (le32(entry, 4)?, le32(entry, 12)?);
                // Either half a number each, or all of it in the low half.
                found.device = if high == 0 && low > 0xff { (low >> 8, low & 0xff) } else { (high, low) };
            }
            b"NM" if u8_at(entry, 4)? & 0x06 == 0 => {
                found.name.get_or_insert_default().extend_from_slice(entry.get(5..)?);
            }
            b"SL" => self.link(entry.get(5..)?),
            b"TF" => self.times(u8_at(entry, 4)?, entry.get(5..)?),
            b"CL" => found.child = Some(le32(entry, 4)?),
            b"RE" => found.relocated = true,
            b"ZF" => found.unsupported = Some("zisofs compression"),
            b"SF" => found.unsupported = Some("sparse files of Rock Ridge"),
            _ => {}
        }
        Some(())
    }

    /// Adds components of a link.
    fn link(&mut self, components: &[u8]) {
        let target = self.extra.target.get_or_insert_default();
        let mut rest = components;
        while let Some([flags, len]) = array::<2>(rest, 0) {
            let end = usize::from(len).saturating_add(2);
            let Some(content) = rest.get(2..end) else { return };
            rest = rest.get(end..).unwrap_or_default();
            if self.separate {
                target.push(b'/');
            }
            let (name, root) = match flags & 0x0e {
                0x02 => (&b"."[..], false),
                0x04 => (&b".."[..], false),
                0x08 => (&b"/"[..], true),
                _ => (content, false),
            };
            target.extend_from_slice(name);
            // Bit 0 says that the next component belongs to this name.
            self.separate = !root && flags & 1 == 0;
        }
    }

    /// Takes the times whose bits are set, in their order.
    fn times(&mut self, flags: u8, stored: &[u8]) {
        let len = if flags & 0x80 == 0 { 7 } else { 17 };
        let mut stamps = stored.chunks_exact(len);
        let found = &mut self.extra;
        let places = [&mut found.created, &mut found.modified, &mut found.accessed, &mut found.changed];
        for (bit, place) in places.into_iter().enumerate() {
            if flags & (1 << bit) != 0 {
                let Some(stamp) = stamps.next() else { return };
                *place = match len {
                    7 => array(stamp, 0).and_then(|stamp| short_date(&stamp)),
                    _ => array(stamp, 0).and_then(|stamp| long_date(&stamp)),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(signature: &[u8; 2], data: &[u8]) -> Vec<u8> {
        [signature, &[u8::try_from(data.len() + 4).unwrap(), 1][..], data].concat()
    }

    fn no_more(_: Continuation) -> Result<Vec<u8>> {
        panic!("there is no continuation")
    }

    #[test]
    fn names_and_links_come_in_pieces() {
        let area = [
            entry(b"NM", b"\x01a long "),
            entry(b"NM", b"\x00name"),
            // "/", "usr", "lo" and "cal", "..", "x".
            entry(b"SL", b"\x01\x08\x00\x00\x03usr\x01\x02lo"),
            entry(b"SL", b"\x00\x00\x03cal\x04\x00\x00\x01x"),
        ]
        .concat();
        let found = RockRidge::read(&area, 0, &no_more).unwrap();
        assert_eq!(found.name.as_deref(), Some(&b"a long name"[..]));
        assert_eq!(found.target.as_deref(), Some(&b"/usr/local/../x"[..]));
    }

    #[test]
    fn times_are_those_whose_bits_are_set() {
        let stamps = [[100, 1, 1, 0, 0, 0, 0], [100, 1, 2, 0, 0, 0, 0]].concat();
        let area = entry(b"TF", &[&[0x0a][..], &stamps].concat());
        let found = RockRidge::read(&area, 0, &no_more).unwrap();
        assert_eq!((found.created, found.accessed), (None, None));
        assert_eq!(found.modified.unwrap().seconds, 946_684_800);
        assert_eq!(found.changed.unwrap().seconds, 946_771_200);
    }

    #[test]
    fn continuations_that_do_not_end_are_refused() {
        let mut place = vec![0; 24];
        place[16] = 28;
        let area = entry(b"CE", &place);
        assert!(RockRidge::read(&area, 0, &|_| Ok(area.clone())).is_err());
        place[16..20].fill(0xff);
        assert!(RockRidge::read(&entry(b"CE", &place), 0, &no_more).is_err());
    }

    #[test]
    fn entries_that_are_cut_short_say_nothing() {
        for area in
            [&b"NM\x03\x01"[..], b"NM\x00\x01abcd", b"PX\x08\x01abcd", b"SL\x09\x01\x00\x00\x09ab", b"NM\xff\x01a"]
        {
            let found = RockRidge::read(area, 0, &no_more).unwrap();
            assert_eq!((found.mode, found.name), (None, None), "{area:?}");
        }
    }
}
