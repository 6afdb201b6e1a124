//! A target that is written in place: a block device, or an existing file used as a disk.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Extent, ExtentKind, WritableDisk, buf_len, check_range};
use crate::error::{Error, Result};
use crate::platform::{self, Standing};
use crate::target::Target;

#[cfg(unix)]
mod ioctl;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

/// Zeros are written in pieces of this many bytes where the device cannot make them by itself.
const ZERO_PIECE: u64 = 1 << 20;
/// What direct reads are aligned to: no logical sector is larger.
const DIRECT_ALIGN: usize = 4096;

/// A block device or file that nobody else uses while it is open.
#[derive(Debug)]
pub struct DeviceTarget {
    file: File,
    path: PathBuf,
    len: u64,
    sector_size: u32,
    is_device: bool,
    /// What is kept from others with it, until it is closed.
    _held: system::Held,
}

/// What stands at the path of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Nothing: a file will be made.
    New,
    /// A regular file.
    File,
    /// A loop device.
    Loop,
    /// Another block device.
    BlockDevice,
    /// Something that cannot be a target.
    Other,
}

/// Says what stands at `path`, symbolic links followed.
///
/// [`Error::Refused`] where nothing does and a file should not: in place of a link that leads nowhere, and among the devices. What was there, and what is meant, is a
/// device that was pulled.
pub fn kind_of(path: &Path) -> Result<TargetKind> {
    match platform::standing(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let path_text = path.display();
            if std::fs::symlink_metadata(path).is_ok() {
                return Err(Error::Refused(format!(
                    "{path_text} is a link that leads nowhere: what it names is not there"
                )));
            }
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if folder.canonicalize().is_ok_and(|folder| system::is_of_devices(&folder)) {
                return Err(Error::Refused(format!(
                    "there is no device {path_text}, and no file is made in its place"
                )));
            }
            Ok(TargetKind::New)
        }
        Err(error) => Err(Error::io("examine", path, error)),
        Ok(Standing::File) => Ok(TargetKind::File),
        Ok(Standing::Device(number)) if system::is_loop(number) => Ok(TargetKind::Loop),
        Ok(Standing::Device(_)) => Ok(TargetKind::BlockDevice),
        Ok(Standing::Folder | Standing::Other) => Ok(TargetKind::Other),
    }
}

impl DeviceTarget {
    /// Opens an existing block device or file for reading and writing, and locks it.
    ///
    /// A block device is opened exclusively: Unix refuses one that is mounted or held by anything, and the lock keeps udev and other runs of
    /// this program away. On Windows its volumes are locked, which is refused where files of them are open, and dismounted.
    pub fn open(path: &Path, sector_size: u32) -> Result<Self> {
        let is_device = match platform::standing(path).map_err(|error| Error::io("examine", path, error))? {
            Standing::File => false,
            Standing::Device(_) => true,
            Standing::Folder | Standing::Other => {
                return Err(Error::Refused(format!("{} is neither a file nor a block device", path.display())));
            }
        };
        let (file, held) = system::open_alone(path, is_device)?;
        let len = platform::device_len(&file).map_err(|error| Error::io("measure", path, error))?;
        Ok(Self { file, path: path.to_owned(), len, sector_size, is_device, _held: held })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets a file have sectors of another size. Those of a device are its own.
    pub fn set_sector_size(&mut self, sector_size: u32) {
        if !self.is_device {
            self.sector_size = sector_size;
        }
    }

    /// Has the system forget what it caches of a range that was flushed, so that memory stays free for others.
    pub fn forget(&self, offset: u64, len: u64) {
        system::forget(&self.file, offset, len);
    }

    /// Has the system write out and forget what it caches of the target. Pages whose writing failed earlier would be read as if they had been written.
    pub fn drop_caches(&self) -> Result<()> {
        self.flush()?;
        self.forget(0, self.len);
        if self.is_device {
            system::drop_buffers(&self.file);
        }
        Ok(())
    }

    /// Opens the target once more for reading what is on the medium: caches dropped, and past them where the system can.
    pub fn read_back(&self) -> Result<ReadBack> {
        self.drop_caches()?;
        let checked = |file: File| {
            let same = platform::identity(&file)? == platform::identity(&self.file)?;
            if same { Ok(file) } else { Err(std::io::ErrorKind::NotFound.into()) }
        };
        let failed = |error| Error::io("open again", &self.path, error);
        let direct = system::open_direct(&self.path).and_then(|file| file.map(checked).transpose()).map_err(failed)?;
        let plain = self.again().and_then(checked).map_err(failed)?;
        Ok(ReadBack { direct, plain, path: self.path.clone(), len: self.len, sector_size: self.sector_size })
    }

    /// Opens what stands at its path once more for reading. A volume that is locked opens for nobody, so it is reached through what is open.
    pub(crate) fn again(&self) -> std::io::Result<File> {
        system::open_again(&self.file, &self.path)
    }

    /// Has the kernel read the partition table again. Nothing to do for a file.
    pub fn reread_table(&self) -> Result<()> {
        if !self.is_device {
            return Ok(());
        }
        system::reread_table(&self.file)
            .map_err(|error| Error::io("have the system read the new table of", &self.path, error))
    }

    fn failed(&self, action: &'static str, offset: u64, source: std::io::Error) -> Error {
        Error::Io { action, what: format!("{} at byte {offset:#x}", self.path.display()), source }
    }
}

impl Disk for DeviceTarget {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len)?;
        platform::read_exact_at(&self.file, buf, offset).map_err(|error| self.failed("read", offset, error))
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        Ok(Extent { offset, len: self.len.saturating_sub(offset), kind: ExtentKind::Data })
    }
}

impl WritableDisk for DeviceTarget {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(bytes), self.len)?;
        platform::write_all_at(&self.file, bytes, offset).map_err(|error| self.failed("write", offset, error))
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        let end = check_range(offset, len, self.len)?;
        if len == 0 {
            return Ok(());
        }
        if system::make_zero(&self.file, self.is_device, offset, len) {
            return Ok(());
        }
        let zeros = vec![0; usize::try_from(ZERO_PIECE.min(len)).unwrap_or(0)];
        let mut at = offset;
        while at < end {
            let part = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(zeros.len());
            WritableDisk::write_at(self, zeros.get(..part).expect("at most its length"), at)?;
            at = at.saturating_add(u64::try_from(part).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        check_range(offset, len, self.len)?;
        if len > 0 {
            system::discard(&self.file, offset, len);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }
}

impl Target for DeviceTarget {
    fn len(&self) -> u64 {
        self.len
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        WritableDisk::write_at(self, bytes, offset)
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        WritableDisk::zero_at(self, offset, len)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.flush()
    }
}

/// A target opened for reading what lies on its medium.
#[derive(Debug)]
pub struct ReadBack {
    direct: Option<File>,
    plain: File,
    path: PathBuf,
    len: u64,
    sector_size: u32,
}

impl ReadBack {
    /// Reads past the caches, through an aligned buffer. `Ok(false)` where the system does not do it after all.
    fn read_direct(&self, buf: &mut [u8], offset: u64) -> std::io::Result<bool> {
        let Some(file) = &self.direct else { return Ok(false) };
        const ALIGN: u64 = 4096;
        let start = offset & !(ALIGN - 1);
        let end = offset.saturating_add(buf_len(buf)).next_multiple_of(ALIGN).min(self.len);
        let want = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let mut room = vec![0_u8; want.saturating_add(DIRECT_ALIGN)];
        let skip = room.as_ptr().align_offset(DIRECT_ALIGN).min(DIRECT_ALIGN);
        let aligned = room.get_mut(skip..skip.saturating_add(want)).expect("there is room for the alignment");
        match platform::read_exact_at(file, aligned, start) {
            Ok(()) => {}
            // The end of a file is not always aligned, and not everything that opens this way reads this way.
            Err(error) if system::is_refused_direct(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        let from = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
        let part = aligned.get(from..from.saturating_add(buf.len())).expect("the range was widened");
        buf.copy_from_slice(part);
        Ok(true)
    }
}

impl Disk for ReadBack {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(buf), self.len)?;
        let failed = |source| Error::Io {
            action: "read back",
            what: format!("{} at byte {offset:#x}", self.path.display()),
            source,
        };
        if self.read_direct(buf, offset).map_err(failed)? {
            return Ok(());
        }
        platform::read_exact_at(&self.plain, buf, offset).map_err(failed)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        Ok(Extent { offset, len: self.len.saturating_sub(offset), kind: ExtentKind::Data })
    }
}
