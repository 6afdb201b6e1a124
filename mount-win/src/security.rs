//! Security descriptors: the parts of one that are asked for, and the one of files that have none.
//!
//! Source: [MS-DTYP] 2.4.2 (SID), 2.4.4 (ACE), 2.4.5 (ACL), 2.4.6 (security descriptor, self-relative), 2.4.7 (parts).

use imgfmt::bytes::{le16, le32};

/// `OWNER_SECURITY_INFORMATION`.
const OWNER: u32 = 1;
/// `GROUP_SECURITY_INFORMATION`.
const GROUP: u32 = 2;
/// `DACL_SECURITY_INFORMATION`.
const DACL: u32 = 4;
/// `SACL_SECURITY_INFORMATION`.
const SACL: u32 = 8;

/// `BACKUP_SECURITY_INFORMATION`: all parts.
const BACKUP: u32 = 0x0001_0000;
/// `LABEL_`, `ATTRIBUTE_`, `SCOPE_SECURITY_INFORMATION`, and the types of the entries of the SACL that each of them is.
const KINDS: [(u32, u8); 3] = [(0x10, 0x11), (0x20, 0x12), (0x40, 0x13)];

/// Bytes of the header.
const HEADER: usize = 20;
/// Control bits: self-relative, in one piece.
const SELF_RELATIVE: u16 = 0x8000;
/// Control bits that speak of the owner, the group, the DACL, the SACL.
const OF_OWNER: u16 = 0x0001;
const OF_GROUP: u16 = 0x0002;
const OF_DACL: u16 = 0x0004 | 0x0008 | 0x0100 | 0x0400 | 0x1000;
const OF_SACL: u16 = 0x0010 | 0x0020 | 0x0200 | 0x0800 | 0x2000;
/// `SE_DACL_PRESENT`.
const DACL_PRESENT: u16 = 0x0004;

/// A descriptor that lets everyone read, of the administrators: for a file of a filesystem without descriptors.
pub fn everyone_may_read(is_folder: bool) -> Vec<u8> {
    /// BUILTIN\Administrators, S-1-5-32-544.
    const ADMINISTRATORS: [u8; 16] = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
    /// Everyone, S-1-1-0.
    const EVERYONE: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    /// `FILE_GENERIC_READ | FILE_GENERIC_EXECUTE`.
    const MAY: u32 = 0x0012_00a9;
    // In folders, what is in them inherits it (object, container).
    let inheritance = if is_folder { 3 } else { 0 };
    // ACL of revision 2, 28 bytes, one entry; ACCESS_ALLOWED_ACE, 20 bytes.
    let mut acl = vec![2, 0, 28, 0, 1, 0, 0, 0, 0, inheritance, 20, 0];
    acl.extend(MAY.to_le_bytes());
    acl.extend(EVERYONE);
    assemble(DACL_PRESENT, [None, Some(&acl), Some(&ADMINISTRATORS), Some(&ADMINISTRATORS)])
}

/// The descriptor with the parts that `wanted` (a `SECURITY_INFORMATION`) names; `None` where the descriptor is damaged.
pub fn select(descriptor: &[u8], wanted: u32) -> Option<Vec<u8>> {
    if descriptor.first() != Some(&1) {
        return None;
    }
    let wanted = if wanted & BACKUP != 0 { wanted | OWNER | GROUP | DACL | SACL } else { wanted };
    let kinds: Vec<u8> = KINDS.iter().filter(|(bit, _)| wanted & bit != 0).map(|(_, kind)| *kind).collect();
    // Of the SACL, some entries alone can be asked for.
    let some = wanted & SACL == 0 && !kinds.is_empty();
    let wanted = if some { wanted | SACL } else { wanted };
    let control = le16(descriptor, 2)?;
    let part = |field: usize, bit: u32, len: fn(&[u8]) -> Option<usize>| {
        let offset = usize::try_from(le32(descriptor, field)?).ok()?;
        if wanted & bit == 0 || offset == 0 {
            return Some(None);
        }
        let start = descriptor.get(offset..)?;
        start.get(..len(start)?).map(Some)
    };
    let owner = part(4, OWNER, sid_len)?;
    let group = part(8, GROUP, sid_len)?;
    let sacl = part(12, SACL, acl_len)?;
    let some = match sacl {
        Some(sacl) if some => Some(entries_of(sacl, &kinds)?),
        _ => None,
    };
    let sacl = some.as_deref().or(sacl);
    let dacl = part(16, DACL, acl_len)?;
    let mut kept = 0;
    for (bit, of) in [(OWNER, OF_OWNER), (GROUP, OF_GROUP), (DACL, OF_DACL), (SACL, OF_SACL)] {
        if wanted & bit != 0 {
            kept |= of;
        }
    }
    Some(assemble(control & kept, [sacl, dacl, owner, group]))
}

/// Puts a descriptor together: SACL, DACL, owner, group, as Windows orders them.
fn assemble(control: u16, parts: [Option<&[u8]>; 4]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend((control | SELF_RELATIVE).to_le_bytes());
    bytes.resize(HEADER, 0);
    for (part, field) in parts.into_iter().zip([12, 16, 4, 8]) {
        let Some(part) = part else { continue };
        let offset = u32::try_from(bytes.len()).expect("parts of at most 64 KiB").to_le_bytes();
        if let Some(place) = bytes.get_mut(field..).and_then(|rest| rest.get_mut(..4)) {
            place.copy_from_slice(&offset);
        }
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The ACL with those of its entries alone that have one of these types; `None` where it is damaged.
fn entries_of(acl: &[u8], kinds: &[u8]) -> Option<Vec<u8>> {
    let mut kept = acl.get(..8)?.to_vec();
    let (mut rest, mut count) = (acl.get(8..)?, 0_u16);
    for _ in 0..le16(acl, 4)? {
        let len = usize::from(le16(rest, 2)?).max(4);
        let (entry, behind) = rest.split_at_checked(len)?;
        if kinds.contains(entry.first()?) {
            kept.extend_from_slice(entry);
            count = count.checked_add(1)?;
        }
        rest = behind;
    }
    let len = u16::try_from(kept.len()).ok()?;
    kept.get_mut(2..4)?.copy_from_slice(&len.to_le_bytes());
    kept.get_mut(4..6)?.copy_from_slice(&count.to_le_bytes());
    Some(kept)
}

fn sid_len(sid: &[u8]) -> Option<usize> {
    let count = sid.get(1).filter(|count| sid.first() == Some(&1) && **count <= 15)?;
    usize::from(*count).checked_mul(4)?.checked_add(8)
}

fn acl_len(acl: &[u8]) -> Option<usize> {
    le16(acl, 2).map(usize::from).filter(|len| *len >= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_its_parts_where_it_says() {
        let descriptor = everyone_may_read(true);
        assert_eq!(&descriptor[..4], [1, 0, 0x04, 0x80]);
        assert_eq!(le32(&descriptor, 12), Some(0));
        assert_eq!(le32(&descriptor, 16), Some(20));
        assert_eq!(le32(&descriptor, 4), Some(48));
        assert_eq!(le32(&descriptor, 8), Some(64));
        assert_eq!(descriptor.len(), 80);
        // Type, flags, length, mask, S-1-1-0.
        assert_eq!(&descriptor[28..48], [0, 3, 20, 0, 0xa9, 0, 0x12, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(everyone_may_read(false)[29], 0);
    }

    #[test]
    fn only_the_parts_asked_for_are_given() {
        let whole = everyone_may_read(false);
        assert_eq!(select(&whole, 7), Some(whole.clone()));
        let owner = select(&whole, OWNER).unwrap();
        assert_eq!(
            (owner.len(), le16(&owner, 2), le32(&owner, 4), le32(&owner, 8)),
            (36, Some(0x8000), Some(20), Some(0))
        );
        assert_eq!(&owner[20..], &whole[48..64]);
        let dacl = select(&whole, DACL).unwrap();
        assert_eq!((dacl.len(), le16(&dacl, 2), le32(&dacl, 16)), (48, Some(0x8004), Some(20)));
        assert_eq!(select(&whole, 0).unwrap().len(), 20);
        assert_eq!(select(&whole, SACL).unwrap().len(), 20);
    }

    /// An entry of a SACL for everyone, of a type.
    fn entry(kind: u8) -> Vec<u8> {
        [&[kind, 0, 20, 0, 1, 0, 0, 0][..], &[1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]].concat()
    }

    #[test]
    fn labels_come_without_the_rest_of_the_sacl_and_a_backup_has_all() {
        // An audit, a mandatory label, an attribute.
        let acl = [&[2, 0, 68, 0, 3, 0, 0, 0][..], &entry(2), &entry(0x11), &entry(0x12)].concat();
        let owner = [1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        let whole = assemble(0x0010, [Some(&acl), None, Some(&owner), None]);
        let label = select(&whole, 0x10).unwrap();
        assert_eq!(
            (label.len(), le16(&label, 2), le32(&label, 12), le32(&label, 4)),
            (48, Some(0x8010), Some(20), Some(0))
        );
        assert_eq!(label[20..], [&[2, 0, 28, 0, 1, 0, 0, 0][..], &entry(0x11)].concat());
        assert_eq!(select(&whole, 0x18), select(&whole, SACL));
        assert_eq!(select(&whole, BACKUP), Some(whole.clone()));
        // No entry of that type: a list without entries.
        assert_eq!(select(&whole, 0x40).unwrap()[20..], [2, 0, 8, 0, 0, 0, 0, 0]);
        for len in 0..whole.len() {
            assert!(select(&whole[..len], BACKUP | 0x10).is_none(), "{len}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let _ = select(&damaged, 0x70);
        }
    }

    #[test]
    fn no_damaged_descriptor_leads_out_of_itself() {
        let whole = everyone_may_read(false);
        for len in 0..whole.len() {
            let cut = select(&whole[..len], 15);
            assert!(cut.is_none(), "{len}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                if let Some(selected) = select(&damaged, 15) {
                    assert!(selected.len() <= 80 + 3 * 65_536);
                }
            }
        }
    }
}
