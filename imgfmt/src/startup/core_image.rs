//! GRUB's core image: where it looks for its folder, and the configuration that lies inside of it.
//!
//! For a BIOS it is one sector with a list of blocks, code that unpacks, and LZMA; for UEFI a program whose section `mods` is not packed. Both hold the
//! same list of modules: +0 "mimg", then the offset of the first and the length of all, and each with its type and length in front.
//!
//! Source: GRUB 2.06, `include/grub/kernel.h`, `include/grub/offsets.h`, `util/mkimage.c` for the layout.

use crate::bytes::{le16, le32, le64};
use crate::disk::{Disk, read_vec};
use crate::error::Result;
use crate::startup::lzma;

/// Most bytes of a core image, packed and unpacked.
const MAX_PACKED: u64 = 4 << 20;
const MAX_UNPACKED: usize = 8 << 20;
/// Where the packed part can begin: behind the code that unpacks it.
const FIRST_START: usize = 512;
const LAST_START: usize = 0xe00;
/// Bytes that may be unpacked in vain while the start is looked for.
const BUDGET: usize = 64 << 20;
/// Types of modules.
const MEMDISK: u32 = 1;
const CONFIG: u32 = 2;
const PREFIX: u32 = 3;

/// What a core image says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Where its folder is: "(hd0,msdos1)/boot/grub", "(,gpt2)/grub", "/EFI/debian". Untrusted text.
    pub prefix: Option<String>,
    /// Commands that it runs first.
    pub config: Option<Vec<u8>>,
    /// `grub.cfg` of the archive inside of it.
    pub memdisk_config: Option<Vec<u8>>,
}

/// The core image of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Core {
    /// What it says of itself, where it could be unpacked.
    pub payload: Option<Payload>,
}

/// Reads the core image whose first sector (of 512 bytes) is `sector`; `None` where none is there.
pub fn read(disk: &dyn Disk, sector: u64) -> Result<Option<Core>> {
    let at = sector.saturating_mul(512);
    if sector == 0 || at.saturating_add(512) > disk.len() {
        return Ok(None);
    }
    let first = read_vec(disk, at, 512)?;
    let has = |text: &[u8]| first.windows(text.len()).any(|window| window == text);
    if !has(b"loading") || !has(b"Geom") {
        return Ok(None);
    }
    // The list of blocks grows downward from the end of the sector: start, count, segment.
    let mut packed = Vec::new();
    let mut entry = 0x1f4_usize;
    while let (Some(start), Some(count)) = (le64(&first, entry), le16(&first, entry.saturating_add(8))) {
        let (start, len) = (start.saturating_mul(512), u64::from(count).saturating_mul(512));
        let total = u64::try_from(packed.len()).unwrap_or(u64::MAX).saturating_add(len);
        if count == 0 || total > MAX_PACKED || start.saturating_add(len) > disk.len() || entry < 0x100 {
            break;
        }
        packed.extend(read_vec(disk, start, usize::try_from(len).unwrap_or(0))?);
        entry = entry.saturating_sub(12);
    }
    if packed.is_empty() {
        return Ok(None);
    }
    Ok(Some(Core { payload: unpack(&packed).and_then(|bytes| parse(&bytes, Width::Narrow)) }))
}

/// Unpacks the part behind the code, wherever it begins.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(le32(packed, 12)?).ok().filter(|len| (1..=MAX_UNPACKED).contains(len))?;
    let mut budget = BUDGET;
    for start in FIRST_START..LAST_START {
        let rest = packed.get(start..)?;
        if rest.first() != Some(&0) || rest.get(1..5) == Some(&[0; 4]) {
            continue;
        }
        budget = budget.checked_sub(len)?;
        if let Ok(bytes) = lzma::unpack(rest, len)
            && bytes.windows(4).any(|window| window == b"mimg")
        {
            return Some(bytes);
        }
        // What fails early cost next to nothing.
        budget = budget.saturating_add(len.saturating_sub(len / 64));
    }
    None
}

/// Width of the fields of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits: BIOS, 32-bit UEFI.
    Narrow,
    /// 64 bits.
    Wide,
}

/// Finds the list of modules in an unpacked image, and reads what matters.
pub fn parse(bytes: &[u8], width: Width) -> Option<Payload> {
    let mut from = 0;
    while let Some(found) = bytes.get(from..)?.windows(4).position(|window| window == b"mimg") {
        let at = from.saturating_add(found);
        if let Some(payload) = parse_list(bytes, at, width) {
            return Some(payload);
        }
        from = at.saturating_add(4);
    }
    None
}

fn parse_list(bytes: &[u8], at: usize, width: Width) -> Option<Payload> {
    let field = |index: usize| match width {
        Width::Narrow => le32(bytes, at.checked_add(index.checked_mul(4)?)?).map(u64::from),
        Width::Wide => le64(bytes, at.checked_add(index.checked_mul(8)?)?),
    };
    let (offset, size) = (usize::try_from(field(1)?).ok()?, usize::try_from(field(2)?).ok()?);
    let end = at.checked_add(size).filter(|end| *end <= bytes.len())?;
    let mut module = at.checked_add(offset)?;
    let mut payload = Payload::default();
    if offset < 12 || module > end {
        return None;
    }
    while module < end {
        let (kind, len) = (le32(bytes, module)?, usize::try_from(le32(bytes, module.checked_add(4)?)?).ok()?);
        let next = module.checked_add(len).filter(|next| len >= 8 && *next <= end)?;
        let data = bytes.get(module.checked_add(8)?..next)?;
        let text = || data.iter().copied().take_while(|byte| *byte != 0).collect::<Vec<u8>>();
        match kind {
            PREFIX => payload.prefix = Some(String::from_utf8_lossy(&text()).into_owned()),
            CONFIG => payload.config = Some(text()),
            MEMDISK => payload.memdisk_config = tar_member(data, "grub.cfg"),
            _ => {}
        }
        module = next;
    }
    Some(payload)
}

/// A file of a tar archive.
///
/// Source: POSIX.1-2017, pax, "ustar Interchange Format".
fn tar_member(archive: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut at = 0_usize;
    while let Some(header) = archive.get(at..at.checked_add(512)?) {
        let text = |range: std::ops::Range<usize>| {
            let field = header.get(range).unwrap_or_default();
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(field.get(..end).unwrap_or_default()).trim().to_owned()
        };
        let found = text(0..100);
        if found.is_empty() {
            return None;
        }
        let len = usize::from_str_radix(&text(124..136), 8).ok()?;
        let start = at.checked_add(512)?;
        let end = start.checked_add(len)?;
        if found.rsplit('/').next() == Some(name) {
            return archive.get(start..end).map(<[u8]>::to_vec);
        }
        at = start.checked_add(len.checked_next_multiple_of(512)?)?;
    }
    None
}
