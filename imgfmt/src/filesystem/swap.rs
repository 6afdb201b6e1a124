//! Linux swap areas: everything but the header page can be left out.
//!
//! Sources: `include/linux/swap.h` (`union swap_header`) and `kernel/power/swap.c` of Linux; util-linux's `mkswap` and libblkid.
//!
//! # Not supported
//!
//! Headers of another version than 1. The old format (`SWAP-SPACE`, Linux before 2.1.117), whose first page is a map of good pages, is
//! read.

use std::sync::Arc;

use crate::bytes::{array, be32, le32};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::filesystem::{Driver, Elidable, Reach, Reached, Summary, UsedBlocks};
use crate::partition::signature;
use crate::ranges::RangeSet;

/// Swap areas among the filesystems.
pub(super) const DRIVER: Driver = Driver { used_blocks: Some(open), files: None };

/// Page sizes of the machines that Linux runs on.
const PAGE_SIZES: [usize; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// Bytes of a signature, the last of the first page.
const MAGIC_LEN: usize = 10;
/// Signatures of an area that holds the image of a hibernated system: swsusp, uswsusp and TuxOnIce, as libblkid lists them.
const HIBERNATED: [&[u8]; 5] =
    [b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001", b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"];
/// Places of the fields of a header: they follow 1 KiB that is left to boot loaders.
mod field {
    /// Version, in the byte order of the machine.
    pub(super) const VERSION: usize = 1024;
    /// Number of the last page.
    pub(super) const LAST_PAGE: usize = 1028;
    /// Bad pages.
    pub(super) const BAD_COUNT: usize = 1032;
    /// UUID, 16 bytes.
    pub(super) const UUID: usize = 1036;
    /// Label, 16 bytes, ended by a zero.
    pub(super) const LABEL: usize = 1052;
    /// Bytes that `mkswap` leaves zero.
    pub(super) const PADDING: usize = 1068;
    /// Numbers of the bad pages.
    pub(super) const BAD_PAGES: usize = 1536;
}

/// A swap area.
struct Swap {
    disk: Arc<dyn Disk>,
    /// Bytes in a page.
    page_size: u64,
    /// Pages of the area, the header page among them.
    pages: u64,
    /// Whether a hibernated system lies in it.
    hibernated: bool,
    /// Whether bytes are set that no tool sets.
    padded: bool,
    uuid: Option<[u8; 16]>,
    label: String,
}

fn open(partition: Arc<dyn Disk>) -> Result<Option<Box<dyn UsedBlocks>>> {
    for page_size in PAGE_SIZES {
        let len = u64::try_from(page_size).expect("at most 64 KiB");
        if len > partition.len() {
            break;
        }
        let magic_at = len.saturating_sub(10);
        let magic = read_vec(&partition, magic_at, MAGIC_LEN)?;
        let hibernated = HIBERNATED.iter().any(|signature| magic.starts_with(signature));
        // A hibernated area keeps its header; which of the two it was is of no use here, since the old one cannot be told.
        if hibernated || magic == b"SWAPSPACE2" {
            let page = read_vec(&partition, 0, page_size)?;
            return Ok(Some(Box::new(Swap::parse(partition, &page, hibernated)?)));
        }
        if magic == b"SWAP-SPACE" {
            let pages = partition.len().checked_div(len).unwrap_or(0);
            let (uuid, label) = (None, String::new());
            let swap = Swap { disk: partition, page_size: len, pages, hibernated, padded: false, uuid, label };
            return Ok(Some(Box::new(swap)));
        }
    }
    Ok(None)
}

impl Swap {
    /// Parses a header page of version 1.
    fn parse(disk: Arc<dyn Disk>, page: &[u8], hibernated: bool) -> Result<Self> {
        let corrupt = |reason| Error::corrupt("swap header", 0, reason);
        let page_size = u64::try_from(page.len()).expect("at most 64 KiB");
        // The byte order of the machine is the one in which the version is 1.
        let get = match (le32(page, field::VERSION), be32(page, field::VERSION)) {
            (Some(1), _) => le32,
            (_, Some(1)) => be32,
            (version, _) => {
                let version = version.unwrap_or(0);
                return Err(Error::unsupported("swap header", format_args!("version {version}")));
            }
        };
        let number = |at| get(page, at).ok_or_else(|| corrupt("it is cut short"));
        let last_page = number(field::LAST_PAGE)?;
        let pages = u64::from(last_page).saturating_add(1);
        if last_page == 0 || pages.saturating_mul(page_size) > disk.len() {
            return Err(corrupt("the area is empty or longer than the partition"));
        }
        let bad = usize::try_from(number(field::BAD_COUNT)?).expect("32 bits");
        let room = page.len().saturating_sub(field::BAD_PAGES).saturating_sub(MAGIC_LEN) / 4;
        if bad > room {
            return Err(corrupt("it lists more bad pages than fit into it"));
        }
        for index in 0..bad {
            let bad_page = number(index.saturating_mul(4).saturating_add(field::BAD_PAGES))?;
            if bad_page == 0 || bad_page > last_page {
                return Err(corrupt("a bad page lies outside of the area"));
            }
        }
        let label: [u8; 16] = array(page, field::LABEL).ok_or_else(|| corrupt("it is cut short"))?;
        let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
        let padding = page.get(field::PADDING..field::BAD_PAGES).unwrap_or_default();
        Ok(Self {
            page_size,
            pages,
            hibernated,
            padded: padding.iter().any(|byte| *byte != 0),
            uuid: array(page, field::UUID).filter(|uuid| uuid != &[0; 16]),
            label: String::from_utf8_lossy(label).into_owned(),
            disk,
        })
    }
}

impl UsedBlocks for Swap {
    fn summary(&self) -> Summary {
        Summary {
            kind: "swap",
            label: self.label.clone(),
            id: self.uuid.map_or(String::new(), |uuid| uuid::Uuid::from_bytes(uuid).to_string()),
            block_size: self.page_size,
            len: self.pages.saturating_mul(self.page_size),
        }
    }

    fn doubts(&self) -> Result<Vec<String>> {
        let mut doubts = Vec::new();
        if self.padded {
            doubts.push("the swap header holds what no tool writes into it".into());
        }
        for other in signature::filesystems(&self.disk)?.into_iter().filter(|name| !name.starts_with("Linux swap")) {
            doubts.push(format!("it has the signature of {other} too"));
        }
        Ok(doubts)
    }

    /// The whole partition: what is not wanted of it is elided, so that a restore overwrites it.
    fn allocated(&self) -> Result<RangeSet> {
        Ok(RangeSet::from_range(0..self.disk.len()))
    }

    fn walk(&self, visit: &mut dyn FnMut(Reached) -> Result<()>) -> Result<()> {
        visit(Reached { range: 0..self.page_size, reach: Reach::Metadata, owner_kind: "swap header at byte", owner: 0 })
    }

    fn elidable(&self) -> Result<Vec<Elidable>> {
        let end = self.pages.saturating_mul(self.page_size);
        let warning = self.hibernated.then(|| {
            "a Linux system is hibernated in it: the session is not kept, and a restored system starts anew".to_owned()
        });
        let ranges = RangeSet::from_range(self.page_size..end);
        Ok(vec![Elidable { path: "swap area".into(), ranges, warning }])
    }

    fn path_of(&self, _owner: u64) -> Result<Option<String>> {
        Ok(None)
    }
}
