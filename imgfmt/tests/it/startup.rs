//! The page on how a disk starts says what the code does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Words of lower-case letters with hyphens between, that stand alone between two `quote`s.
fn codes(text: &str, quote: char) -> BTreeSet<String> {
    let is_code = |word: &&str| {
        word.contains('-')
            && word.split('-').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase()))
    };
    text.split(quote).filter(is_code).map(str::to_owned).collect()
}

#[test]
fn the_page_lists_every_code_of_a_finding_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../docs/startup.md")).unwrap();
    let (_, table) = page.split_once("## Findings").unwrap();
    let (table, _) = table.split_once("## Names").unwrap();
    let mut used = BTreeSet::new();
    for entry in fs::read_dir(root.join("src/startup")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        used.extend(codes(&code, '"'));
    }
    // The name of a program.
    used.remove("systemd-boot");
    assert!(used.len() > 30);
    assert_eq!(used, codes(table, '`'));
}
