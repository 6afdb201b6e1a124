//! How errors of the library become error numbers. The one place.

use fuser::Errno;
use imgfmt::Error;

/// The number that a program sees.
///
/// The library says "there is no such name" by `None`, so [`Error::NotFound`] is something else that is missing, such as a pack: it must not
/// look like a missing file.
pub(crate) fn errno(error: &Error) -> Errno {
    match error {
        Error::Corrupt { .. } | Error::Bad { .. } | Error::NotFound(_) => Errno::EIO,
        Error::Unsupported { .. } => Errno::EOPNOTSUPP,
        Error::OutOfRange { .. } => Errno::EINVAL,
        Error::Refused(_) => Errno::EPERM,
        Error::Cancelled => Errno::EINTR,
        Error::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::OutOfMemory => Errno::ENOMEM,
            // The file that takes the writes found no room; virtual machines stop then, and go on when there is some.
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Errno::ENOSPC,
            // Whatever it was, it was about the image and not about the file in it.
            _ => Errno::EIO,
        },
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_eio_and_nothing_about_the_image_looks_like_a_missing_file() {
        let io = |kind| Error::io("read", "a.hik", std::io::Error::from(kind));
        assert_eq!(errno(&Error::corrupt("chunk", 0, "broken")), Errno::EIO);
        assert_eq!(errno(&Error::Bad { offset: 0, end: 512 }), Errno::EIO);
        assert_eq!(errno(&Error::NotFound("a pack".into())), Errno::EIO);
        assert_eq!(errno(&io(std::io::ErrorKind::NotFound)), Errno::EIO);
        assert_eq!(errno(&io(std::io::ErrorKind::PermissionDenied)), Errno::EIO);
        assert_eq!(errno(&io(std::io::ErrorKind::OutOfMemory)), Errno::ENOMEM);
        assert_eq!(errno(&io(std::io::ErrorKind::StorageFull)), Errno::ENOSPC);
        assert_eq!(errno(&Error::unsupported("file", "encryption")), Errno::EOPNOTSUPP);
        assert_eq!(errno(&Error::Refused("no".into())), Errno::EPERM);
    }
}
