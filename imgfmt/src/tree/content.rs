//! Files that the tree itself makes: disks as raw files, and texts.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, buf_len, check_range};
use crate::error::Result;
use crate::filesystem::files::Content;

/// A disk as a raw file.
pub struct RawFile(pub Arc<dyn Disk>);

impl fmt::Debug for RawFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawFile").field("len", &self.0.len()).finish()
    }
}

impl Content for RawFile {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let extent = self.0.extent_at(offset)?;
        let kind = match extent.kind {
            ExtentKind::Zero | ExtentKind::Absent => ExtentKind::Zero,
            // A hole would be read as zeros; these bytes are an error.
            ExtentKind::Data | ExtentKind::Bad => ExtentKind::Data,
        };
        Ok(Extent { kind, ..extent })
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

/// A text as a file.
#[derive(Clone, Debug)]
pub struct TextFile(pub String);

impl Content for TextFile {
    fn len(&self) -> u64 {
        buf_len(self.0.as_bytes())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len())?;
        let start = usize::try_from(offset).expect("checked by check_range");
        let end = start.saturating_add(buf.len());
        buf.copy_from_slice(self.0.as_bytes().get(start..end).expect("checked by check_range"));
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len())?;
        Ok(Extent { offset, len: self.len().saturating_sub(offset), kind: ExtentKind::Data })
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        None
    }
}

impl<T: Content + ?Sized> Content for Arc<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        (**self).read_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        (**self).extent_at(offset)
    }

    fn places(&self) -> Option<Vec<Range<u64>>> {
        (**self).places()
    }
}
