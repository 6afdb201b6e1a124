//! Where a drive appears: a letter or an empty folder.

use std::path::{Path, PathBuf};

/// A place for a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A drive letter, upper case.
    Letter(char),
    /// A folder.
    Folder(PathBuf),
}

impl Place {
    /// `X:`, `x:\` and `X:/` are letters; anything else is a folder.
    pub fn parse(place: &Path) -> Self {
        let text = place.to_string_lossy();
        let mut chars = text.chars();
        match (chars.next(), chars.next(), chars.next(), chars.next()) {
            (Some(letter), Some(':'), None | Some('\\' | '/'), None) if letter.is_ascii_alphabetic() => {
                Self::Letter(letter.to_ascii_uppercase())
            }
            _ => Self::Folder(place.to_owned()),
        }
    }

    /// As Dokan wants it: `X:\`, or the path without a slash at its end.
    pub fn mount_point(&self) -> String {
        match self {
            Self::Letter(letter) => format!("{letter}:\\"),
            Self::Folder(folder) => folder.to_string_lossy().trim_end_matches(['\\', '/']).to_owned(),
        }
    }

    /// A name for what belongs to this place, the same however the place is written. Names of objects of Windows cannot hold backslashes.
    pub fn object_name(&self) -> String {
        let point = self.mount_point().to_uppercase().replace(['\\', '/'], "|");
        format!("Local\\hikae-mount-{point}")
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Letter(letter) => write!(f, "{letter}:"),
            Self::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_folders_are_told_apart() {
        for text in ["x:", "X:", r"x:\", "X:/"] {
            assert_eq!(Place::parse(Path::new(text)), Place::Letter('X'));
        }
        for text in ["x", "xy:", r"x:\a", "1:", r"\\server\share", "x:a"] {
            assert_eq!(Place::parse(Path::new(text)), Place::Folder(text.into()));
        }
        assert_eq!(Place::Letter('X').mount_point(), r"X:\");
        let folder = |text: &str| Place::Folder(text.into());
        assert_eq!(folder(r"C:\mnt\").mount_point(), r"C:\mnt");
        assert_eq!(folder(r"C:\mnt\").object_name(), folder("c:/Mnt").object_name());
    }
}
