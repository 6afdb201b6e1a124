//! `hikae disks`: the disks of this machine, and what a restore would want to know of them.

use imgfmt::disk::Slice;
use imgfmt::partition::{Partition, signature};
use imgfmt::restore::facts::Facts;
use imgfmt::source::device::Use;
use imgfmt::source::disks::{DiskDescription, DiskPart};
use imgfmt::source::{FileDisk, System};
use serde_json::{Value, json};

use crate::exit::{DONE, Failure};
use crate::text::{printable, short_size};

/// Shows the disks of this machine: model, serial number, size, partitions, and who uses them.
///
/// The identity of a disk is what `restore --target-id` takes: its serial number, or the digest of its present partition table.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What was read from a disk itself; the error in words where it could not be opened.
type Read = Result<(Facts, Vec<(Partition, &'static str)>), String>;

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let system = System::default();
    let disks: Vec<_> = system.disks()?.into_iter().map(|disk| (read(&system, &disk), disk)).collect();
    if arguments.json {
        let all: Vec<_> = disks.iter().map(|(read, disk)| as_json(disk, read)).collect();
        println!("{:#}", Value::Array(all));
        return Ok(DONE);
    }
    for (read, disk) in &disks {
        show(disk, read);
    }
    if disks.is_empty() {
        eprintln!("hikae: the system shows no disks");
    }
    Ok(DONE)
}

fn read(system: &System, disk: &DiskDescription) -> Read {
    let words = |error: &imgfmt::Error| imgfmt::error::full_message(error);
    let facts = Facts::examine(system, &disk.path).map_err(|error| words(&error))?;
    let bytes = FileDisk::open(&disk.path, facts.sector_size).map_err(|error| words(&error))?;
    let mut parts = Vec::new();
    for partition in &facts.layout.partitions {
        let content = Slice::open(&bytes, partition.range.clone())
            .and_then(|slice| signature::recognise(&slice))
            .ok()
            .flatten()
            .map_or("", |signature| signature.name);
        parts.push((partition.clone(), content));
    }
    Ok((facts, parts))
}

/// Where a use is, in words.
fn place(use_: &Use) -> String {
    match use_ {
        Use::MountedWritable(place) => place.display().to_string(),
        Use::MountedReadOnly(place) => format!("{} (read-only)", place.display()),
        Use::Swap => "swap".into(),
    }
}

/// Who uses a part, with what is built upon it.
fn users(part: Option<&DiskPart>) -> Vec<String> {
    let Some(part) = part else { return Vec::new() };
    part.holders.iter().map(ToString::to_string).chain(part.uses.iter().map(place)).collect()
}

fn show(disk: &DiskDescription, read: &Read) {
    let mut about = vec![short_size(disk.len)];
    about.extend(disk.model.as_deref().map(printable));
    about.extend(disk.serial.as_deref().map(|serial| format!("serial {}", printable(serial))));
    about.extend(disk.bus.clone());
    if let Some(backing) = &disk.backing {
        about.push(format!("shows {}", printable(&backing.display().to_string())));
    }
    if disk.logical_sector_size != 512 {
        about.push(format!("sectors of {} bytes", disk.logical_sector_size));
    }
    for (is, word) in
        [(disk.removable, "removable"), (disk.read_only, "read-only"), (disk.is_system(), "THIS SYSTEM RUNS FROM IT")]
    {
        if is {
            about.push(word.into());
        }
    }
    println!("{}: {}", disk.path.display(), about.join(", "));
    let whole = DiskPart { uses: disk.uses.clone(), holders: disk.holders.clone(), ..no_part(disk) };
    match read {
        Err(reason) => {
            println!("  cannot be read: {}", printable(reason));
            if !users(Some(&whole)).is_empty() {
                println!("  used: {}", printable(&users(Some(&whole)).join(", ")));
            }
        }
        Ok((facts, parts)) => {
            println!("  table: {} {}, identity {}", facts.layout.scheme.name(), facts.layout.disk_id, facts.digest);
            for problem in &facts.layout.problems {
                println!("  problem: {}", printable(problem));
            }
            for (partition, content) in parts {
                let part = parts_of(facts, disk).iter().find(|part| part.number == partition.number);
                let users = if part.is_none() && parts.len() == 1 { users(Some(&whole)) } else { users(part) };
                let kind = if partition.type_name.is_empty() { &partition.type_code } else { partition.type_name };
                let mut words = vec![short_size(partition.range.end.saturating_sub(partition.range.start))];
                words.extend(
                    [kind, content, &partition.name].map(printable).into_iter().filter(|text| !text.is_empty()),
                );
                if partition.active {
                    words.push("active".into());
                }
                let used = if users.is_empty() { String::new() } else { format!(" - used: {}", users.join(", ")) };
                println!("  {}: {}{}", partition.number, words.join(", "), printable(&used));
            }
        }
    }
}

/// The parts of a disk by the numbers of its table.
fn parts_of<'a>(facts: &'a Facts, disk: &'a DiskDescription) -> &'a [DiskPart] {
    facts.disk().map_or(&disk.parts, |disk| &disk.parts)
}

/// A part that stands for the whole disk, unused.
fn no_part(disk: &DiskDescription) -> DiskPart {
    DiskPart {
        number: 0,
        device: disk.device,
        path: disk.path.clone(),
        start: 0,
        len: disk.len,
        uses: Vec::new(),
        holders: Vec::new(),
    }
}

fn as_json(disk: &DiskDescription, read: &Read) -> Value {
    let uses: Vec<_> = disk.uses.iter().map(place).collect();
    let mut value = json!({
        "path": disk.path.display().to_string(),
        "by_id": disk.aliases,
        "model": disk.model,
        "serial": disk.serial,
        "bus": disk.bus,
        "len": disk.len,
        "logical_sector_size": disk.logical_sector_size,
        "physical_sector_size": disk.physical_sector_size,
        "removable": disk.removable,
        "read_only": disk.read_only,
        "backing_file": disk.backing.as_ref().map(|path| path.display().to_string()),
        "system": disk.is_system(),
        "uses": uses,
        "holders": disk.holders.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    let more = match read {
        Err(reason) => json!({"error": reason}),
        Ok((facts, parts)) => {
            let partitions: Vec<_> = parts
                .iter()
                .map(|(partition, content)| {
                    let part = parts_of(facts, disk).iter().find(|part| part.number == partition.number);
                    json!({
                        "number": partition.number,
                        "path": part.map(|part| part.path.display().to_string()),
                        "start": partition.range.start,
                        "len": partition.range.end.saturating_sub(partition.range.start),
                        "type": partition.type_code,
                        "type_name": partition.type_name,
                        "name": partition.name,
                        "id": partition.id,
                        "active": partition.active,
                        "content": content,
                        "uses": part.map_or(Vec::new(), |part| part.uses.iter().map(place).collect()),
                        "holders": part.map_or(Vec::new(), |part| part.holders.iter().map(ToString::to_string).collect()),
                    })
                })
                .collect();
            json!({
                "scheme": facts.layout.scheme.name(),
                "id": facts.layout.disk_id,
                "problems": facts.layout.problems,
                "target_id": facts.digest,
                "partitions": partitions,
            })
        }
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}
