//! `hikae list`: the generations of an image.

use std::path::PathBuf;

use imgfmt::image::verdict::Verdicts;
use serde_json::json;

use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::ImageName;
use crate::text::{printable, short_size, table};

/// Lists the generations of an image.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image, NAME.hik.
    image: String,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let image = ImageName::parse(&arguments.image).open_whole(&arguments.packs)?;
    let verdicts = Verdicts::read(&**image.store(), image.id());
    let mut rows = vec![["gen", "created (UTC)", "data", "stored", "state", "label"].map(str::to_owned).to_vec()];
    let mut entries = Vec::new();
    let mut damaged = false;
    for entry in image.generations() {
        let record = match image.record(entry) {
            Ok(record) => record,
            Err(error) => {
                damaged = true;
                let reason = printable(&imgfmt::error::full_message(&error));
                entries.push(json!({"generation": entry.number, "error": reason}));
                rows.push(vec![entry.number.to_string(), String::new(), String::new(), String::new(), reason]);
                continue;
            }
        };
        let mut state = Vec::new();
        match verdicts.of(&record) {
            Some(true) => state.push("verified".to_owned()),
            Some(false) => state.push("DAMAGED".to_owned()),
            None => state.push("not verified".to_owned()),
        }
        if let Some(boot) = verdicts.boot_of(&record) {
            // Failures in capitals, as damage is.
            let verdict = printable(&boot.verdict);
            state.push(if boot.boots || boot.verdict == "data only" { verdict } else { verdict.to_uppercase() });
        }
        if record.source.live {
            state.push("live".into());
        }
        if record.counts.bad > 0 {
            state.push(format!("{} unreadable", short_size(record.counts.bad)));
        }
        if record.partitions.iter().any(|kept| kept.closure.starts_with("captured whole after")) {
            state.push("closure failed, kept whole".into());
        }
        rows.push(vec![
            record.generation.to_string(),
            printable(&record.created),
            short_size(record.counts.data),
            short_size(record.counts.stored),
            state.join(", "),
            printable(record.label.as_deref().unwrap_or("")),
        ]);
        entries.push(json!({
            "generation": record.generation,
            "created": record.created,
            "folder": record.folder_name(),
            "label": record.label,
            "note": record.note,
            "live": record.source.live,
            "verified": verdicts.of(&record),
            "boot": verdicts.boot_of(&record),
            "counts": record.counts,
            "root": record.root.id,
            "partitions": record.partitions,
        }));
    }
    let partial = image.store().list_partial()?;
    if arguments.json {
        let partial: Vec<_> = partial.iter().map(|number| image.store().name(*number) + ".partial").collect();
        let all =
            json!({"image": arguments.image, "generations": entries, "warnings": image.warnings(), "partial": partial});
        println!("{all:#}");
    } else {
        print!("{}", table(&rows, &[0, 2, 3]));
        for number in partial {
            println!("{}.partial: a capture in progress, or one that was interrupted", image.store().name(number));
        }
    }
    Ok(if damaged { FOUND } else { DONE })
}
