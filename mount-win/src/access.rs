//! What a program wants of a file that it opens, and what is answered: by a tree that nobody can write to, and by its files that take writes.
//!
//! Source: `ZwCreateFile` (wdm.h); [MS-FSA] 2.1.5.1 (phase 1: arguments; 2: volume; 6: missing names; 7: kinds), 2.1.5.1.2.1 (files that are there); access masks:
//! [MS-DTYP] 2.4.3, [MS-SMB2] 2.2.13.1. What those sections refuse of rights and options of waiting, the system has refused before Dokan's driver hears of it.

use crate::status::Status;

/// What is to happen to a name that exists, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Replace it, or create it (`FILE_SUPERSEDE`).
    Supersede,
    /// Open it, or fail (`FILE_OPEN`).
    Open,
    /// Create it, or fail (`FILE_CREATE`).
    Create,
    /// Open it, or create it (`FILE_OPEN_IF`).
    OpenIf,
    /// Empty it, or fail (`FILE_OVERWRITE`).
    Overwrite,
    /// Empty it, or create it (`FILE_OVERWRITE_IF`).
    OverwriteIf,
}

impl Disposition {
    /// The disposition with a number of `ZwCreateFile`.
    pub fn parse(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Supersede,
            1 => Self::Open,
            2 => Self::Create,
            3 => Self::OpenIf,
            4 => Self::Overwrite,
            5 => Self::OverwriteIf,
            _ => return None,
        })
    }
}

/// `FILE_DIRECTORY_FILE`: it must be a folder.
pub const DIRECTORY_FILE: u32 = 0x0000_0001;
/// `FILE_WRITE_THROUGH`: a write is durable when it is answered.
pub const WRITE_THROUGH: u32 = 0x0000_0002;
/// `FILE_NON_DIRECTORY_FILE`: it must not be a folder.
pub const NON_DIRECTORY_FILE: u32 = 0x0000_0040;
/// `FILE_DELETE_ON_CLOSE`.
pub const DELETE_ON_CLOSE: u32 = 0x0000_1000;

/// `DELETE`, and what comprises it (`MAXIMUM_ALLOWED`, `GENERIC_ALL`).
const DELETE: u32 = 0x0001_0000 | 0x0200_0000 | 0x1000_0000;
/// Rights to the content: `FILE_READ_DATA`, `FILE_EXECUTE`, and what comprises them (`MAXIMUM_ALLOWED`, `GENERIC_ALL`, `_EXECUTE`, `_READ`).
const CONTENT: u32 = 0x0000_0001 | 0x0000_0020 | 0x0200_0000 | 0x1000_0000 | 0x2000_0000 | 0x8000_0000;
/// Rights that change something: `FILE_WRITE_DATA`, `_APPEND_DATA`, `_WRITE_EA`, `_DELETE_CHILD`, `_WRITE_ATTRIBUTES`, `DELETE`, `WRITE_DAC`,
/// `WRITE_OWNER`, `GENERIC_ALL`, `GENERIC_WRITE`.
const WRITING: u32 = 0x0000_0002
    | 0x0000_0004
    | 0x0000_0010
    | 0x0000_0040
    | 0x0000_0100
    | 0x0001_0000
    | 0x0004_0000
    | 0x0008_0000
    | 0x1000_0000
    | 0x4000_0000;

/// Those of them that a file gives that takes writes: it stays where it is and belongs to whom it belongs to.
const WRITABLE: u32 = 0x0000_0002 | 0x0000_0004 | 0x0000_0010 | 0x0000_0100 | 0x4000_0000;

/// A wish to open something.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Rights that are asked for: an access mask.
    pub access: u32,
    /// What is to happen.
    pub disposition: Disposition,
    /// `FILE_*` options of the call.
    pub options: u32,
}

impl Wish {
    /// Checks the arguments of a call.
    pub fn parse(access: u32, disposition: u32, options: u32) -> Result<Self, Status> {
        let disposition = Disposition::parse(disposition).ok_or(Status::INVALID_PARAMETER)?;
        let wish = Self { access, disposition, options };
        let is_wrong = wish.has(DIRECTORY_FILE) && (wish.has(NON_DIRECTORY_FILE) || wish.empties())
            || wish.has(DELETE_ON_CLOSE) && access & DELETE == 0;
        if is_wrong { Err(Status::INVALID_PARAMETER) } else { Ok(wish) }
    }

    fn has(&self, option: u32) -> bool {
        self.options & option != 0
    }

    /// Whether a file that is there loses its content.
    fn empties(&self) -> bool {
        matches!(self.disposition, Disposition::Supersede | Disposition::Overwrite | Disposition::OverwriteIf)
    }

    /// Whether it cannot be fulfilled on a volume that takes no writes at all, whatever is there.
    pub fn changes_volume(&self) -> bool {
        self.empties() || self.disposition == Disposition::Create
    }

    /// Whether a name that is not there would be created.
    pub fn creates(&self) -> bool {
        !matches!(self.disposition, Disposition::Open | Disposition::Overwrite)
    }

    /// Whether each write is to be durable when it is answered.
    pub fn writes_through(&self) -> bool {
        self.has(WRITE_THROUGH)
    }

    /// Checks how the path ends.
    pub fn check_path(&self, must_be_folder: bool) -> Result<(), Status> {
        let is_wrong = must_be_folder && self.has(NON_DIRECTORY_FILE);
        if is_wrong { Err(Status::OBJECT_NAME_INVALID) } else { Ok(()) }
    }

    /// Says whether the content will be read.
    pub fn reads_content(&self) -> bool {
        self.access & CONTENT != 0
    }

    /// The answer where there is no such name.
    pub fn for_missing(&self) -> Status {
        if self.creates() { Status::MEDIA_WRITE_PROTECTED } else { Status::OBJECT_NAME_NOT_FOUND }
    }

    /// The answer where there is one, which `must_be_folder` if the path ends like that of a folder.
    pub fn for_existing(&self, is_folder: bool, must_be_folder: bool) -> Result<(), Status> {
        if self.disposition == Disposition::Create {
            return Err(Status::OBJECT_NAME_COLLISION);
        }
        if is_folder && self.has(NON_DIRECTORY_FILE) {
            return Err(Status::FILE_IS_A_DIRECTORY);
        }
        if !is_folder && (must_be_folder || self.has(DIRECTORY_FILE)) {
            return Err(Status::NOT_A_DIRECTORY);
        }
        if self.has(DELETE_ON_CLOSE) {
            return Err(Status::CANNOT_DELETE);
        }
        if self.empties() || self.access & WRITING != 0 { Err(Status::MEDIA_WRITE_PROTECTED) } else { Ok(()) }
    }

    /// The answer where there is a file that takes writes: whether it is to be emptied.
    pub fn for_writable(&self, must_be_folder: bool) -> Result<bool, Status> {
        if self.disposition == Disposition::Create {
            return Err(Status::OBJECT_NAME_COLLISION);
        }
        if must_be_folder || self.has(DIRECTORY_FILE) {
            return Err(Status::NOT_A_DIRECTORY);
        }
        if self.access & WRITING & !WRITABLE != 0 || self.has(DELETE_ON_CLOSE) {
            return Err(Status::ACCESS_DENIED);
        }
        Ok(self.empties())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(access: u32, disposition: u32, options: u32) -> Wish {
        Wish::parse(access, disposition, options).unwrap()
    }

    #[test]
    fn dispositions_have_the_documented_answers() {
        const OK: u32 = 0;
        const PROTECTED: u32 = 0xc000_00a2;
        const NOT_FOUND: u32 = 0xc000_0034;
        const COLLISION: u32 = 0xc000_0035;
        // Disposition; existing; missing.
        let table = [
            (0, PROTECTED, PROTECTED),
            (1, OK, NOT_FOUND),
            (2, COLLISION, PROTECTED),
            (3, OK, PROTECTED),
            (4, PROTECTED, NOT_FOUND),
            (5, PROTECTED, PROTECTED),
        ];
        for (disposition, existing, missing) in table {
            let wish = wish(0x0012_0089, disposition, 0);
            let answer = wish.for_existing(false, false).err().unwrap_or(Status::SUCCESS);
            assert_eq!((answer, wish.for_missing()), (Status(existing), Status(missing)), "{disposition}");
        }
        for (access, disposition, options) in
            [(1, 6, 0), (1, 1, 0x41), (1, 1, DELETE_ON_CLOSE), (1, 0, 1), (1, 4, 1), (1, 5, 1)]
        {
            let wish = Wish::parse(access, disposition, options);
            assert_eq!(wish.unwrap_err(), Status::INVALID_PARAMETER, "{access:#x} {disposition} {options:#x}");
        }
        let changing: Vec<u32> = (0..6).filter(|disposition| wish(1, *disposition, 0).changes_volume()).collect();
        assert_eq!(changing, [0, 2, 4, 5]);
        assert_eq!(wish(1, 1, NON_DIRECTORY_FILE).check_path(true), Err(Status::OBJECT_NAME_INVALID));
        assert_eq!(wish(1, 1, DIRECTORY_FILE).check_path(true), Ok(()));
    }

    #[test]
    fn rights_to_change_are_refused_and_all_others_given() {
        for access in [0x0012_0089, 0x0012_00a9, 0x80, 0x8000_0000, 0x2000_0000, 0x0200_0000, 0x0010_0000, 0x0102_0000]
        {
            assert_eq!(wish(access, 1, 0).for_existing(false, false), Ok(()), "{access:#x}");
        }
        for access in [2, 4, 0x10, 0x40, 0x100, 0x1_0000, 0x4_0000, 0x8_0000, 0x1000_0000, 0x4000_0000, 0x0012_019f] {
            assert_eq!(wish(access, 1, 0).for_existing(true, false), Err(Status::MEDIA_WRITE_PROTECTED), "{access:#x}");
        }
        assert_eq!(wish(0x1_0000, 1, DELETE_ON_CLOSE).for_existing(false, false), Err(Status::CANNOT_DELETE));
        assert!(wish(0x0012_0089, 1, 0).reads_content() && !wish(0x0012_0080, 1, 0).reads_content());
    }

    #[test]
    fn files_that_take_writes_are_opened_for_that_and_for_nothing_that_takes_them_away() {
        const DENIED: Status = Status::ACCESS_DENIED;
        for access in [0x0012_0089, 0x0012_019f, 2, 4, 0x10, 0x100, 0x4000_0000, 0xc000_0000, 0x0200_0000] {
            assert_eq!(wish(access, 1, 0).for_writable(false), Ok(false), "{access:#x}");
        }
        for access in [0x1_0000, 0x4_0000, 0x8_0000, 0x40, 0x1000_0000] {
            assert_eq!(wish(access, 1, 0).for_writable(false), Err(DENIED), "{access:#x}");
        }
        let by_disposition = [Ok(true), Ok(false), Err(Status::OBJECT_NAME_COLLISION), Ok(false), Ok(true), Ok(true)];
        for (disposition, answer) in (0..).zip(by_disposition) {
            assert_eq!(wish(2, disposition, 0).for_writable(false), answer, "{disposition}");
        }
        assert_eq!(wish(0x0200_0000, 1, DELETE_ON_CLOSE).for_writable(false), Err(DENIED));
        assert_eq!(wish(2, 1, 0).for_writable(true), Err(Status::NOT_A_DIRECTORY));
        assert_eq!(wish(2, 1, DIRECTORY_FILE).for_writable(false), Err(Status::NOT_A_DIRECTORY));
    }

    #[test]
    fn folders_and_files_are_what_was_asked_for() {
        assert_eq!(wish(1, 1, NON_DIRECTORY_FILE).for_existing(true, false), Err(Status::FILE_IS_A_DIRECTORY));
        assert_eq!(wish(1, 1, DIRECTORY_FILE).for_existing(false, false), Err(Status::NOT_A_DIRECTORY));
        assert_eq!(wish(1, 1, 0).for_existing(false, true), Err(Status::NOT_A_DIRECTORY));
        assert_eq!(wish(1, 1, DIRECTORY_FILE).for_existing(true, true), Ok(()));
    }
}
