//! `hikae overlay`: what an overlay holds and belongs to, and throwing it away.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use imgfmt::overlay::{Overlay, Proof, Summary};
use serde_json::json;

use crate::exit::{DONE, Failure};
use crate::text::{printable, short_size, size};

/// Overlay files: they take the writes to a disk that is served, mounted or booted.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Shows what an overlay holds, what it belongs to, and who has it open.
    Info {
        /// The overlay.
        file: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Throws an overlay away: the disk is as it was before. Refused while it is in use.
    Discard {
        /// The overlay.
        file: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    match &arguments.what {
        What::Info { file, json } => info(file, *json),
        What::Discard { file, yes } => discard(file, *yes),
    }
}

fn held(summary: &Summary) -> u64 {
    summary.layers.iter().map(|layer| layer.data).sum()
}

fn base_of(summary: &Summary) -> (String, String) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match &summary.about.proof {
        Proof::Generation { root, .. } => ("hikae".to_owned(), hex(root)),
        Proof::Other { format, digest } => (printable(format), hex(digest)),
    }
}

fn info(file: &Path, as_json: bool) -> Result<u8, Failure> {
    let (summary, holder) = Overlay::examine(file)?;
    let (format, proof) = base_of(&summary);
    if as_json {
        let layers =
            summary.layers.iter().map(|layer| json!({"name": layer.key, "length": layer.len, "data": layer.data}));
        let report = json!({
            "base": {"name": summary.about.name, "format": format, "proof": proof, "length": summary.about.disk_len,
                "sector_size": summary.about.sector_size},
            "created": summary.created, "commits": summary.sequence, "file_length": summary.file_len, "free": summary.free,
            "layers": layers.collect::<Vec<_>>(), "in_use_by": holder,
        });
        println!("{report:#}");
        return Ok(DONE);
    }
    println!("overlay over {} ({format}, {})", printable(&summary.about.name), size(summary.about.disk_len));
    let created = i64::try_from(summary.created).ok().and_then(|created| jiff::Timestamp::from_second(created).ok());
    if let Some(created) = created {
        println!("made {created}");
    }
    for layer in &summary.layers {
        match layer.key.as_str() {
            "disk" => println!("written to the disk: {}", size(layer.data)),
            key => println!("written to the {key} container: {}", size(layer.data)),
        }
    }
    println!("file: {}, {} of it free to be used again", size(summary.file_len), short_size(summary.free));
    println!("in use by: {}", holder.as_deref().unwrap_or("nobody"));
    Ok(DONE)
}

fn discard(file: &Path, yes: bool) -> Result<u8, Failure> {
    if !yes {
        let (summary, _) = Overlay::examine(file)?;
        let path = printable(&file.display().to_string());
        let base = printable(&summary.about.name);
        if !std::io::stdin().is_terminal() {
            return Err(Failure::Refused(format!(
                "{path} holds {} written to {base}: say --yes to throw it away",
                size(held(&summary))
            )));
        }
        eprint!("{path} holds {} written to {base}. Throw it away? [y/N] ", size(held(&summary)));
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        read.map_err(|error| Failure::Failed(format!("cannot read the answer: {error}")))?;
        if !matches!(answer.trim(), "y" | "yes") {
            return Err(Failure::Refused("nothing was thrown away".to_owned()));
        }
    }
    let summary = Overlay::remove(file)?;
    println!("{} written to {} are gone; the disk is as it was", size(held(&summary)), printable(&summary.about.name));
    Ok(DONE)
}
