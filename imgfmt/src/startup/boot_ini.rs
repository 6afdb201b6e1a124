//! boot.ini: the menu of NTLDR, the loader of Windows NT, 2000 and XP.
//!
//! Source: "Boot.ini Boot Parameter Reference" and "Understanding ARC Paths" (Microsoft Knowledge Base 102873).

use std::ops::Range;

use crate::startup::reference::lines;

/// Where an ARC path looks for its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArcDisk {
    /// `multi(a)disk(b)rdisk(n)`: the n-th disk as the BIOS counts.
    Bios(u32),
    /// `scsi(a)disk(b)rdisk(c)`: through a driver of its own, ntbootdd.sys.
    Scsi,
    /// `signature(x)`: the disk with this signature.
    Signature {
        /// The signature.
        signature: u32,
        /// Where its digits lie in the file.
        digits: Range<usize>,
    },
}

/// A path such as `multi(0)disk(0)rdisk(0)partition(1)\WINDOWS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArcPath {
    /// The disk.
    pub disk: ArcDisk,
    /// The partition: primary ones are counted first, from 1 on.
    pub partition: u32,
    /// The folder of the system, with `\` before it.
    pub folder: String,
    /// The line, from 1 on.
    pub line: usize,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootIni {
    /// What is started unless somebody chooses.
    pub default: Option<ArcPath>,
    /// The systems of the menu that lie in partitions.
    pub systems: Vec<ArcPath>,
}

/// Parses the file. Lines that are not understood are left out.
pub fn parse(text: &[u8]) -> BootIni {
    let mut ini = BootIni::default();
    let mut section = String::new();
    for (number, (start, line)) in (1_usize..).zip(lines(text)) {
        let trimmed = line.trim_ascii();
        if let Some(name) = trimmed.strip_prefix(b"[") {
            section = String::from_utf8_lossy(name.strip_suffix(b"]").unwrap_or(name)).to_ascii_lowercase();
            continue;
        }
        match section.as_str() {
            "boot loader" | "flexboot" => {
                let Some(equals) = line.iter().position(|byte| *byte == b'=') else { continue };
                let (key, _) = line.split_at(equals);
                if key.trim_ascii().eq_ignore_ascii_case(b"default") {
                    ini.default = arc_path(line, equals.saturating_add(1), start, number);
                }
            }
            "operating systems" => ini.systems.extend(arc_path(line, 0, start, number)),
            _ => {}
        }
    }
    ini
}

/// Parses an ARC path that begins at `from` of a line. `start` is the place of the line.
fn arc_path(line: &[u8], from: usize, start: usize, number: usize) -> Option<ArcPath> {
    let skip = line.get(from..)?.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let mut at = from.saturating_add(skip);
    let mut part = |names: &[&str]| -> Option<(String, Range<usize>)> {
        let rest = line.get(at..)?;
        let open = rest.iter().position(|byte| *byte == b'(')?;
        let close = rest.iter().position(|byte| *byte == b')').filter(|close| *close > open)?;
        let name = String::from_utf8_lossy(rest.get(..open)?).to_ascii_lowercase();
        if !names.contains(&name.as_str()) {
            return None;
        }
        let value = at.saturating_add(open).saturating_add(1)..at.saturating_add(close);
        at = at.saturating_add(close).saturating_add(1);
        Some((name, value))
    };
    let text = |range: &Range<usize>| String::from_utf8_lossy(line.get(range.clone()).unwrap_or_default()).into_owned();
    let (adapter, adapter_value) = part(&["multi", "scsi", "signature"])?;
    part(&["disk"])?;
    let (_, rdisk) = part(&["rdisk"])?;
    let (_, partition) = part(&["partition"])?;
    let disk = match adapter.as_str() {
        "multi" => ArcDisk::Bios(text(&rdisk).trim().parse().ok()?),
        "scsi" => ArcDisk::Scsi,
        _ => ArcDisk::Signature {
            signature: u32::from_str_radix(&text(&adapter_value), 16).ok()?,
            digits: start.saturating_add(adapter_value.start)..start.saturating_add(adapter_value.end),
        },
    };
    let folder: Vec<u8> = line.get(at..)?.iter().copied().take_while(|byte| *byte != b'=').collect();
    Some(ArcPath {
        disk,
        partition: text(&partition).trim().parse().ok()?,
        folder: String::from_utf8_lossy(folder.trim_ascii()).into_owned(),
        line: number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_and_systems_are_read() {
        let text = b"[boot loader]\r\ntimeout=30\r\ndefault = multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS\r\n[operating systems]\r\n\
            multi(0)disk(0)rdisk(0)partition(1)\\WINDOWS=\"XP\" /fastdetect\r\nsignature(8b467c12)disk(1)rdisk(0)partition(2)\\WINNT=\"2000\"\r\n\
            C:\\bootsect.dos=\"DOS\"\r\nscsi(0)disk(1)rdisk(0)partition(3)\\NT4=\"NT\"\r\nmulti(0)disk(0)rdisk(x)partition(1)\\X=\"\"\r\n";
        let ini = parse(text);
        let default = ini.default.unwrap();
        assert_eq!((default.disk, default.partition, default.folder.as_str()), (ArcDisk::Bios(0), 1, "\\WINDOWS"));
        assert_eq!(ini.systems.len(), 3);
        let ArcDisk::Signature { signature, digits } = &ini.systems[1].disk else { panic!() };
        assert_eq!((*signature, &text[digits.clone()]), (0x8b46_7c12, &b"8b467c12"[..]));
        assert_eq!((ini.systems[2].disk.clone(), ini.systems[2].partition), (ArcDisk::Scsi, 3));
    }
}
