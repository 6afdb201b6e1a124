//! What a drive on Windows makes of names, paths, patterns and security descriptors that are not its own.

use imgfmt::filesystem::utf16::{to_wtf8, units};
use mount_win::names::{MAX_UNITS, key, raw, shown, tagged};
use mount_win::path::Path;
use mount_win::security::select;
use mount_win::wildcard::Pattern;

/// Bytes that are matched against the slow matcher, which takes time that grows fast.
const SHORT: usize = 12;

/// Takes `data` as a name, a path, a pattern with a name, and a descriptor.
pub fn run(data: &[u8]) {
    name(data);
    let text = units(data);
    if let Ok(path) = Path::parse(&text) {
        let mut again = vec![0x5c];
        again.extend(path.names.join(&0x5c));
        let named = Path::parse(&again).expect("names of a path are a path");
        assert_eq!(named.names, path.names);
    }
    for half in [text.len() / 2, text.len() / 3] {
        let (pattern, name) = text.split_at(half);
        let matches = Pattern::new(pattern).matches(name);
        if pattern.len() <= SHORT && name.len() <= SHORT {
            assert_eq!(matches, slowly(&key(pattern), &key(name)), "{pattern:x?} {name:x?}");
        }
    }
    for wanted in 0..16 {
        if let Some(selected) = select(data, wanted) {
            // The parts of a descriptor can be selected again.
            assert_eq!(select(&selected, wanted).as_ref(), Some(&selected));
        }
    }
}

/// Each name is shown in one way that leads back and that fits.
fn name(data: &[u8]) {
    let name: Vec<u8> = data.iter().copied().filter(|byte| !matches!(byte, 0 | b'/')).collect();
    if matches!(name.as_slice(), b"" | b"." | b"..") {
        return;
    }
    let plain = shown(&name);
    if let Some(plain) = &plain {
        assert_eq!(raw(&to_wtf8(plain)).as_deref(), Some(&name[..]));
    }
    let path = |name: &[u16]| Path::parse(&[&[0x5c], name].concat());
    for shown in plain.into_iter().chain([tagged(&name)]) {
        assert!(shown.len() <= MAX_UNITS);
        assert_eq!(path(&shown).map(|path| path.names), Ok(vec![shown]));
    }
}

/// The matcher as its documentation reads, by trying everything. A name that is empty is matched by nothing but an empty pattern.
fn slowly(pattern: &[u16], name: &[u16]) -> bool {
    if name.is_empty() || pattern.is_empty() {
        return name.is_empty() && pattern.is_empty();
    }
    let last_dot = name.iter().rposition(|unit| *unit == 0x2e);
    try_from(pattern, name, 0, last_dot)
}

fn try_from(pattern: &[u16], name: &[u16], at: usize, last_dot: Option<usize>) -> bool {
    let here = name.get(at).copied();
    let Some((first, rest)) = pattern.split_first() else { return here.is_none() };
    let behind = at.saturating_add(1);
    let skips = || try_from(rest, name, at, last_dot);
    let takes = || here.is_some() && try_from(rest, name, behind, last_dot);
    let stays = || here.is_some() && try_from(pattern, name, behind, last_dot);
    match first {
        0x2a => skips() || stays(),
        0x3c => skips() || (Some(at) != last_dot && stays()),
        0x3f => takes(),
        0x3e if matches!(here, None | Some(0x2e)) => skips(),
        0x3e => takes(),
        0x22 if here.is_none() => skips(),
        0x22 => here == Some(0x2e) && takes(),
        other => here == Some(*other) && takes(),
    }
}

#[cfg(test)]
mod tests {
    use crate::mutate::{Random, mutate};

    #[test]
    fn seeds_and_mutations_of_them() {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let long = "\u{65e5}\u{1f600}:".repeat(150);
        let seeds = [
            b"a:b%3A con. ".to_vec(),
            b"NUL.tar.gz%25%2E".to_vec(),
            long.clone().into_bytes(),
            wide(r"\p1\folder\file.txt:stream:$DATA"),
            wide("<.*>>\"a?*a.b.c.ab"),
            wide(">>>>\">>>abcd.ef"),
            wide(&long),
            mount_win::security::everyone_may_read(true),
        ];
        let mut random = Random::new(7);
        for seed in seeds {
            super::run(&seed);
            for _ in 0..600 {
                let mut data = seed.clone();
                let limit = data.len();
                mutate(&mut data, limit, &mut random);
                super::run(&data);
            }
        }
        // Patterns and names of few letters, which meet often.
        for _ in 0..15_000 {
            let letters = ['*', '?', '<', '>', '"', '.', 'a', 'b'];
            let text: String = (0..random.below(16)).map(|_| letters[random.below(letters.len())]).collect();
            super::run(&wide(&text));
        }
    }
}
