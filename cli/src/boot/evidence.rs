//! The decision: does the guest boot, and what shows it? From what was seen, and from nothing else.
//!
//! Serial text and the guest agent are exact. A screen counts only once it is *quiet*: for a while the picture stood still (but for a cursor) and the guest
//! read next to nothing from its disk. Text that says how it ended decides then; a picture without known text decides only when the guest is also
//! *idle*, that is, hardly uses its processor, and runs with paging, as every system does and no boot loader of a BIOS. A still picture alone decides nothing: quiet boots, black screens and the pause of a boot loader look just like it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::boot::phrases::{Meaning, Reading, find, holds, without_controls};

/// How long a screen must be quiet until its text counts.
const QUIET: Duration = Duration::from_secs(4);
/// How long until a boot loader's prompt is taken for the end: some go on by themselves.
const PROMPT: Duration = Duration::from_secs(12);
/// The same for a menu, or for what a loader said last: a kernel that unpacks itself says nothing and reads nothing, for long on a busy machine.
const MENU: Duration = Duration::from_secs(30);
/// How long a machine must be idle until its picture alone counts: longer than an initramfs waits for a root filesystem that does not come (30 s in
/// initramfs-tools), which looks just the same.
const IDLE: Duration = Duration::from_secs(35);
/// Bytes that a guest may read meanwhile.
const FEW_READS: u64 = 256 << 10;
/// Text of the serial port that is kept.
const SERIAL_KEPT: usize = 64 << 10;

/// What a decision goes by, from the surest down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Text on the serial port.
    Serial,
    /// The guest agent answered.
    Agent,
    /// Text on the screen.
    Screen,
    /// The picture stands still, the processor is idle and the disk too.
    Idle,
    /// Nothing of that.
    None,
}

impl Evidence {
    /// The words for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial text",
            Self::Agent => "guest agent",
            Self::Screen => "screen text",
            Self::Idle => "idle picture",
            Self::None => "none",
        }
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It boots.
    Boots,
    /// It looks like it: nothing says that it does not.
    ProbablyBoots,
    /// It does not.
    DoesNotBoot,
    /// The time was over before anything was clear.
    Undecided,
    /// Nothing on it can boot; its filesystems were looked at instead.
    DataOnly,
}

impl Outcome {
    /// The words for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Boots => "boots",
            Self::ProbablyBoots => "probably boots",
            Self::DoesNotBoot => "does not boot",
            Self::Undecided => "undecided",
            Self::DataOnly => "data only",
        }
    }

    /// Says whether it counts as booting.
    pub(crate) fn boots(self) -> bool {
        matches!(self, Self::Boots | Self::ProbablyBoots)
    }
}

/// A decision and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// What was decided.
    pub(crate) outcome: Outcome,
    /// By what.
    pub(crate) evidence: Evidence,
    /// A phrase for people. May hold text that the guest wrote.
    pub(crate) reason: String,
}

impl Decision {
    fn new(outcome: Outcome, evidence: Evidence, reason: impl Into<String>) -> Self {
        Self { outcome, evidence, reason: reason.into() }
    }
}

/// One look at the guest from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Time since the guest started.
    pub(crate) at: Duration,
    /// Whether the picture differs from the one before by more than a cursor.
    pub(crate) changed: bool,
    /// Whether it has one colour only.
    pub(crate) blank: bool,
    /// Processor time that the virtual machine has used or waited for since it started; `None` where the system does not tell.
    pub(crate) processor: Option<Duration>,
    /// Whether the guest's processor has paging switched on.
    pub(crate) paging: bool,
    /// Bytes that the guest has read from its disk since it started.
    pub(crate) read: u64,
}

/// Text that was found on a screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScreenText {
    /// The text.
    pub(crate) text: String,
    /// How it was read.
    pub(crate) reading: Reading,
}

/// Watches a guest until it is clear whether it boots.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Texts of which each must be seen; known phrases count as success only where there are none.
    expected: Vec<String>,
    serial: String,
    looks: VecDeque<Look>,
    /// When the picture last changed.
    changed: Duration,
}

impl Watch {
    /// Waits for known phrases, or for all of `expected` where there are some.
    pub(crate) fn new(expected: Vec<String>) -> Self {
        Self { expected, ..Self::default() }
    }

    /// What came from the serial port so far, the last 64 KiB of it, without control sequences.
    pub(crate) fn serial(&self) -> String {
        without_controls(&self.serial)
    }

    /// The guest wrote to its serial port.
    pub(crate) fn heard(&mut self, bytes: &[u8]) -> Option<Decision> {
        self.serial.push_str(&String::from_utf8_lossy(bytes));
        if self.serial.len() > SERIAL_KEPT {
            let mut cut = self.serial.len().saturating_sub(SERIAL_KEPT);
            while !self.serial.is_char_boundary(cut) {
                cut = cut.saturating_add(1);
            }
            self.serial.drain(..cut);
        }
        let text = self.serial();
        if let Some((_, phrase)) = find(&text, Reading::Exact, &[Meaning::Failed]) {
            return Some(Decision::new(Outcome::DoesNotBoot, Evidence::Serial, said(phrase, &text, Reading::Exact)));
        }
        let reason = self.success(&text, Reading::Exact)?;
        Some(Decision::new(Outcome::Boots, Evidence::Serial, reason))
    }

    /// The guest agent answered.
    pub(crate) fn agent_answered(&self) -> Option<Decision> {
        let decides = self.expected.is_empty();
        decides.then(|| Decision::new(Outcome::Boots, Evidence::Agent, "the guest agent answers"))
    }

    /// The guest was looked at. `screen` reads its text, which takes a while, so that is done only where it can count.
    pub(crate) fn looked(&mut self, look: Look, screen: impl FnOnce() -> Option<ScreenText>) -> Option<Decision> {
        if look.changed || self.looks.is_empty() {
            self.changed = look.at;
        }
        self.looks.push_back(look);
        // The oldest look that is kept is the last one that is old enough for the longest wait.
        while self.looks.get(1).is_some_and(|next| since(look.at, next.at) > IDLE) {
            self.looks.pop_front();
        }
        if !self.quiet_for(QUIET) {
            return None;
        }
        let screen = screen();
        if let Some(ScreenText { text, reading }) = &screen {
            let failures = &[Meaning::Failed, Meaning::FailedIfLast];
            if let Some((_, phrase)) = find(text, *reading, failures) {
                return Some(Decision::new(Outcome::DoesNotBoot, Evidence::Screen, said(phrase, text, *reading)));
            }
            if let Some(reason) = self.success(text, *reading) {
                return Some(Decision::new(Outcome::Boots, Evidence::Screen, reason));
            }
        }
        if let Some(ScreenText { text, reading }) = &screen
            && let Some((meaning, phrase)) =
                find(text, *reading, &[Meaning::HandedOver, Meaning::Prompt, Meaning::Menu])
        {
            // It polls the keyboard, or it halts: either way nobody will press a key.
            let line = said(phrase, text, *reading);
            let waits = match meaning {
                Meaning::HandedOver => format!("what the firmware started stands still: {line}"),
                _ => format!("a boot loader waits: {line}"),
            };
            let over = self.quiet_for(if meaning == Meaning::Prompt { PROMPT } else { MENU });
            return over.then(|| Decision::new(Outcome::DoesNotBoot, Evidence::Screen, waits));
        }
        let at_prompt = find(&self.last_lines(), Reading::Exact, &[Meaning::Prompt]).is_some();
        if (at_prompt && self.quiet_for(PROMPT)) || self.quiet_for(MENU) {
            let last_words = self.last_words();
            if last_words.is_some() {
                return last_words;
            }
        }
        let idle = self.idle_for(IDLE) && !look.blank && look.paging && self.expected.is_empty();
        idle.then(|| {
            let reason =
                "the picture stands still, the processor is idle, and the disk too; no known failure is on the screen";
            Decision::new(Outcome::ProbablyBoots, Evidence::Idle, reason)
        })
    }

    /// The virtual machine ended by itself.
    pub(crate) fn ended(&self, why: &str) -> Decision {
        if let Some(decision) = self.last_words() {
            return decision;
        }
        Decision::new(Outcome::DoesNotBoot, Evidence::None, why)
    }

    /// The time is over.
    pub(crate) fn time_is_over(&self, limit: Duration) -> Decision {
        if let Some(decision) = self.last_words() {
            return decision;
        }
        let missing: Vec<_> = self
            .expected
            .iter()
            .filter(|text| !holds(&self.serial(), Reading::Exact, text))
            .map(|text| format!("{text:?}"))
            .collect();
        let reason = match missing.as_slice() {
            [] => format!("nothing was clear within {} s", limit.as_secs()),
            missing => format!("{} did not appear within {} s", missing.join(", "), limit.as_secs()),
        };
        Decision::new(Outcome::Undecided, Evidence::None, reason)
    }

    /// The failure or the loader that the end of the serial text speaks of.
    fn last_words(&self) -> Option<Decision> {
        let text = self.last_lines();
        let ends = &[Meaning::Failed, Meaning::FailedIfLast, Meaning::Prompt, Meaning::Menu];
        let (meaning, phrase) = find(&text, Reading::Exact, ends)?;
        let said = said(phrase, &text, Reading::Exact);
        let waits = matches!(meaning, Meaning::Prompt | Meaning::Menu);
        let reason = if waits { format!("a boot loader was the last to speak: {said}") } else { said };
        Some(Decision::new(Outcome::DoesNotBoot, Evidence::Serial, reason))
    }

    /// The last 25 lines of the serial text that are not empty.
    fn last_lines(&self) -> String {
        let text = self.serial();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n")
    }

    /// Why a text shows that the guest is up.
    fn success(&self, text: &str, reading: Reading) -> Option<String> {
        match self.expected.as_slice() {
            [] => find(text, reading, &[Meaning::Up]).map(|(_, phrase)| said(phrase, text, reading)),
            expected => {
                let all = expected.iter().all(|wanted| holds(text, reading, wanted));
                all.then(|| format!("it says {}", expected.join(", ")))
            }
        }
    }

    fn window(&self, span: Duration) -> Option<(&Look, &Look)> {
        let last = self.looks.back()?;
        let first = self.looks.iter().rfind(|look| since(last.at, look.at) >= span)?;
        Some((first, last))
    }

    fn quiet_for(&self, span: Duration) -> bool {
        let Some((first, last)) = self.window(span) else { return false };
        since(last.at, self.changed) >= span && last.read.saturating_sub(first.read) < FEW_READS
    }

    /// Quiet, with less than 30 % of one processor in use.
    fn idle_for(&self, span: Duration) -> bool {
        if !self.quiet_for(span) {
            return false;
        }
        let Some((first, last)) = self.window(span) else { return false };
        let (Some(before), Some(now)) = (first.processor, last.processor) else { return false };
        now.saturating_sub(before).saturating_mul(10) < since(last.at, first.at).saturating_mul(3)
    }
}

fn since(now: Duration, then: Duration) -> Duration {
    now.saturating_sub(then)
}

/// The line of a text that holds a phrase, or the phrase where it is broken over lines.
fn said(phrase: &str, text: &str, reading: Reading) -> String {
    let line = text.lines().rfind(|line| holds(line, reading, phrase)).map(str::trim);
    line.unwrap_or(phrase).chars().take(160).collect()
}

#[cfg(test)]
mod tests;
