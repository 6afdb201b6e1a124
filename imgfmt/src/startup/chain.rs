//! What was found on the way from the firmware to the system: steps, findings and a verdict.

use crate::error::full_message;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the disk starts.
    Note,
    /// It depends on something that this disk does not say: another disk, settings of the firmware, a part that is not read.
    Doubt,
    /// The disk does not start.
    Broken,
}

impl Severity {
    /// The word for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Doubt => "doubt",
            Self::Broken => "broken",
        }
    }
}

/// Something that is wrong, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// Which one it is, for programs: "active-partition-missing". Stable.
    pub code: &'static str,
    /// What it is, where, and what it means. Can hold untrusted text.
    pub text: String,
}

/// Whether a chain leads to a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that it needs is there.
    Whole,
    /// Nothing is known to be missing, but not all of it could be followed.
    Doubtful,
    /// A link of it is missing.
    Broken,
    /// The disk is not made to be started by this kind of firmware.
    Absent,
}

impl Verdict {
    /// The word for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Doubtful => "doubtful",
            Self::Broken => "broken",
            Self::Absent => "absent",
        }
    }
}

/// The way from one kind of firmware to a system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// What was followed, in its order. Can hold untrusted text.
    pub steps: Vec<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// The disk is not made for this firmware.
    is_absent: bool,
}

impl Chain {
    /// What follows from the findings.
    pub fn verdict(&self) -> Verdict {
        match self.findings.iter().map(|finding| finding.severity).max() {
            _ if self.is_absent => Verdict::Absent,
            Some(Severity::Broken) => Verdict::Broken,
            Some(Severity::Doubt) => Verdict::Doubtful,
            Some(Severity::Note) | None => Verdict::Whole,
        }
    }

    pub(super) fn step(&mut self, text: impl Into<String>) {
        self.steps.push(text.into());
    }

    pub(super) fn find(&mut self, severity: Severity, code: &'static str, text: impl Into<String>) {
        let finding = Finding { severity, code, text: text.into() };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub(super) fn broken(&mut self, code: &'static str, text: impl Into<String>) {
        self.find(Severity::Broken, code, text);
    }

    pub(super) fn doubt(&mut self, code: &'static str, text: impl Into<String>) {
        self.find(Severity::Doubt, code, text);
    }

    pub(super) fn note(&mut self, code: &'static str, text: impl Into<String>) {
        self.find(Severity::Note, code, text);
    }

    /// Says that the disk is not made for this firmware, and why.
    pub(super) fn absent(&mut self, text: impl Into<String>) {
        self.is_absent = true;
        self.step(text);
    }

    /// Takes up the result of a read: what cannot be read is a finding, and `None`.
    pub(super) fn read<T>(&mut self, what: &str, result: crate::Result<T>) -> Option<T> {
        result
            .map_err(|error| self.broken("unreadable", format!("{what} cannot be read: {}", full_message(&error))))
            .ok()
    }
}
