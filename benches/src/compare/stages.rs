//! What a capture reads, and what each of its stages takes: both asked of the library.

use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hikae_benches::measure::Stages;
use imgfmt::capture::plan::{PlanOptions, plan};
use imgfmt::capture::planned::PlannedDisk;
use imgfmt::capture::{CaptureOptions, CaptureSource, capture};
use imgfmt::engine::{Cancel, Progress, Run};
use imgfmt::image::codec::Compression;
use imgfmt::image::record::Source;
use imgfmt::image::{FolderStore, PackStore, WriterOptions};
use imgfmt::source::FileDisk;
use imgfmt::{Disk, ExtentKind};
use serde_json::{Value, json};

/// Hands the engine's stages to [`Stages`].
struct Watch(Mutex<Stages>);

impl Progress for Watch {
    fn begin(&self, stage: &str, _: u64) {
        self.0.lock().unwrap().begin(stage);
    }
    fn advance(&self, _: u64) {}
    fn note(&self, message: &str) {
        eprintln!("{message}");
    }
}

/// One capture, as the command line does it, with what each of its stages took.
pub(crate) fn capture_in_stages(threads: usize, level: i32, source: &Path, image: &Path) -> Value {
    let watch = Watch(Mutex::new(Stages::new()));
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(source, 512).unwrap());
    let identity = Source { path: source.display().to_string(), kind: "file".into(), ..Source::default() };
    let source = CaptureSource { disk, identity, physical_sector_size: 512 };
    let store: Arc<dyn PackStore> = Arc::new(FolderStore::new(image, &[]).unwrap());
    let writer = WriterOptions { compression: Compression::Zstd(level), ..WriterOptions::default() };
    let options = CaptureOptions { writer, ..CaptureOptions::default() };
    let cancel = Cancel::default();
    let run = Run { threads, cancel: &cancel, progress: &watch };
    let captured = capture(&source, store, &options, run).unwrap();
    json!({
        "stages": watch.0.into_inner().unwrap().json(),
        "sync": captured.timings.sync.as_secs_f64(),
        "commit": captured.timings.commit.as_secs_f64(),
    })
}

/// Writes the runs that a capture of `disk` reads to `out`, for the limit. Returns their bytes.
pub(crate) fn write_ranges(disk: &Path, out: &Path) -> u64 {
    let source: Arc<dyn Disk> = Arc::new(FileDisk::open(disk, 512).unwrap());
    let plan = plan(&source, &PlanOptions::default()).unwrap();
    let planned = PlannedDisk::new(source, &plan.unwanted, &plan.elided);
    let (mut text, mut at, mut sum) = (String::new(), 0, 0);
    while at < planned.len() {
        let extent = planned.extent_at(at).unwrap();
        if extent.kind == ExtentKind::Data {
            writeln!(text, "{} {}", extent.offset, extent.len).unwrap();
            sum += extent.len;
        }
        at = extent.end();
    }
    std::fs::write(out, text).unwrap();
    sum
}
