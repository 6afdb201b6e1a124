//! Small configurations of Linux: fstab and crypttab, entries of the Boot Loader Specification, and syslinux.cfg.
//!
//! Sources: fstab(5), crypttab(5); "The Boot Loader Specification" (UAPI group); the Syslinux wiki, "Config".

use crate::startup::reference::lines;

/// Most lines of a file that are kept.
const MAX_LINES: usize = 10_000;

/// A line of fstab or crypttab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TabLine {
    /// The line, from 1 on.
    pub number: usize,
    /// Its fields.
    pub fields: Vec<String>,
}

/// The lines of fstab or crypttab that are no comments.
pub fn tab_lines(text: &[u8]) -> Vec<TabLine> {
    let mut found = Vec::new();
    for (number, (_, line)) in (1_usize..).zip(lines(text)).take(MAX_LINES) {
        let line = String::from_utf8_lossy(line);
        let fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if !fields.first().is_none_or(|field| field.starts_with('#')) {
            found.push(TabLine { number, fields });
        }
    }
    found
}

/// A system that a configuration starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// What the menu calls it. Untrusted text.
    pub title: String,
    /// The kernel's path.
    pub kernel: String,
    /// Paths of initial file systems.
    pub initrds: Vec<String>,
    /// Arguments of the kernel.
    pub arguments: String,
    /// A program that is started instead of a kernel.
    pub program: Option<String>,
}

/// Parses an entry of the Boot Loader Specification.
pub fn loader_entry(text: &[u8]) -> Kernel {
    let mut entry = Kernel::default();
    for (_, line) in lines(text).take(MAX_LINES) {
        let line = String::from_utf8_lossy(line);
        let Some((key, value)) = line.trim().split_once(char::is_whitespace) else { continue };
        let value = value.trim();
        match key {
            "title" => entry.title = value.into(),
            "linux" => entry.kernel = value.into(),
            "initrd" => entry.initrds.push(value.into()),
            "efi" | "uki" => entry.program = Some(value.into()),
            "options" => {
                entry.arguments.push_str(value);
                entry.arguments.push(' ');
            }
            _ => {}
        }
    }
    entry
}

/// The pattern of `default` in loader.conf.
pub fn loader_default(text: &[u8]) -> Option<String> {
    let line = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let (key, value) = line.trim().split_once(char::is_whitespace)?;
        (key == "default").then(|| value.trim().to_owned())
    };
    lines(text).take(MAX_LINES).filter_map(|(_, bytes)| line(bytes)).last()
}

/// A menu of Syslinux.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Syslinux {
    /// The label that is started unless somebody chooses.
    pub default: Option<String>,
    /// Its entries, by label.
    pub entries: Vec<(String, Kernel)>,
}

/// Parses syslinux.cfg.
pub fn syslinux(text: &[u8]) -> Syslinux {
    let mut config = Syslinux::default();
    for (_, line) in lines(text).take(MAX_LINES) {
        let line = String::from_utf8_lossy(line);
        let Some((key, value)) = line.trim().split_once(char::is_whitespace) else { continue };
        let value = value.trim();
        let entry = config.entries.last_mut().map(|(_, entry)| entry);
        match (key.to_ascii_lowercase().as_str(), entry) {
            ("default" | "ontimeout", _) if config.default.is_none() => config.default = Some(value.into()),
            ("label", _) => config.entries.push((value.into(), Kernel { title: value.into(), ..Kernel::default() })),
            ("kernel" | "linux", Some(entry)) => entry.kernel = value.into(),
            ("com32" | "boot" | "bss", Some(entry)) => entry.program = Some(value.into()),
            ("initrd", Some(entry)) => entry.initrds.extend(value.split(',').map(str::to_owned)),
            ("append", Some(entry)) => {
                let initrd = |word: &str| word.strip_prefix("initrd=").map(str::to_owned);
                let initrds = value.split_whitespace().filter_map(initrd);
                entry.initrds.extend(initrds.flat_map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>()));
                entry.arguments = value.into();
            }
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read() {
        let tab = tab_lines(b"# <fs>\n\nUUID=a / ext4 defaults 0 1\n");
        assert_eq!((tab.len(), tab[0].number, tab[0].fields[1].as_str()), (1, 3, "/"));
        let entry = loader_entry(b"title T\nlinux /k\ninitrd /a\ninitrd /b\noptions root=UUID=x\noptions ro\n#x\n");
        assert_eq!((entry.kernel.as_str(), entry.initrds.len(), entry.arguments.trim()), ("/k", 2, "root=UUID=x ro"));
        assert_eq!(loader_default(b"timeout 3\ndefault debian-*\n").as_deref(), Some("debian-*"));
        let menu = syslinux(
            b"DEFAULT linux\nLABEL linux\n KERNEL /vmlinuz\n APPEND root=/dev/sda1 initrd=/i,/j ro\nLABEL x\n",
        );
        assert_eq!((menu.default.as_deref(), menu.entries.len()), (Some("linux"), 2));
        assert_eq!(menu.entries[0].1.initrds, ["/i", "/j"]);
    }
}
