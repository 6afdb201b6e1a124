//! What the codes of the Volume Shadow Copy Service mean, and what a user can do.
//!
//! Source: vsserror.h, and the tables of return values of `IVssBackupComponents` in the Windows documentation.

/// Everything went well.
pub(super) const OK: i32 = 0;
/// `VSS_S_ASYNC_PENDING`.
pub(super) const PENDING: i32 = 0x0004_2309;
/// `VSS_S_ASYNC_FINISHED`.
pub(super) const FINISHED: i32 = 0x0004_230a;
/// `VSS_E_SNAPSHOT_SET_IN_PROGRESS`.
pub(super) const IN_PROGRESS: i32 = hresult(0x8004_2316);
/// `VSS_E_INSUFFICIENT_STORAGE`.
pub(super) const NO_SPACE: i32 = hresult(0x8004_231f);
/// `VSS_E_VOLUME_NOT_SUPPORTED`.
pub(super) const NOT_SUPPORTED: i32 = hresult(0x8004_230c);
/// `VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER`.
pub(super) const NOT_SUPPORTED_BY_PROVIDER: i32 = hresult(0x8004_230e);

/// A code as it is written in the documentation.
pub(super) const fn hresult(code: u32) -> i32 {
    code.cast_signed()
}

/// Says whether a code is a failure.
pub(super) fn is_failure(code: i32) -> bool {
    code < 0
}

/// What a failed call means, as the end of a sentence.
pub(super) fn meaning(code: i32) -> &'static str {
    match code.cast_unsigned() {
        0x8007_0005 => "that needs an administrator's console",
        0x8000_4001 | 0x8007_007e => "this Windows has no such service",
        0x0004_2309 => "it took longer than it may",
        0x0004_230b => "it was given up by the service",
        0x8007_000e => "Windows is out of memory",
        0x8004_0154 | 0x8007_0422 | 0x8007_045b => {
            "the service \"Volume Shadow Copy\" is not there, is disabled, or the machine is shutting down"
        }
        0x8004_2304 | 0x8004_2306 | 0x8004_2307 | 0x8004_230f => {
            "what makes shadow copies on this machine failed: the event log (Application, source VSS) has more"
        }
        0x8004_230c | 0x8004_230e => "Windows makes none of this filesystem (FAT and exFAT have none)",
        0x8004_2312 => "Windows makes no more than 64 at once",
        0x8004_2313 | 0x8004_2314 | 0x8004_2328 | 0x8004_2329 => {
            "the machine is too busy to hold its writes for a moment: try again in ten minutes"
        }
        0x8004_2316 => "another program is making shadow copies: try again when it is done",
        0x8004_2317 => "the volume has as many shadow copies as it can have: remove old ones",
        0x8004_2315 | 0x8004_2318 | 0x8004_2319 => {
            "programs that keep files in order for it did not answer: start the machine again if that stays"
        }
        0x8004_231f => "there is no space for it: make some on the volume, or remove old shadow copies",
        0x8004_232c => "the volume lies in a virtual disk file in a virtual disk file: capture that one's machine",
        _ => "the event log (Application, source VSS) has more",
    }
}

/// What it means that a program did not bring its files into order, as the end of a sentence.
pub(super) fn writer_meaning(code: i32) -> &'static str {
    match code.cast_unsigned() {
        0x8004_23f0 => "it needs volumes that are not captured with this one",
        0x8004_23f1 => "it ran out of memory or the like",
        0x8004_23f2 => "it took too long",
        0x8004_23f3 => "it may go well the next time",
        _ => "the event log (Application, source VSS) has more",
    }
}

/// Says whether a state of `VSS_WRITER_STATE` is a failure: unknown, or failed at something.
pub(super) fn has_failed(state: i32) -> bool {
    matches!(state, 0 | 6..=15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        assert!(
            is_failure(IN_PROGRESS)
                && is_failure(NO_SPACE)
                && is_failure(NOT_SUPPORTED)
                && is_failure(NOT_SUPPORTED_BY_PROVIDER)
        );
        assert!(!is_failure(OK) && !is_failure(PENDING) && !is_failure(FINISHED));
        assert_eq!(meaning(hresult(0x8007_0005)), "that needs an administrator's console");
        assert_ne!(meaning(IN_PROGRESS), meaning(hresult(0x8004_2302)));
        // VSS_WS_STABLE to VSS_WS_WAITING_FOR_BACKUP_COMPLETE are how it should be.
        assert!((1..=5).all(|state| !has_failed(state)));
        assert!(has_failed(0) && has_failed(9));
        assert_ne!(writer_meaning(hresult(0x8004_23f2)), writer_meaning(0));
    }
}
