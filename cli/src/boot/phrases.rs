//! What guests say when they are up, when they wait, and when they have failed.

/// What a phrase on the serial port or the screen means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The system is up.
    Up,
    /// It will not come up, whatever follows.
    Failed,
    /// It will not come up unless something else follows: another device is tried, a menu appears.
    FailedIfLast,
    /// The firmware started something that has not spoken yet, where nothing stands behind it.
    HandedOver,
    /// A boot loader's menu.
    Menu,
    /// A boot loader's prompt, where nothing stands behind it.
    Prompt,
}

/// The known phrases, failures first: a text with both has failed.
const PHRASES: &[(Meaning, &str)] = &[
    (Meaning::Failed, "Kernel panic"),
    (Meaning::Failed, "grub rescue>"),
    (Meaning::Failed, "(initramfs)"),
    (Meaning::Failed, "Gave up waiting for root"),
    (Meaning::Failed, "dracut:/#"),
    (Meaning::Failed, "You are in emergency mode"),
    (Meaning::Failed, "Give root password for maintenance"),
    (Meaning::FailedIfLast, "No bootable device"),
    (Meaning::FailedIfLast, "not a bootable disk"),
    (Meaning::FailedIfLast, "Non-System disk"),
    (Meaning::FailedIfLast, "Operating system not found"),
    (Meaning::FailedIfLast, "Missing operating system"),
    (Meaning::FailedIfLast, "Error loading operating system"),
    (Meaning::FailedIfLast, "Invalid partition table"),
    (Meaning::FailedIfLast, "No active partition"),
    (Meaning::FailedIfLast, "BOOTMGR is missing"),
    (Meaning::FailedIfLast, "BOOTMGR is compressed"),
    (Meaning::FailedIfLast, "BOOTMGR image is corrupt"),
    (Meaning::FailedIfLast, "NTLDR is missing"),
    (Meaning::FailedIfLast, "NTLDR is compressed"),
    (Meaning::FailedIfLast, "A disk read error occurred"),
    (Meaning::FailedIfLast, "Windows failed to start"),
    (Meaning::FailedIfLast, "Windows Boot Manager has experienced"),
    (Meaning::FailedIfLast, "INACCESSIBLE_BOOT_DEVICE"),
    (Meaning::FailedIfLast, "PC ran into a problem"),
    (Meaning::FailedIfLast, "device ran into a problem"),
    (Meaning::FailedIfLast, "PC needs to be repaired"),
    (Meaning::FailedIfLast, "device needs to be repaired"),
    (Meaning::FailedIfLast, "Automatic Repair"),
    (Meaning::FailedIfLast, "A problem has been detected and Windows has been shut down"),
    (Meaning::FailedIfLast, "No bootable option or device was found"),
    (Meaning::FailedIfLast, "UEFI Interactive Shell"),
    (Meaning::FailedIfLast, "Unable to mount root fs"),
    (Meaning::FailedIfLast, "Could not find kernel image"),
    (Meaning::FailedIfLast, "No DEFAULT or UI configuration directive found"),
    (Meaning::FailedIfLast, "Press any key to reboot"),
    (Meaning::HandedOver, "Booting from Hard Disk..."),
    (Meaning::HandedOver, "Booting from 0000:7c00"),
    (Meaning::Prompt, "grub>"),
    (Meaning::Prompt, "boot:"),
    (Meaning::Menu, "GNU GRUB"),
    (Meaning::Menu, "Windows Boot Manager"),
    (Meaning::Up, "login:"),
    (Meaning::Up, "C:\\>"),
    (Meaning::Up, "Press Ctrl+Alt+Delete to"),
    (Meaning::Up, "Press Ctrl-Alt-Delete to"),
];

/// How exactly a text was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Character by character.
    Exact,
    /// From a picture: letters that look alike may be mixed up.
    Recognised,
}

/// The first known phrase in a text that means one of `wanted`.
pub(crate) fn find(text: &str, reading: Reading, wanted: &[Meaning]) -> Option<(Meaning, &'static str)> {
    let text = folded(text, reading);
    let mut known = PHRASES.iter().filter(|(meaning, _)| wanted.contains(meaning));
    let found = known.find(|(meaning, phrase)| {
        let phrase = folded(phrase, reading);
        let at_end = matches!(meaning, Meaning::Prompt | Meaning::HandedOver);
        if at_end { text.ends_with(&phrase) } else { text.contains(&phrase) }
    });
    found.copied()
}

/// Says whether a text holds a phrase.
pub(crate) fn holds(text: &str, reading: Reading, phrase: &str) -> bool {
    folded(text, reading).contains(&folded(phrase, reading))
}

/// White space becomes one space: a phrase may be broken at the edge of the screen. In what was read from a picture, letters that look alike become one
/// and spaces go.
fn folded(text: &str, reading: Reading) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    match reading {
        Reading::Exact => words.join(" "),
        Reading::Recognised => {
            let fold = |c: char| match c.to_ascii_lowercase() {
                'i' | '1' | '|' | '!' => 'l',
                '0' => 'o',
                '5' => 's',
                '8' => 'b',
                other => other,
            };
            words.concat().chars().map(fold).collect()
        }
    }
}

/// Text of a terminal without its control sequences (ECMA-48: ESC `[`, parameters, a final byte from `@` to `~`) and other control characters.
pub(crate) fn without_controls(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            if rest.next_if_eq(&'[').is_some() {
                while rest.next_if(|c| !('\u{40}'..='\u{7e}').contains(c)).is_some() {}
            }
            rest.next();
        } else if c == '\n' || !c.is_control() {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Meaning] = &[Meaning::Up, Meaning::Failed, Meaning::FailedIfLast, Meaning::Menu, Meaning::Prompt];

    #[test]
    fn a_failure_goes_before_everything_else() {
        let text = "GNU GRUB\nsample login:\n[ 1.0] Kernel panic - not syncing";
        assert_eq!(find(text, Reading::Exact, ALL), Some((Meaning::Failed, "Kernel panic")));
        assert_eq!(find("sample login: ", Reading::Exact, ALL), Some((Meaning::Up, "login:")));
        assert_eq!(find("nothing of interest", Reading::Exact, ALL), None);
        assert_eq!(find("sample login: ", Reading::Exact, &[Meaning::Failed]), None);
    }

    #[test]
    fn a_prompt_is_one_only_at_the_end() {
        assert_eq!(find("GRUB\ngrub> \n", Reading::Exact, ALL), Some((Meaning::Prompt, "grub>")));
        assert_eq!(find("boot: linux\nLoading", Reading::Exact, ALL), None);
    }

    #[test]
    fn a_phrase_may_be_broken_at_the_edge_of_the_screen() {
        assert!(holds("No bootable\n   device.", Reading::Exact, "No bootable device"));
    }

    #[test]
    fn letters_that_look_alike_are_one_only_in_what_was_read_from_a_picture() {
        assert_eq!(find("sample Iogin:", Reading::Recognised, ALL), Some((Meaning::Up, "login:")));
        assert_eq!(find("sample Iogin:", Reading::Exact, ALL), None);
        assert_eq!(
            find("B00TMGR i5 mlsslng", Reading::Recognised, ALL),
            Some((Meaning::FailedIfLast, "BOOTMGR is missing"))
        );
    }

    #[test]
    fn control_sequences_do_not_hide_a_phrase() {
        assert_eq!(without_controls("\u{1b}[2J\u{1b}[01;01Hlo\u{1b}[1mgin:\r\n\u{1b}c!"), "login:\n!");
        assert_eq!(without_controls("\u{1b}[12"), "");
    }
}
