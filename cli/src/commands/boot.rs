//! `hikae boot`: starts a disk in a virtual machine; with `--test`, tells whether it boots.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use imgfmt::engine::Cancel;
use imgfmt::image::OpenOptions;
use imgfmt::image::verdict::BootVerdict;
use serde_json::{Value, json};
use serve::ServedDisk;

use crate::ahead::{Ahead, show};
use crate::any_disk::AnyDisk;
use crate::boot::contents;
use crate::boot::desktop::has_desktop;
use crate::boot::evidence::{Decision, Evidence, Outcome};
use crate::boot::machine::{Bus, Options, Qemu, sets_display, usual_bus};
use crate::boot::process::Tie;
use crate::boot::programs;
use crate::boot::report::{self, Place, Tested};
use crate::boot::served::Served;
use crate::boot::start::{Firmware, Found, Start, find_start};
use crate::boot::virtualbox;
use crate::boot::watch::watch;
use crate::counted::Counter;
use crate::exit::{DONE, FOUND, Failure};
use crate::image_name::ImageName;
use crate::source::DiskOptions;
use crate::text::{parse_size, printable};

/// Bytes of decoded data that a machine gets; a quarter of that is decoded ahead.
const CACHE: u64 = 64 << 20;

/// Starts a disk in a virtual machine, BIOS or UEFI as its boot structures want it. The disk itself is never written: what the guest writes is
/// thrown away at the end. With --test nobody need watch: it tells whether the disk boots, by what shows it, and keeps a picture.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image, and the generation: a number, latest (the default), ~1, a date or an age. Or a virtual disk file, raw file or device.
    #[arg(value_name = "IMAGE[@GEN]", add = crate::complete::generations())]
    disk: String,
    /// The guest's memory.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    memory: u64,
    /// The guest's processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// What starts the disk.
    #[arg(long, value_name = "FIRMWARE", default_value = "auto", value_enum)]
    firmware: Wanted,
    /// How the disk is attached; by default as the systems of its firmware's time know it.
    #[arg(long, value_name = "BUS", value_enum)]
    bus: Option<Bus>,
    /// Keep what the guest writes in this file, which is made where it is not there; the next start with it goes on from there.
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
    /// Let the guest reach the network of this machine.
    #[arg(long)]
    network: bool,
    /// Whose virtual machine: QEMU's; or one that is made and registered in VirtualBox, over a VMDK or VDI file such
    /// as those of a mount. Where VirtualBox is not installed, the commands for it are printed.
    #[arg(long, value_name = "PROGRAM", default_value = "qemu", value_enum)]
    vm: Vm,
    /// Tell whether it boots: no display, a report and a picture beside the image, exit code 0 where it boots and 1 where not.
    #[arg(long)]
    test: bool,
    /// With --test: how long to wait at most, as in 90s or 5m.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = parse_limit)]
    limit: Duration,
    /// With --test: text that shows that it boots, on the serial port or the screen; nothing else does then. Can be given more than once: all of them.
    #[arg(long, value_name = "TEXT")]
    expect: Vec<String>,
    /// With --test: the folder for report and picture; by default that of the image.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Another folder in which packs may lie; can be given more than once.
    #[arg(long, value_name = "FOLDER")]
    packs: Vec<PathBuf>,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: DiskOptions,
    /// More arguments of QEMU.
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    more: Vec<OsString>,
}

/// The firmware that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    /// As the disk's boot structures want it.
    Auto,
    /// BIOS.
    Bios,
    /// UEFI, with fresh variables.
    Uefi,
}

/// Whose virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Vm {
    /// QEMU.
    Qemu,
    /// VirtualBox.
    Virtualbox,
}

fn parse_limit(text: &str) -> Result<Duration, String> {
    let time: jiff::SignedDuration = text.parse().map_err(|_| format!("{text:?} is no time: 90s and 5m are"))?;
    let time = Duration::try_from(time).map_err(|_| format!("{text:?} is no time to wait"))?;
    if time.is_zero() { Err("no time at all decides nothing".into()) } else { Ok(time) }
}

pub(crate) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let name = ImageName::parse(&arguments.disk);
    if arguments.vm == Vm::Virtualbox && name.is_hikae() {
        return Err(attach_a_view(&name));
    }
    let disk = AnyDisk::open(name.clone(), &arguments.packs, &arguments.options)?;
    let asked = |firmware| Found { start: Start::With(firmware), why: "--firmware says so".into(), doubts: Vec::new() };
    let found = match arguments.firmware {
        Wanted::Auto => find_start(&disk.disk)?,
        Wanted::Bios => asked(Firmware::Bios),
        Wanted::Uefi => asked(Firmware::Uefi),
    };
    let Start::With(firmware) = found.start else { return data_only(arguments, &name, &disk, &found.why) };
    for doubt in &found.doubts {
        eprintln!("hikae: warning: {}", printable(doubt));
    }
    let sector_size = disk.disk.sector_size();
    let options = Options {
        memory: arguments.memory,
        cpus: arguments.cpus,
        firmware,
        bus: arguments.bus.unwrap_or_else(|| usual_bus(firmware, sector_size)),
        network: arguments.network,
        more: arguments.more.clone(),
    };
    if arguments.vm == Vm::Virtualbox {
        return in_virtualbox(&name, &disk, &options);
    }
    let folder = private_folder()?;
    let qemu = Qemu::find(firmware, folder.path())?;
    let accelerator = qemu.accelerator.name;
    let overlay = arguments.overlay.as_deref().map(|file| disk.open_overlay(file)).transpose()?;
    let counter = Counter::of(disk.image.clone());
    // Firmware and boot loaders read one piece after the other and wait for each.
    let ahead = match disk.image {
        Some(_) => Some(Ahead::start(CACHE)?.0),
        None => None,
    };
    let base = counter.count(show(ahead.as_ref(), Arc::clone(&disk.disk)));
    let shown = match &overlay {
        Some(overlay) => ServedDisk::Writable(overlay.disk(base)?),
        None => ServedDisk::ReadOnly(base),
    };
    let served = Served::start(shown, overlay, folder.path())?;
    if arguments.test {
        let mut command = qemu.command(&options, &served.drive, folder.path())?;
        command.args(&options.more);
        let cancel = Cancel::default();
        let asked = cancel.clone();
        // A second handler cannot be set; a command sets one at most.
        let _ = ctrlc::set_handler(move || asked.cancel());
        eprintln!(
            "hikae: {} starts by {firmware}: {}; {}, {} s at most",
            disk.what,
            printable(&found.why),
            accelerator,
            arguments.limit.as_secs()
        );
        let seen = watch(command, arguments.expect.clone(), arguments.limit, folder.path(), &cancel)?;
        served.finish()?;
        return tell(
            arguments,
            &name,
            &disk,
            &Tested { seen: &seen, options: &options, found: &found, accelerator, counts: counter.counts() },
        );
    }
    eprintln!("hikae: {} starts by {firmware}: {}; {accelerator}", disk.what, printable(&found.why));
    match &arguments.overlay {
        Some(file) => eprintln!("hikae: what the guest writes goes to {}", printable(&file.display().to_string())),
        None => eprintln!("hikae: what the guest writes is thrown away at the end; --overlay FILE keeps it"),
    }
    let mut command = qemu.command(&options, &served.drive, folder.path())?;
    command.args(["-usb", "-device", "usb-tablet"]);
    if !sets_display(&options.more) && !has_desktop() {
        eprintln!(
            "hikae: no desktop here, so the guest's serial port is shown; -- -display ... or -- -vnc ... shows its screen. Ctrl-A X ends it"
        );
        command.args(["-display", "none", "-serial", "mon:stdio"]);
    }
    command.args(&options.more);
    // Ctrl-C ends QEMU, which is in the same terminal; this process stays to clean up behind it.
    let _ = ctrlc::set_handler(|| {});
    let cannot = |error| Failure::Failed(format!("cannot start QEMU: {error}"));
    let mut machine = command.spawn().map_err(cannot)?;
    let _tied = Tie::of(&machine);
    let status = machine.wait().map_err(cannot)?;
    served.finish()?;
    if status.success() { Ok(DONE) } else { Err(Failure::Failed(format!("QEMU ended: {status}"))) }
}

fn private_folder() -> Result<tempfile::TempDir, Failure> {
    let cannot = |why: &str| {
        Failure::Failed(format!(
            "cannot make a folder for the machine: {why}; {} names another place",
            programs::TEMPORARY
        ))
    };
    let folder =
        tempfile::Builder::new().prefix("hikae-boot.").tempdir().map_err(|error| cannot(&error.to_string()))?;
    // The monitor is told of files in Unicode.
    match folder.path().to_str() {
        Some(_) => Ok(folder),
        None => Err(cannot("its path is no Unicode")),
    }
}

/// Tells what a test found: on stdout, beside the image, and in the image's verdicts.
fn tell(arguments: &Arguments, name: &ImageName, disk: &AnyDisk, tested: &Tested<'_>) -> Result<u8, Failure> {
    let place = Place::new(name, disk.generation, arguments.out.as_deref());
    let seen = tested.seen;
    let picture = seen.picture.as_deref();
    let mut report = tested.json();
    report["disk"] = arguments.disk.as_str().into();
    report["picture"] = picture.map(|_| place.picture().display().to_string()).into();
    keep(arguments, name, disk, &place, &mut report, picture)?;
    if arguments.json {
        println!("{report:#}");
    } else {
        let Decision { outcome, evidence, reason } = &seen.decision;
        println!("{}: {}: {}", outcome.name(), evidence.name(), printable(reason));
        println!("after {:.1} s, {}, {}", seen.took.as_secs_f64(), tested.options.firmware, tested.accelerator);
        if !outcome.boots() {
            for line in tested.last_lines() {
                println!("  | {}", printable(&line));
            }
        }
        let picture = picture.map_or(String::new(), |_| format!(", picture in {}", place.picture().display()));
        println!("report in {}{picture}", place.report().display());
    }
    Ok(if seen.decision.outcome.boots() { DONE } else { FOUND })
}

/// Says that a disk holds data only, and checks its filesystems instead.
fn data_only(arguments: &Arguments, name: &ImageName, disk: &AnyDisk, why: &str) -> Result<u8, Failure> {
    let checked = contents::check(&disk.disk)?;
    let damaged = checked.iter().any(|checked| matches!(checked.state, contents::State::Damaged(_)));
    let partitions: Vec<Value> = checked.iter().map(contents::Checked::json).collect();
    let mut report = json!({
        "disk": arguments.disk, "verdict": Outcome::DataOnly.name(), "boots": false, "evidence": Evidence::None.name(), "reason": why,
        "firmware": "", "whole": !damaged, "partitions": partitions,
    });
    if arguments.test {
        let place = Place::new(name, disk.generation, arguments.out.as_deref());
        keep(arguments, name, disk, &place, &mut report, None)?;
    }
    if arguments.json {
        println!("{report:#}");
    } else {
        println!("data only: {}", printable(why));
        for checked in &checked {
            println!("{}", printable(&checked.line()));
        }
        eprintln!(
            "hikae: its files can be had by hikae ls, cp and mount; --firmware bios or uefi starts it all the same"
        );
    }
    Ok(if damaged { FOUND } else { DONE })
}

/// Writes the report, and records it in the verdicts of the image where there is one.
fn keep(
    arguments: &Arguments,
    name: &ImageName,
    disk: &AnyDisk,
    place: &Place,
    report: &mut Value,
    picture: Option<&[u8]>,
) -> Result<(), Failure> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    report["tested"] = now.as_str().into();
    report["tool"] = concat!("hikae ", env!("CARGO_PKG_VERSION")).into();
    report["generation"] = disk.generation.into();
    report["overlay"] = arguments.overlay.as_ref().map(|file| file.display().to_string()).into();
    // With an overlay it was another disk than the generation.
    if let (Some(generation), Some((image, root)), None) = (disk.generation, &disk.proof, &arguments.overlay) {
        report["image"] = image.as_str().into();
        report["root"] = root.as_str().into();
        let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
        let boots = report["boots"] == true;
        let verdict = BootVerdict {
            root: root.clone(),
            tested: now,
            verdict: text("verdict"),
            boots,
            evidence: text("evidence"),
            firmware: text("firmware"),
        };
        let image = name.open_quietly(&arguments.packs, &OpenOptions::default())?;
        if !report::record(&image, generation, verdict) {
            eprintln!(
                "hikae: warning: the verdict cannot be written beside {}, so hikae list will not show it",
                name.path.display()
            );
        }
    }
    place.write(report, picture)
}

/// A machine of VirtualBox.
fn in_virtualbox(name: &ImageName, disk: &AnyDisk, options: &Options) -> Result<u8, Failure> {
    let extension = name.path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !matches!(extension, "vmdk" | "vdi" | "vhd") {
        return Err(Failure::WrongUse(format!(
            "{} is no file that VirtualBox attaches: it takes .vmdk, .vdi and .vhd files, such as disk.vmdk of a generation in a mount",
            name.path.display()
        )));
    }
    let path = programs::attachable(&name.path)
        .map_err(|error| Failure::Failed(format!("cannot find {}: {error}", name.path.display())))?;
    let machine = format!("hikae {}", jiff::Zoned::now().strftime("%Y-%m-%d %H.%M.%S"));
    let commands = virtualbox::commands(&machine, &path, options);
    if !virtualbox::is_installed() {
        eprintln!(
            "hikae: VBoxManage is not installed here; where it is, these commands make a machine over {} and start it:",
            disk.what
        );
        for command in &commands {
            println!("{}", virtualbox::line(command));
        }
        return Ok(DONE);
    }
    virtualbox::run(&commands)?;
    println!("the machine {machine:?} is registered in VirtualBox and started");
    eprintln!("hikae: VBoxManage unregistervm {machine:?} forgets it; the mount must stay for as long as it runs");
    Ok(DONE)
}

/// VirtualBox attaches files, so a hikae image is mounted first.
fn attach_a_view(name: &ImageName) -> Failure {
    Failure::WrongUse(format!(
        "VirtualBox attaches files: mount the disk first (hikae mount {name} {mount}), then start its view there (hikae boot --vm virtualbox {disk}); \
         a whole image has those of its newest generation in the folder latest there",
        mount = programs::MOUNT_POINT,
        disk = programs::DISK_OF_A_MOUNT
    ))
}
