use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A guest that is looked at each second.
struct Guest {
    watch: Watch,
    now: u64,
    processor: Duration,
    read: u64,
    paging: bool,
}

impl Guest {
    fn new(expected: &[&str]) -> Self {
        let watch = Watch::new(expected.iter().map(|text| (*text).to_owned()).collect());
        Self { watch, now: 0, processor: Duration::ZERO, read: 0, paging: true }
    }

    /// Lets `span` seconds pass with a still picture; `percent` of a processor and `reads` bytes are used in each.
    fn still(&mut self, span: u64, percent: u64, reads: u64, text: Option<&str>) -> Option<Decision> {
        for _ in 0..span {
            self.now = self.now.saturating_add(1);
            self.processor = self.processor.saturating_add(Duration::from_millis(percent.saturating_mul(10)));
            self.read = self.read.saturating_add(reads);
            let look = Look {
                at: seconds(self.now),
                changed: false,
                blank: false,
                processor: Some(self.processor),
                read: self.read,
                paging: self.paging,
            };
            let screen = || text.map(|text| ScreenText { text: text.to_owned(), reading: Reading::Exact });
            if let Some(decision) = self.watch.looked(look, screen) {
                return Some(decision);
            }
        }
        None
    }
}

fn outcome(decision: Option<Decision>) -> Option<(Outcome, Evidence)> {
    decision.map(|decision| (decision.outcome, decision.evidence))
}

#[test]
fn a_login_prompt_on_the_serial_port_decides_at_once() {
    let mut watch = Watch::new(Vec::new());
    assert_eq!(watch.heard(b"\x1b[2Jsample lo"), None);
    let decision = watch.heard(b"gin: ").unwrap();
    assert_eq!(
        (decision.outcome, decision.evidence, decision.reason.as_str()),
        (Outcome::Boots, Evidence::Serial, "sample login:")
    );
}

#[test]
fn a_panic_on_the_serial_port_decides_at_once_and_names_its_line() {
    let mut watch = Watch::new(Vec::new());
    let decision = watch.heard(b"Loading\n[    1.2] Kernel panic - not syncing: Attempted to kill init!\r\n").unwrap();
    assert_eq!(decision.outcome, Outcome::DoesNotBoot);
    assert_eq!(decision.reason, "[    1.2] Kernel panic - not syncing: Attempted to kill init!");
}

#[test]
fn a_still_picture_alone_decides_nothing() {
    assert_eq!(Guest::new(&[]).still(100, 100, 0, None), None, "the processor is busy: a quiet boot");
    assert_eq!(Guest::new(&[]).still(100, 5, 1 << 20, None), None, "the disk is read");
    let mut guest = Guest::new(&[]);
    for _ in 0..100 {
        guest.now += 1;
        let look = Look {
            at: seconds(guest.now),
            changed: false,
            blank: true,
            processor: Some(Duration::ZERO),
            read: 0,
            paging: true,
        };
        assert_eq!(guest.watch.looked(look, || None), None, "the screen is black");
    }
    let mut guest = Guest::new(&[]);
    for _ in 0..100 {
        guest.now += 1;
        let look =
            Look { at: seconds(guest.now), changed: false, blank: false, processor: None, read: 0, paging: true };
        assert_eq!(guest.watch.looked(look, || None), None, "the system does not tell the processor's time");
    }
}

#[test]
fn code_that_halts_before_any_system_runs_is_no_boot() {
    let mut guest = Guest { paging: false, ..Guest::new(&[]) };
    assert_eq!(guest.still(100, 0, 0, None), None, "no system runs without paging");
    let decision = Guest::new(&[]).still(40, 0, 0, Some("SeaBIOS\n\nBooting from Hard Disk...\n\n"));
    assert_eq!(outcome(decision), Some((Outcome::DoesNotBoot, Evidence::Screen)));
    let decision = Guest::new(&[]).still(100, 0, 0, Some("Booting from Hard Disk...\nHello"));
    assert_eq!(outcome(decision), Some((Outcome::ProbablyBoots, Evidence::Idle)));
}

#[test]
fn an_idle_picture_is_a_probable_boot() {
    let mut guest = Guest::new(&[]);
    assert_eq!(guest.still(30, 90, 1 << 20, None), None);
    assert_eq!(guest.still(34, 5, 0, None), None, "an initramfs may be waiting for its root");
    assert_eq!(outcome(guest.still(10, 5, 0, None)), Some((Outcome::ProbablyBoots, Evidence::Idle)));
}

#[test]
fn a_picture_that_changes_starts_the_wait_again() {
    let mut guest = Guest::new(&[]);
    for round in 0..20 {
        assert_eq!(guest.still(3, 0, 0, None), None, "{round}");
        guest.now += 1;
        let look = Look {
            at: seconds(guest.now),
            changed: true,
            blank: false,
            processor: Some(guest.processor),
            read: 0,
            paging: true,
        };
        assert_eq!(guest.watch.looked(look, || None), None);
    }
}

#[test]
fn failures_on_a_quiet_screen_decide_even_while_the_bios_polls() {
    let screen = "Booting from Hard Disk...\nBoot failed: not a bootable disk\n\nNo bootable device.";
    let decision = Guest::new(&[]).still(20, 100, 0, Some(screen));
    assert_eq!(decision.clone().unwrap().reason, "No bootable device.");
    assert_eq!(outcome(decision), Some((Outcome::DoesNotBoot, Evidence::Screen)));
    assert_eq!(Guest::new(&[]).still(100, 100, 1 << 20, Some(screen)), None, "another device is being read");
}

#[test]
fn a_login_prompt_on_the_screen_is_a_boot() {
    let decision = Guest::new(&[]).still(20, 2, 0, Some("Debian GNU/Linux 12\n\nsample login: "));
    assert_eq!(outcome(decision), Some((Outcome::Boots, Evidence::Screen)));
}

#[test]
fn a_boot_loader_that_waits_is_no_boot_but_gets_time() {
    let mut guest = Guest::new(&[]);
    assert_eq!(guest.still(29, 100, 0, Some("GNU GRUB  version 2.06\n*Debian")), None);
    let decision = guest.still(5, 100, 0, Some("GNU GRUB  version 2.06\n*Debian")).unwrap();
    assert_eq!((decision.outcome, decision.evidence), (Outcome::DoesNotBoot, Evidence::Screen));
    assert!(decision.reason.starts_with("a boot loader waits"), "{}", decision.reason);
    // One that halts is no idle system.
    let decision = Guest::new(&[]).still(30, 1, 0, Some("boot: "));
    assert_eq!(outcome(decision), Some((Outcome::DoesNotBoot, Evidence::Screen)));
}

#[test]
fn a_boot_loader_that_waits_on_the_serial_port_is_no_boot() {
    let mut guest = Guest::new(&[]);
    assert_eq!(guest.watch.heard(b"GNU GRUB  version 2.06\n\ngrub> "), None, "a menu may go on by itself");
    assert_eq!(outcome(guest.still(30, 100, 0, None)), Some((Outcome::DoesNotBoot, Evidence::Serial)));
}

#[test]
fn what_is_expected_decides_alone() {
    let mut guest = Guest::new(&["READY", "DONE"]);
    assert_eq!(guest.watch.heard(b"sample login: READY"), None);
    assert_eq!(guest.watch.agent_answered(), None);
    assert_eq!(guest.still(60, 0, 0, Some("sample login:")), None);
    let over = guest.watch.time_is_over(seconds(40));
    assert_eq!((over.outcome, over.reason.as_str()), (Outcome::Undecided, "\"DONE\" did not appear within 40 s"));
    assert_eq!(outcome(guest.watch.heard(b" DONE")), Some((Outcome::Boots, Evidence::Serial)));
}

#[test]
fn the_guest_agent_decides() {
    assert_eq!(outcome(Watch::new(Vec::new()).agent_answered()), Some((Outcome::Boots, Evidence::Agent)));
}

#[test]
fn what_was_said_last_explains_an_end_and_a_time_that_is_over() {
    let mut watch = Watch::new(Vec::new());
    assert_eq!(watch.ended("the guest restarted").evidence, Evidence::None);
    assert_eq!(watch.heard(b"Missing operating system"), None);
    assert_eq!(watch.ended("the guest restarted").reason, "Missing operating system");
    assert_eq!(watch.time_is_over(seconds(9)).outcome, Outcome::DoesNotBoot);
}

#[test]
fn endless_serial_text_takes_bounded_memory() {
    let mut watch = Watch::new(Vec::new());
    for _ in 0..100 {
        assert_eq!(watch.heard("\u{e4}".repeat(5000).as_bytes()), None);
    }
    assert!(watch.serial.len() <= SERIAL_KEPT + 10_000);
    assert!(watch.heard(b"login:").is_some());
}
