//! The configurations of loaders that are text.
//!
//! The oracle: what a line mentions lies inside of it, and boot.ini's digits are digits.

use imgfmt::startup::boot_ini::{self, ArcDisk};
use imgfmt::startup::grub_cfg::{self, Variables};
use imgfmt::startup::reference::{lines, mentions};
use imgfmt::startup::text_files;

/// Reads `data` as every kind of text.
pub fn run(data: &[u8]) {
    for (start, line) in lines(data) {
        assert_eq!(data.get(start..start.saturating_add(line.len())), Some(line), "a line lies where it says");
        for mention in mentions(line) {
            assert!(mention.range.start < mention.range.end && mention.range.end <= line.len(), "{mention:?}");
        }
    }
    let ini = boot_ini::parse(data);
    for path in ini.default.iter().chain(&ini.systems) {
        if let ArcDisk::Signature { signature, digits } = &path.disk {
            let text = std::str::from_utf8(&data[digits.clone()]).expect("digits");
            assert_eq!(u32::from_str_radix(text, 16), Ok(*signature));
        }
    }
    let config = grub_cfg::parse(data);
    assert_eq!(config.default_entry().is_some(), !config.entries.is_empty());
    let mut variables = Variables::default();
    for command in config.commands.iter().chain(config.entries.iter().flat_map(|entry| &entry.commands)) {
        for word in command {
            if let Some((name, value)) = word.split_once('=') {
                variables.set(name, value);
            }
            let _ = variables.put_in(word);
        }
    }
    let _ = (text_files::tab_lines(data), text_files::loader_entry(data));
    let _ = (text_files::loader_default(data), text_files::syslinux(data));
}

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};

    const SEED: &[u8] = b"set default=\"${next}\"\nset default=0\nif [ x = y ]; then search --no-floppy --fs-uuid --set=root aa-bb; fi\n\
        menuentry 'A \\'' --id a { linux ($root)/vmlinuz root=PARTUUID=aabbccdd-01 quiet # c\n initrd \"/i ${x}\" }\nsubmenu b { menuentry c {} }\n\
        [boot loader]\r\ndefault=signature(8b467c12)disk(0)rdisk(0)partition(1)\\W\r\n[operating systems]\r\nmulti(0)disk(0)rdisk(1)partition(2)\\W=\"x\"\r\n\
        UUID=\"aa\" / ext4 nofail 0 1\nlabel l\n kernel /k\n append initrd=/a,/b root=/dev/sda1\ndefault l*\nlinux /k\noptions root=LABEL=x\n";

    #[test]
    fn seed_and_mutations_of_it() {
        let mut random = Random::new(6);
        super::run(SEED);
        for _ in 0..10_000 {
            let mut text = SEED.to_vec();
            let len = text.len();
            mutate(&mut text, len, &mut random);
            // Whole pieces move and double, as no flip of bits makes them.
            if random.below(2) == 0 {
                let (from, to) = (random.below(len), random.below(len));
                let piece = text[from.min(to)..from.max(to)].to_vec();
                let at = random.below(len);
                text.splice(at..at, piece);
            }
            super::run(&text);
        }
    }
}
