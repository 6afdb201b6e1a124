//! Status codes of Windows, and how errors of the library become them. The one place.

use imgfmt::Error;

/// An `NTSTATUS`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Values and names are those of [MS-ERREF] 2.3.1.
impl Status {
    /// It worked.
    pub const SUCCESS: Self = Self(0);
    /// What was asked for does not fit into the buffer.
    pub const BUFFER_OVERFLOW: Self = Self(0x8000_0005);
    /// Dokan does what it does without this operation.
    pub const NOT_IMPLEMENTED: Self = Self(0xc000_0002);
    /// The handle is none of ours, or was closed.
    pub const INVALID_HANDLE: Self = Self(0xc000_0008);
    /// An argument makes no sense.
    pub const INVALID_PARAMETER: Self = Self(0xc000_000d);
    /// A file operation on a folder.
    pub const INVALID_DEVICE_REQUEST: Self = Self(0xc000_0010);
    /// A read at or behind the end.
    pub const END_OF_FILE: Self = Self(0xc000_0011);
    /// The library refused it for safety.
    pub const ACCESS_DENIED: Self = Self(0xc000_0022);
    /// No name can look like this.
    pub const OBJECT_NAME_INVALID: Self = Self(0xc000_0033);
    /// The folder has no such name.
    pub const OBJECT_NAME_NOT_FOUND: Self = Self(0xc000_0034);
    /// The name exists already.
    pub const OBJECT_NAME_COLLISION: Self = Self(0xc000_0035);
    /// A folder on the way does not exist.
    pub const OBJECT_PATH_NOT_FOUND: Self = Self(0xc000_003a);
    /// Nothing more fits onto the disk that the overlay lies on.
    pub const DISK_FULL: Self = Self(0xc000_007f);
    /// No memory.
    pub const INSUFFICIENT_RESOURCES: Self = Self(0xc000_009a);
    /// Bytes that were unreadable when the disk was captured.
    pub const DEVICE_DATA_ERROR: Self = Self(0xc000_009c);
    /// Everything that would write.
    pub const MEDIA_WRITE_PROTECTED: Self = Self(0xc000_00a2);
    /// A file was asked for, and this is a folder.
    pub const FILE_IS_A_DIRECTORY: Self = Self(0xc000_00ba);
    /// A feature that is not read.
    pub const NOT_SUPPORTED: Self = Self(0xc000_00bb);
    /// A bug of ours.
    pub const INTERNAL_ERROR: Self = Self(0xc000_00e5);
    /// Stored bytes break the rules of their format or fail their checksum.
    pub const FILE_CORRUPT_ERROR: Self = Self(0xc000_0102);
    /// A folder was asked for, and this is a file.
    pub const NOT_A_DIRECTORY: Self = Self(0xc000_0103);
    /// More open files than there can be.
    pub const TOO_MANY_OPENED_FILES: Self = Self(0xc000_011f);
    /// It stays where it is: a file that is to go when it is closed, on a volume that takes no writes.
    pub const CANNOT_DELETE: Self = Self(0xc000_0121);
    /// The caller gave up.
    pub const CANCELLED: Self = Self(0xc000_0120);
    /// The image could not be read, whatever it was.
    pub const IO_DEVICE_ERROR: Self = Self(0xc000_0185);
}

/// The status that a program sees.
///
/// The library says "there is no such name" by `None`, so [`Error::NotFound`] is something else that is missing, such as a pack: it must not
/// look like a missing file.
impl From<&Error> for Status {
    fn from(error: &Error) -> Self {
        match error {
            Error::Corrupt { .. } => Self::FILE_CORRUPT_ERROR,
            Error::Bad { .. } => Self::DEVICE_DATA_ERROR,
            Error::Unsupported { .. } => Self::NOT_SUPPORTED,
            Error::OutOfRange { .. } => Self::INVALID_PARAMETER,
            Error::Refused(_) => Self::ACCESS_DENIED,
            Error::Cancelled => Self::CANCELLED,
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::OutOfMemory => {
                Self::INSUFFICIENT_RESOURCES
            }
            Error::Io { source, .. }
                if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) =>
            {
                Self::DISK_FULL
            }
            // Whatever it was, it was about the image and not about the file in it.
            _ => Self::IO_DEVICE_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_has_its_own_codes_and_nothing_about_the_image_looks_like_a_missing_file() {
        let io = |kind| Status::from(&Error::io("read", "a.hik", std::io::Error::from(kind)));
        assert_eq!(Status::from(&Error::corrupt("chunk", 0, "broken")), Status(0xc000_0102));
        assert_eq!(Status::from(&Error::Bad { offset: 0, end: 512 }), Status(0xc000_009c));
        assert_eq!(Status::from(&Error::unsupported("file", "encryption")), Status(0xc000_00bb));
        assert_eq!(Status::from(&Error::Refused("no".into())), Status(0xc000_0022));
        assert_eq!(Status::from(&Error::Cancelled), Status(0xc000_0120));
        assert_eq!(Status::from(&Error::NotFound("a pack".into())), Status(0xc000_0185));
        assert_eq!(io(std::io::ErrorKind::NotFound), Status(0xc000_0185));
        assert_eq!(io(std::io::ErrorKind::PermissionDenied), Status(0xc000_0185));
        assert_eq!(io(std::io::ErrorKind::OutOfMemory), Status(0xc000_009a));
        assert_eq!(io(std::io::ErrorKind::StorageFull), Status(0xc000_007f));
    }
}
