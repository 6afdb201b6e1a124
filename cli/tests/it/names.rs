//! `IMAGE@GEN`: every way to name a generation, and the ways that name none.

use std::path::Path;

use crate::crafted::add;
use crate::machine::{Ran, hikae, shell};

/// The generation that a name leads to, by its restored content.
fn generation(folder: &Path, name: &str) -> Ran {
    hikae(folder, ["restore", name, "out.img", "--yes"])
}

fn leads_to(folder: &Path, name: &str, number: u8) {
    generation(folder, name).expect(0);
    assert_eq!(std::fs::read(folder.join("out.img")).unwrap()[0], number, "{name}");
}

fn leads_nowhere(folder: &Path, name: &str) {
    let code = generation(folder, name).code;
    assert!(matches!(code, 2 | 3), "{name}: {code}");
}

#[test]
fn generations_have_numbers_dates_times_ages_and_folder_names() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = folder.join("a.hik");
    for (number, created) in [
        (1, "2026-01-31T23:59:59Z"),
        (2, "2026-02-01T00:00:00Z"),
        (3, "2026-02-01T12:00:00Z"),
        (4, "2026-03-01T08:15:30Z"),
    ] {
        add(&image, &[number], |record| record.created = created.into());
    }
    for (name, number) in [
        ("a.hik", 4),
        ("a.hik@latest", 4),
        ("a.hik@", 4),
        ("a.hik@~0", 4),
        ("a.hik@~1", 3),
        ("a.hik@~3", 1),
        ("a.hik@1", 1),
        ("a.hik@0002", 2),
        // A day means all of it, a time up to its second: the newest not after it.
        ("a.hik@2026-01-31", 1),
        ("a.hik@2026-02-01", 3),
        ("a.hik@2026-02-28", 3),
        ("a.hik@2099-01-01", 4),
        ("a.hik@2026-02-01T00:00:00Z", 2),
        ("a.hik@2026-02-01T11:59:59Z", 2),
        ("a.hik@2026-02-01T12:00:00", 3),
        ("a.hik@2026-02-01 11:00", 2),
        ("a.hik@2026-02-01T01:59:59+02:00", 1),
        // The folder name, and what is enough of it.
        ("a.hik@0003_2026-02-01T120000Z", 3),
        ("a.hik@0004_", 4),
        ("a.hik@0001_2026-01", 1),
        // All are older than the clock of any machine that runs this test says.
        ("a.hik@0h", 4),
    ] {
        leads_to(folder, name, number);
    }
    for name in [
        "a.hik@0",
        "a.hik@5",
        "a.hik@~4",
        "a.hik@~",
        "a.hik@2025-12-31",
        "a.hik@yesterday",
        "a.hik@00",
        "a.hik@900000w",
        "a.hik@-1",
    ] {
        leads_nowhere(folder, name);
    }
    generation(folder, "a.hik@7").expect(3).says(&["no generation", "hikae list"]);
    hikae(folder, ["list", "a.hik@2"]).expect(2).says(&["whole image"]);
    hikae(folder, ["verify", "a.hik@2"]).expect(2).says(&["whole image"]);
}

#[test]
fn ages_count_back_from_now() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("a.hik");
    let now = jiff::Timestamp::now();
    for (number, hours) in [(1, 30 * 24), (2, 10 * 24), (3, 3 * 24), (4, 5)] {
        let created = now.checked_sub(jiff::SignedDuration::from_hours(hours)).unwrap();
        let created = jiff::Timestamp::from_second(created.as_second()).unwrap();
        add(&image, &[number], |record| record.created = created.to_string());
    }
    for (name, number) in [("1h", 4), ("6h", 3), ("1d", 3), ("4d", 2), ("1w", 2), ("2w", 1), ("4w", 1)] {
        leads_to(folder.path(), &format!("a.hik@{name}"), number);
    }
    leads_nowhere(folder.path(), "a.hik@5w");
}

#[test]
fn an_existing_path_wins_over_the_sign_before_a_generation() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    add(&folder.join("me@home.hik"), &[1], |_| ());
    add(&folder.join("me@home.hik"), &[2], |_| ());
    leads_to(folder, "me@home.hik", 2);
    leads_to(folder, "me@home.hik@~1", 1);
    shell(folder, "mkdir '2@2'; cp me@home.hik '2@2/x.hik'");
    leads_to(folder, "2@2/x.hik", 1);
    leads_to(folder, "2@2/x.hik@1", 1);
}
