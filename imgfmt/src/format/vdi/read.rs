//! Reading: the header, and where each block lies.

use uuid::Uuid;

use crate::bytes::le32;
use crate::error::Result;
use crate::format::chain::{BaseWish, Opened, Opener};
use crate::format::file::{ImageFile, Table};
use crate::format::layer::{Layer, Place, Run};
use crate::format::vdi::layout::{DIFFERENCING, DYNAMIC, FIXED, HeaderRaw, SIGNATURE, UNALLOCATED, VERSION, ZERO};
use crate::format::{About, Format, Sample};

const HEADER: &str = "VDI header";
const MAP: &str = "VDI block map";
/// Block sizes that are taken: VirtualBox writes 1 MiB.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=256 << 20;

pub(super) fn probe(sample: &Sample<'_>) -> bool {
    le32(sample.head, 0x40) == Some(SIGNATURE)
}

pub(super) fn open(_opener: &Opener<'_>, file: &ImageFile) -> Result<Opened> {
    let header: HeaderRaw = file.read_struct(HEADER, 0)?;
    let corrupt = |offset, reason| Err(file.corrupt(HEADER, offset, reason));
    if header.signature.get() != SIGNATURE {
        return corrupt(0x40, "its signature is wrong");
    }
    if header.version.get() != VERSION {
        let (major, minor) = (header.version.get() >> 16, header.version.get() & 0xffff);
        return Err(file.unsupported(format_args!("version {major}.{minor} of VDI")));
    }
    let image_type = header.image_type.get();
    let kind = match image_type {
        DYNAMIC => "dynamic",
        FIXED => "fixed",
        DIFFERENCING => "differencing",
        other => return Err(file.unsupported(format_args!("a VDI of type {other}"))),
    };
    if header.block_extra.get() != 0 {
        return Err(file.unsupported("extra bytes before each block"));
    }
    // VirtualBox writes 0 where it knows no geometry.
    if !matches!(header.sector_size.get(), 0 | 512) {
        return Err(file.unsupported(format_args!("sectors of {} bytes", header.sector_size.get())));
    }
    let block_size = header.block_size.get();
    if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
        return corrupt(0x178, "its block size is out of range");
    }
    let len = header.disk_size.get();
    let needed = len.div_ceil(block_size.into());
    if needed > header.blocks_in_image.get().into() {
        return corrupt(0x180, "it has too few blocks for the disk");
    }
    let about = About {
        format: Format::Vdi,
        variant: format!("{kind}, blocks of {} KiB", block_size.div_ceil(1024)),
        file: file.place(),
        more_files: Vec::new(),
        identity: identity(header.uuid_image, header.uuid_last_modified),
        notes: Vec::new(),
        base: None,
    };
    let base = (image_type == DIFFERENCING).then(|| BaseWish {
        what: "parent",
        names: Vec::new(),
        format: Some(Format::Vdi),
        identity: Some(identity(header.uuid_link, header.uuid_parent_modified)),
    });
    let layer = Vdi {
        file: file.clone(),
        len,
        block_bits: block_size.trailing_zeros(),
        data: header.offset_data.get().into(),
        map: Table::new(file, MAP, header.offset_bmap.get().into(), needed, 4)?,
    };
    Ok(Opened { layer: Box::new(layer), about, base, sector_size: Some(512) })
}

/// The identifier of a state of a disk: of the disk, and of its last change where that is told.
fn identity(image: [u8; 16], modified: [u8; 16]) -> String {
    let image = Uuid::from_bytes_le(image);
    let modified = Uuid::from_bytes_le(modified);
    if modified.is_nil() { image.to_string() } else { format!("{image}/{modified}") }
}

/// An opened file.
struct Vdi {
    file: ImageFile,
    len: u64,
    block_bits: u32,
    /// Where block 0 of the file lies.
    data: u64,
    map: Table,
}

impl Vdi {
    /// Where the first byte of a block lies.
    fn place_of(&self, entry: u32) -> Place<'_> {
        match entry {
            UNALLOCATED => Place::Base,
            ZERO => Place::Zero,
            block => {
                let offset = self.data.saturating_add(u64::from(block) << self.block_bits);
                Place::Stored { file: &self.file, offset }
            }
        }
    }
}

impl Layer for Vdi {
    fn len(&self) -> u64 {
        self.len
    }

    fn run_at(&self, offset: u64, _most: u64) -> Result<Run<'_>> {
        let block = offset >> self.block_bits;
        let within = offset & (1_u64 << self.block_bits).saturating_sub(1);
        let entries = self.map.entries(&self.file, block)?;
        let mut following = entries.chunks_exact(4).filter_map(|entry| le32(entry, 0));
        let first = following.next().ok_or_else(|| self.file.corrupt(MAP, block, "it has too few entries"))?;
        let mut expected = first;
        let same = following.take_while(|entry| {
            // Blocks that follow one another in the file too, or are equally nowhere.
            expected = if first >= ZERO { first } else { expected.saturating_add(1) };
            *entry == expected
        });
        let blocks = u64::try_from(same.count()).unwrap_or(0).saturating_add(1);
        let len = (blocks << self.block_bits).saturating_sub(within);
        let place = match self.place_of(first) {
            Place::Stored { file, offset } => Place::Stored { file, offset: offset.saturating_add(within) },
            place => place,
        };
        Ok(Run { len, place })
    }
}
