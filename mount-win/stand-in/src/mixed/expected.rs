//! What is documented of calls, written down a second time: it shares no code with what it judges.
//!
//! Source: [MS-FSA] 2.1.5.1 (opening), 2.1.4.4 (names in expressions).

use crate::calls::{DIRECTORY_FILE, NON_DIRECTORY_FILE, status};
use crate::library::{DELETE, READ_ONLY};

/// `FILE_DELETE_ON_CLOSE`.
pub(super) const DELETE_ON_CLOSE: u32 = 0x1000;
/// `MAXIMUM_ALLOWED`.
pub(super) const MAXIMUM: u32 = 0x0200_0000;
/// Rights to change what is in a file: `FILE_WRITE_DATA`, `_APPEND_DATA`, `_WRITE_EA`, `_WRITE_ATTRIBUTES`, `GENERIC_WRITE`.
const CONTENT: u32 = 0x2 | 0x4 | 0x10 | 0x100 | 0x4000_0000;
/// Rights to change where it is and whose: `FILE_DELETE_CHILD`, `DELETE`, `WRITE_DAC`, `WRITE_OWNER`, `GENERIC_ALL`.
const BELONGING: u32 = 0x40 | DELETE | 0x4_0000 | 0x8_0000 | 0x1000_0000;

/// What a path leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Nothing: the folder of the last name is not there.
    NoPath,
    /// Nothing.
    NoName,
    /// A folder, with these attributes.
    Folder(u32),
    /// A file or stream that takes no writes, with these attributes.
    File(u32),
    /// A file that takes writes, and whether it can be emptied.
    Writable(bool),
}

/// The wish to open something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) access: u32,
    pub(super) disposition: u32,
    pub(super) options: u32,
    /// The path ends with a backslash.
    pub(super) ends_like_folder: bool,
}

impl Wish {
    fn empties(self) -> bool {
        matches!(self.disposition, 0 | 4 | 5)
    }

    /// The answer of a drive on which some files take writes: whether a folder was opened.
    pub(super) fn answer(self, target: Target) -> Result<bool, u32> {
        let Self { access, disposition, options, ends_like_folder } = self;
        let (must_be_folder, must_be_file) = (options & DIRECTORY_FILE != 0, options & NON_DIRECTORY_FILE != 0);
        let deletes = options & DELETE_ON_CLOSE != 0;
        // Phase 1.
        if disposition > 5
            || must_be_folder && (must_be_file || self.empties())
            || deletes && access & (DELETE | MAXIMUM | 0x1000_0000) == 0
        {
            return Err(status::INVALID_PARAMETER);
        }
        if ends_like_folder && must_be_file {
            return Err(status::OBJECT_NAME_INVALID);
        }
        // Phase 6.
        match target {
            Target::NoPath => return Err(status::OBJECT_PATH_NOT_FOUND),
            Target::NoName if matches!(disposition, 1 | 4) => return Err(status::OBJECT_NAME_NOT_FOUND),
            // Nobody has the right to add names.
            Target::NoName => return Err(status::ACCESS_DENIED),
            _ if disposition == 2 => return Err(status::OBJECT_NAME_COLLISION),
            _ => {}
        }
        // Phase 7.
        let is_folder = matches!(target, Target::Folder(_));
        if is_folder && must_be_file {
            return Err(status::FILE_IS_A_DIRECTORY);
        }
        if !is_folder && (must_be_folder || ends_like_folder) {
            return Err(status::NOT_A_DIRECTORY);
        }
        // 2.1.5.1.2.1.
        match target {
            Target::Folder(attributes) | Target::File(attributes) if deletes => {
                Err(if attributes & READ_ONLY != 0 { status::CANNOT_DELETE } else { status::ACCESS_DENIED })
            }
            Target::Writable(_) if deletes || access & BELONGING != 0 => Err(status::ACCESS_DENIED),
            Target::Writable(false) if self.empties() => Err(status::ACCESS_DENIED),
            Target::Writable(_) => Ok(false),
            _ if self.empties() || access & (CONTENT | BELONGING) != 0 => Err(status::ACCESS_DENIED),
            _ => Ok(is_folder),
        }
    }

    /// Whether a success says that the file was there already.
    pub(super) fn tells_of_existence(self) -> bool {
        matches!(self.disposition, 0 | 3 | 5)
    }

    /// Whether an opened file loses its content.
    pub(super) fn empties_it(self) -> bool {
        self.empties()
    }
}

/// Says whether a name is in an expression, without regard to the case of ASCII letters.
pub(super) fn is_in_expression(name: &[u16], expression: &[u16]) -> bool {
    let Some((&first, rest)) = expression.split_first() else { return name.is_empty() };
    let (unit, behind) = (name.first().copied(), name.get(1..).unwrap_or_default());
    let upper = |unit: u16| if (0x61..=0x7a).contains(&unit) { unit - 0x20 } else { unit };
    let here = |may: bool| may && is_in_expression(name, rest);
    match (u8::try_from(first).map_or(char::MIN, char::from), unit) {
        ('*', _) => here(true) || unit.is_some() && is_in_expression(behind, expression),
        // DOS_STAR does not go past the last dot.
        ('<', _) => {
            let is_last_dot = unit == Some(0x2e) && !behind.contains(&0x2e);
            here(true) || unit.is_some() && !is_last_dot && is_in_expression(behind, expression)
        }
        ('>', None | Some(0x2e)) | ('"', None) => here(true),
        ('"', Some(unit)) => unit == 0x2e && is_in_expression(behind, rest),
        ('?' | '>', Some(_)) => is_in_expression(behind, rest),
        (_, Some(unit)) => upper(unit) == upper(first) && is_in_expression(behind, rest),
        (_, None) => false,
    }
}
