//! What `hikae info --boot` shows: the chains of a BIOS and of UEFI, and what names disks, partitions and filesystems.

use std::sync::Arc;

use imgfmt::Disk;
use imgfmt::startup::chain::{Chain, Verdict};
use imgfmt::startup::{Startup, examine};
use serde_json::{Value, json};

use crate::exit::{DONE, FOUND, Failure};
use crate::text::{printable, table};

/// Examines a disk and prints what was found; the result is the exit code.
pub(crate) fn show(disk: &Arc<dyn Disk>, from: &str, as_json: bool) -> Result<u8, Failure> {
    let startup = examine(disk)?;
    if as_json {
        println!("{:#}", to_json(&startup));
    } else {
        println!("{from}");
        show_chain("BIOS", &startup.bios);
        show_chain("UEFI", &startup.uefi);
        show_references(&startup);
    }
    let is_broken = [&startup.bios, &startup.uefi].iter().any(|chain| chain.verdict() == Verdict::Broken);
    Ok(if is_broken { FOUND } else { DONE })
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Whole => "whole",
        Verdict::Doubtful => "nothing is known to be missing, but not all of it is certain",
        Verdict::Broken => "broken: the disk does not start",
        Verdict::Absent => "not made for it",
    }
}

fn show_chain(firmware: &str, chain: &Chain) {
    println!("{firmware}: {}", meaning(chain.verdict()));
    for step in &chain.steps {
        println!("  {}", printable(step));
    }
    for finding in &chain.findings {
        println!("  {}: {}", finding.severity.name(), printable(&finding.text));
    }
}

fn show_references(startup: &Startup) {
    let mut rows = vec![["in", "file", "where", "names", "on this disk"].map(str::to_owned).to_vec()];
    for reference in &startup.references {
        rows.push(vec![
            startup.volumes.get(reference.volume).name.clone(),
            printable(&reference.path),
            printable(&reference.place),
            printable(&reference.names.to_string()),
            reference.names.on_this_disk(&startup.volumes).unwrap_or_else(|| "nothing".into()),
        ]);
    }
    if startup.references.is_empty() {
        println!("names of disks, partitions and filesystems: none found");
    } else {
        println!("names of disks, partitions and filesystems:");
        print!("{}", table(&rows, &[]));
    }
    for note in &startup.notes {
        println!("note: {}", printable(note));
    }
}

fn chain_json(chain: &Chain) -> Value {
    let findings: Vec<_> = chain
        .findings
        .iter()
        .map(|finding| json!({"severity": finding.severity.name(), "code": finding.code, "text": finding.text}))
        .collect();
    json!({"verdict": chain.verdict().name(), "steps": chain.steps, "findings": findings})
}

fn to_json(startup: &Startup) -> Value {
    let references: Vec<_> = startup
        .references
        .iter()
        .map(|reference| {
            json!({
                "volume": startup.volumes.get(reference.volume).name,
                "path": reference.path,
                "place": reference.place,
                "names": reference.names.to_string(),
                "on_this_disk": reference.names.on_this_disk(&startup.volumes),
            })
        })
        .collect();
    json!({
        "bios": chain_json(&startup.bios),
        "uefi": chain_json(&startup.uefi),
        "references": references,
        "notes": startup.notes,
    })
}
