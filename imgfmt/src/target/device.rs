//! A target that is written in place: a block device, or an existing file used as a disk.

use std::fs::{File, OpenOptions};
use std::num::NonZero;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, SeekFrom, fadvise, fallocate, flock, seek};
use rustix::io::Errno;

use crate::disk::{Disk, Extent, ExtentKind, WritableDisk, buf_len, check_range};
use crate::error::{Error, Result};
use crate::target::{Target, ioctl};

/// Major number of loop devices on Linux.
const LOOP_MAJOR: u32 = 7;
/// Zeros are written in pieces of this many bytes where the device cannot make them by itself.
const ZERO_PIECE: u64 = 1 << 20;
/// What direct reads are aligned to: no logical sector is larger.
const DIRECT_ALIGN: usize = 4096;
/// How long a lock is waited for: udev holds one for a moment while it looks at a device.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A block device or file that nobody else uses while it is open.
#[derive(Debug)]
pub struct DeviceTarget {
    file: File,
    path: PathBuf,
    len: u64,
    sector_size: u32,
    is_device: bool,
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
pub fn kind_of(path: &Path) -> Result<TargetKind> {
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(TargetKind::New),
        metadata => metadata.map_err(|error| Error::io("examine", path, error))?,
    };
    let kind = metadata.file_type();
    Ok(if kind.is_file() {
        TargetKind::File
    } else if kind.is_block_device() {
        if rustix::fs::major(metadata.rdev()) == LOOP_MAJOR { TargetKind::Loop } else { TargetKind::BlockDevice }
    } else {
        TargetKind::Other
    })
}

impl DeviceTarget {
    /// Opens an existing block device or file for reading and writing, and locks it.
    ///
    /// A block device is opened exclusively: the system refuses one that is mounted or held by anything. The lock keeps udev and other runs of
    /// this program away.
    pub fn open(path: &Path, sector_size: u32) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|error| Error::io("examine", path, error))?;
        let is_device = metadata.file_type().is_block_device();
        if !is_device && !metadata.is_file() {
            return Err(Error::Refused(format!("{} is neither a file nor a block device", path.display())));
        }
        let flags = if is_device { OFlags::EXCL } else { OFlags::empty() };
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path);
        let file = file.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => Error::Refused(format!(
                "{} is in use: it is mounted, or held by LVM, RAID, encryption or another program",
                path.display()
            )),
            Some(Errno::ROFS | Errno::PERM) => {
                Error::Refused(format!("{} is read-only: the system does not let it be written", path.display()))
            }
            _ => Error::io("open", path, error),
        })?;
        lock(&file, path)?;
        let len = seek(&file, SeekFrom::End(0)).map_err(|error| Error::io("measure", path, error.into()))?;
        Ok(Self { file, path: path.to_owned(), len, sector_size, is_device })
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
        if let Some(len) = NonZero::new(len) {
            // Advice: where it is not taken, nothing is lost.
            let _ = fadvise(&self.file, offset, Some(len), Advice::DontNeed);
        }
    }

    /// Has the system write out and forget what it caches of the target. Pages whose writing failed earlier would be read as if they had been written.
    pub fn drop_caches(&self) -> Result<()> {
        self.flush()?;
        self.forget(0, self.len);
        if self.is_device {
            // Not every device has buffers of its own.
            let _ = ioctl::flush_buffers(&self.file);
        }
        Ok(())
    }

    /// Opens the target once more for reading what is on the medium: caches dropped, and past them where the system can.
    pub fn read_back(&self) -> Result<ReadBack> {
        self.drop_caches()?;
        let open = |flags: OFlags| {
            let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&self.path)?;
            let identity = |file: &File| file.metadata().map(|m| (m.dev(), m.ino(), m.rdev()));
            if identity(&file)? == identity(&self.file)? { Ok(file) } else { Err(std::io::ErrorKind::NotFound.into()) }
        };
        let failed = |error| Error::io("open again", &self.path, error);
        let direct = match open(OFlags::DIRECT) {
            Ok(file) => Some(file),
            // Some filesystems have no direct reads.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => None,
            Err(error) => return Err(failed(error)),
        };
        let plain = open(OFlags::empty()).map_err(failed)?;
        Ok(ReadBack { direct, plain, path: self.path.clone(), len: self.len, sector_size: self.sector_size })
    }

    /// Has the kernel read the partition table again. Nothing to do for a file.
    pub fn reread_table(&self) -> Result<()> {
        if !self.is_device {
            return Ok(());
        }
        match ioctl::reread_table(&self.file) {
            // Devices that take no partitions, such as loop devices made without them.
            Ok(()) | Err(Errno::INVAL | Errno::NOTTY) => Ok(()),
            Err(error) => Err(Error::io("have the system read the new table of", &self.path, error.into())),
        }
    }

    fn failed(&self, action: &'static str, offset: u64, source: std::io::Error) -> Error {
        Error::Io { action, what: format!("{} at byte {offset:#x}", self.path.display()), source }
    }
}

/// Locks an open target for this run. The lock ends with the open file.
fn lock(file: &File, path: &Path) -> Result<()> {
    let started = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Refused(format!("{} is locked by another program", path.display())));
            }
            Err(error) => return Err(Error::io("lock", path, error.into())),
        }
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
        self.file.read_exact_at(buf, offset).map_err(|error| self.failed("read", offset, error))
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        Ok(Extent { offset, len: self.len.saturating_sub(offset), kind: ExtentKind::Data })
    }
}

impl WritableDisk for DeviceTarget {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        check_range(offset, buf_len(bytes), self.len)?;
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed("write", offset, error))
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        let end = check_range(offset, len, self.len)?;
        if len == 0 {
            return Ok(());
        }
        // A device zeroes by itself, with the promise that it reads as zero; a file gets a hole.
        let how = if self.is_device { FallocateFlags::ZERO_RANGE } else { FallocateFlags::PUNCH_HOLE };
        if fallocate(&self.file, how | FallocateFlags::KEEP_SIZE, offset, len).is_ok() {
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
            // A hint: what does not take it keeps its bytes.
            let _ = fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len);
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
        let mut done = 0;
        while done < want {
            let at = start.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            match file.read_at(aligned.get_mut(done..).expect("done is below its length"), at) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done = done.saturating_add(read),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // The end of a file is not always aligned, and not everything that opens this way reads this way.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => return Ok(false),
                Err(error) => return Err(error),
            }
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
        self.plain.read_exact_at(buf, offset).map_err(failed)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        check_range(offset, 1, self.len)?;
        Ok(Extent { offset, len: self.len.saturating_sub(offset), kind: ExtentKind::Data })
    }
}
