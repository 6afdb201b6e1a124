//! Reading: the footer, the dynamic header, and where each sector lies.

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::bytes::be32;
use crate::error::Result;
use crate::format::chain::{BaseWish, Opened, Opener};
use crate::format::file::{ImageFile, Table};
use crate::format::layer::{Layer, Place, Run};
use crate::format::names;
use crate::format::vhd::layout::{
    ABSOLUTE, DIFFERENCING, DYNAMIC, DynamicHeaderRaw, FIXED, FooterRaw, RELATIVE, SECTOR, UNUSED,
};
use crate::format::{About, Format, Sample};

const FOOTER: &str = "VHD footer";
const HEADER: &str = "VHD dynamic header";
const BAT: &str = "VHD block allocation table";
/// Block sizes that are taken: Microsoft's tools write 512 KiB and 2 MiB.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=256 << 20;
/// Longest path of a parent, in bytes.
const MAX_LOCATOR: u32 = 4096;

/// A file is taken for a VHD where it begins with a footer, or ends with one that fits a fixed disk of its length.
pub(super) fn probe(sample: &Sample<'_>) -> bool {
    let head = FooterRaw::read_from_prefix(sample.head).is_ok_and(|(footer, _)| footer.is_valid());
    let tail = FooterRaw::read_from_bytes(sample.tail).is_ok_and(|footer| footer.is_valid());
    head || tail
}

pub(super) fn open(_opener: &Opener<'_>, file: &ImageFile) -> Result<Opened> {
    let mut notes = Vec::new();
    let footer = find_footer(file, &mut notes)?;
    let len = footer.current_size.get();
    let (cylinders, heads, sectors) = (footer.cylinders.get(), footer.heads, footer.sectors);
    let geometry =
        u64::from(cylinders).saturating_mul(heads.into()).saturating_mul(sectors.into()).saturating_mul(SECTOR);
    // 65535 cylinders, 16 heads and 255 sectors stand for any size from about 127 GiB on.
    let is_largest = (cylinders, heads, sectors) == (65535, 16, 255);
    if geometry < len && !is_largest {
        notes.push(format!(
            "its geometry is of {geometry} bytes, which Virtual PC and some versions of QEMU take for the length of the disk"
        ));
    }
    let mut about = About {
        format: Format::Vhd,
        variant: String::new(),
        file: file.place(),
        more_files: Vec::new(),
        identity: Uuid::from_bytes(footer.unique_id).to_string(),
        notes,
        base: None,
    };
    let disk_type = footer.disk_type.get();
    match disk_type {
        FIXED => {
            file.check("data", 0, len)?;
            about.variant = "fixed".into();
            let layer = Box::new(Fixed { file: file.clone(), len });
            Ok(Opened { layer, about, base: None, sector_size: Some(512) })
        }
        DYNAMIC | DIFFERENCING => open_dynamic(file, &footer, about),
        other => Err(file.unsupported(format_args!("a VHD of type {other}"))),
    }
}

/// The footer at the end, or its copy at the start.
fn find_footer(file: &ImageFile, notes: &mut Vec<String>) -> Result<FooterRaw> {
    let end = file.len();
    // Versions of Virtual PC before 2004 wrote 511 bytes.
    for len in [512, 511] {
        let Some(at) = end.checked_sub(len) else { continue };
        let mut bytes = file.read_vec(FOOTER, at, usize::try_from(len).expect("a small number"))?;
        bytes.resize(512, 0);
        let footer = FooterRaw::read_from_bytes(&bytes).expect("it was resized to this length");
        if footer.is_valid() {
            return Ok(footer);
        }
    }
    let copy: FooterRaw = file.read_struct(FOOTER, 0)?;
    if copy.is_valid() && copy.disk_type.get() != FIXED {
        notes.push("the footer at its end is damaged: the copy at its start is used".into());
        return Ok(copy);
    }
    Err(file.corrupt(FOOTER, end.saturating_sub(512), "its cookie or checksum is wrong, and so is that of its copy"))
}

fn open_dynamic(file: &ImageFile, footer: &FooterRaw, mut about: About) -> Result<Opened> {
    let at = footer.data_offset.get();
    let header: DynamicHeaderRaw = file.read_struct(HEADER, at)?;
    if !header.is_valid() {
        return Err(file.corrupt(HEADER, at, "its cookie or checksum is wrong"));
    }
    let block_size = header.block_size.get();
    if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
        return Err(file.corrupt(HEADER, at.saturating_add(32), "its block size is out of range"));
    }
    let block_bits = block_size.trailing_zeros();
    let len = footer.current_size.get();
    let needed = len.div_ceil(block_size.into());
    let table_offset = header.table_offset.get();
    if needed > u64::from(header.max_table_entries.get()) {
        return Err(file.corrupt(BAT, table_offset, "it has too few entries for the disk"));
    }
    let differencing = footer.disk_type.get() == DIFFERENCING;
    let size =
        if block_size < 1 << 20 { format!("{} KiB", block_size >> 10) } else { format!("{} MiB", block_size >> 20) };
    about.variant = format!("{}, blocks of {size}", if differencing { "differencing" } else { "dynamic" });
    let base = if differencing { Some(parent(file, &header)?) } else { None };
    let layer = Blocks {
        file: file.clone(),
        len,
        block_bits,
        bitmap_len: u64::from(block_size / 512).div_ceil(8).next_multiple_of(SECTOR),
        bat: Table::new(file, BAT, table_offset, needed, 4)?,
        differencing,
    };
    Ok(Opened { layer: Box::new(layer), about, base, sector_size: Some(512) })
}

/// What the parent may be called: its relative path first, then the absolute one, then its name alone.
fn parent(file: &ImageFile, header: &DynamicHeaderRaw) -> Result<BaseWish> {
    let mut paths = Vec::new();
    for code in [RELATIVE, ABSOLUTE] {
        for locator in header.parent_locators.iter().filter(|locator| locator.platform_code == *code) {
            let (offset, len) = (locator.platform_data_offset.get(), locator.platform_data_length.get());
            if len > MAX_LOCATOR {
                return Err(file.corrupt("VHD parent locator", offset, "it is too long"));
            }
            let path = file.read_vec("VHD parent locator", offset, usize::try_from(len).expect("at most 4096"))?;
            paths.push(names::from_utf16(names::units_le(&path)));
        }
    }
    paths.push(names::from_utf16(names::units_be(&header.parent_unicode_name)));
    let names = names::to_try(&paths);
    if names.is_empty() {
        return Err(file.corrupt(HEADER, 0, "it is differencing but names no parent"));
    }
    let identity = Some(Uuid::from_bytes(header.parent_unique_id).to_string());
    Ok(BaseWish { what: "parent", names, format: Some(Format::Vhd), identity })
}

/// A fixed disk.
struct Fixed {
    file: ImageFile,
    len: u64,
}

impl Layer for Fixed {
    fn len(&self) -> u64 {
        self.len
    }

    fn run_at(&self, offset: u64, _most: u64) -> Result<Run<'_>> {
        Ok(Run { len: self.len.saturating_sub(offset), place: Place::Stored { file: &self.file, offset } })
    }
}

/// A dynamic or differencing disk.
struct Blocks {
    file: ImageFile,
    len: u64,
    block_bits: u32,
    /// Bytes of the bitmap before each block.
    bitmap_len: u64,
    bat: Table,
    differencing: bool,
}

impl Blocks {
    /// First byte of a block's bitmap in the file; `None` where the block is not there.
    fn block_at(&self, entry: u32) -> Option<u64> {
        (entry != UNUSED).then(|| u64::from(entry).saturating_mul(SECTOR))
    }

    /// The run inside a block of a differencing disk: its sectors of one kind. `within` is a byte of the block.
    fn sectors(&self, block_at: u64, within: u64) -> Result<Run<'_>> {
        let bitmap = Table::new(&self.file, "VHD sector bitmap", block_at, self.bitmap_len, 1)?;
        let (sector, block_len) = (within / SECTOR, 1_u64 << self.block_bits);
        let bits = bitmap.entries(&self.file, sector / 8)?;
        // The highest bit is the first sector.
        let is_set = |sector: u64| {
            let byte = usize::try_from(sector / 8)
                .ok()
                .and_then(|at| bits.get(at.checked_sub(usize::try_from(within / SECTOR / 8).ok()?)?));
            byte.map(|byte| byte & (0x80_u8 >> (sector % 8)) != 0)
        };
        let kind = is_set(sector);
        let mut end = sector.saturating_add(1);
        while end.saturating_mul(SECTOR) < block_len && is_set(end) == kind {
            end = end.saturating_add(1);
        }
        let len = end.saturating_mul(SECTOR).min(block_len).saturating_sub(within);
        let offset = block_at.saturating_add(self.bitmap_len).saturating_add(within);
        let place = if kind == Some(true) { Place::Stored { file: &self.file, offset } } else { Place::Base };
        Ok(Run { len, place })
    }
}

impl Layer for Blocks {
    fn len(&self) -> u64 {
        self.len
    }

    fn run_at(&self, offset: u64, _most: u64) -> Result<Run<'_>> {
        let block = offset >> self.block_bits;
        let within = offset & (1_u64 << self.block_bits).saturating_sub(1);
        let entries = self.bat.entries(&self.file, block)?;
        let entry = be32(&entries, 0).unwrap_or(UNUSED);
        match self.block_at(entry) {
            None => {
                let unused = entries.chunks_exact(4).take_while(|entry| be32(entry, 0) == Some(UNUSED));
                let blocks = u64::try_from(unused.count()).unwrap_or(1);
                Ok(Run { len: (blocks << self.block_bits).saturating_sub(within), place: Place::Base })
            }
            Some(at) if self.differencing => self.sectors(at, within),
            // Programs that write dynamic disks zero a new block or fill it; some never set bits. So the bitmap can only hide data.
            Some(at) => {
                let offset = at.saturating_add(self.bitmap_len).saturating_add(within);
                let len = (1_u64 << self.block_bits).saturating_sub(within);
                Ok(Run { len, place: Place::Stored { file: &self.file, offset } })
            }
        }
    }
}
