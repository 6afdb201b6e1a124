//! Files whose content nobody wants back (S6): paging and hibernation files of Windows.

/// Files in the root folder whose content need not be kept. Compared without regard to case.
pub const NAMES: [&str; 3] = ["pagefile.sys", "hiberfil.sys", "swapfile.sys"];

/// What the user should know of a hibernation file with these first bytes.
pub fn hibernation_warning(magic: [u8; 4]) -> Option<String> {
    let active = matches!(&magic.to_ascii_lowercase()[..], b"hibr" | b"rstr");
    active.then(|| {
        "Windows is hibernated or used fast start-up: the session in it is not kept, and a restored system starts anew"
            .to_owned()
    })
}
