//! Restores in memory: what is written, in which order, and what is left when they are ended at any moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use imgfmt::engine::{Cancel, Run, quiet};
use imgfmt::partition::{Scheme, read_layout};
use imgfmt::ranges::RangeSet;
use imgfmt::restore::tables::{Tables, of_disk};
use imgfmt::restore::undo::{Phase, Start, Undo};
use imgfmt::restore::wanted::Wanted;
use imgfmt::restore::write::{Restored, Session, WriteOptions, structures_to_save};
use imgfmt::target::copy::BAD_MARKER;
use imgfmt::{Disk, Error, Extent, ExtentKind, Result, disk};

use crate::conformance::Random;
use crate::tools::shell;
use crate::volatile_disk::{Fault, VolatileDisk};

const LEN: usize = 6 << 20;

/// A disk with a map of its own.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) bytes: Vec<u8>,
    /// Ends and kinds, ascending.
    pub(crate) extents: Vec<(u64, ExtentKind)>,
}

impl Disk for Model {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = disk::check_range(offset, buf.len() as u64, self.len())?;
        let mut at = offset;
        while at < end {
            let extent = self.extent_at(at)?;
            let stop = extent.end().min(end);
            let out = &mut buf[(at - offset) as usize..(stop - offset) as usize];
            match extent.kind {
                ExtentKind::Bad => return Err(Error::Bad { offset: at, end: stop }),
                ExtentKind::Data => out.copy_from_slice(&self.bytes[at as usize..stop as usize]),
                ExtentKind::Zero | ExtentKind::Absent => out.fill(0),
            }
            at = stop;
        }
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        disk::check_range(offset, 1, self.len())?;
        let (end, kind) = self.extents.iter().find(|(end, _)| *end > offset).unwrap();
        Ok(Extent { offset, len: end - offset, kind: *kind })
    }
}

impl Model {
    /// Random bytes under a table that sfdisk made; between the tables every kind of extent.
    pub(crate) fn random(table: &str, random: &mut Random, with_bad: bool) -> Self {
        let mut bytes = with_table(table);
        let layout = read_layout(&disk::MemoryDisk::new(bytes.clone())).unwrap();
        let tables = of_disk(&disk::MemoryDisk::new(bytes.clone()), &layout).unwrap().ranges();
        let mut extents: Vec<(u64, ExtentKind)> = Vec::new();
        let mut at = 0_u64;
        while at < LEN as u64 {
            let (end, inside) = tables.run_at(at).unwrap_or((LEN as u64, false));
            let end = if inside { end } else { end.min(at + 512 * (1 + random.below(600))) };
            let kinds = [ExtentKind::Data, ExtentKind::Data, ExtentKind::Zero, ExtentKind::Absent, ExtentKind::Bad];
            let kind =
                if inside { ExtentKind::Data } else { kinds[random.below(if with_bad { 5 } else { 4 }) as usize] };
            if !inside {
                random.fill(&mut bytes[at as usize..end as usize]);
            }
            extents.push((end, kind));
            at = end;
        }
        Self { bytes, extents }
    }

    /// What a target that held `before` must hold afterwards.
    pub(crate) fn expected(&self, before: &[u8], wipe: bool) -> Vec<u8> {
        let mut after = before.to_vec();
        let mut at = 0_usize;
        for (end, kind) in &self.extents {
            let end = *end as usize;
            match kind {
                ExtentKind::Data => after[at..end].copy_from_slice(&self.bytes[at..end]),
                ExtentKind::Zero => after[at..end].fill(0),
                ExtentKind::Absent if wipe => after[at..end].fill(0),
                ExtentKind::Absent => {}
                ExtentKind::Bad => (at..end).for_each(|n| after[n] = BAD_MARKER[n % 32]),
            }
            at = end;
        }
        after
    }
}

/// An empty disk with a table that sfdisk makes once: it syncs everything each time.
fn with_table(table: &str) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let make = || {
        let folder = folder();
        shell(folder.path(), &format!("truncate -s {LEN} d\n[ -z '{table}' ] || printf '{table}' | sfdisk -q d"));
        std::fs::read(folder.path().join("d")).unwrap()
    };
    made.entry(table.to_owned()).or_insert_with(make).clone()
}

pub(crate) const MBR: &str = "label: dos\\nlabel-id: 0x5eed0001\\nstart=64,size=2000,type=7,bootable\\nstart=2100,size=9000,type=5\\nstart=2200,size=3000,type=83\\nstart=6000,size=2000,type=b\\n";
pub(crate) const GPT: &str = "label: gpt\\nfirst-lba: 34\\nstart=64,size=2000,type=U\\nstart=3000,size=5000\\n";
pub(crate) const NONE: &str = "";

struct Job<'a> {
    wanted: &'a dyn Disk,
    tables: Tables,
    options: WriteOptions,
}

impl<'a> Job<'a> {
    fn new(wanted: &'a dyn Disk, options: WriteOptions) -> Self {
        let tables = of_disk(wanted, &read_layout(wanted).unwrap()).unwrap();
        Self { wanted, tables, options }
    }

    fn session<'b>(&'b self, target: &'b VolatileDisk) -> Session<'b> {
        Session { wanted: self.wanted, target, tables: &self.tables, options: self.options }
    }

    /// What a target that held `before` must hold afterwards: its own old tables are invalid where nothing took their place.
    fn expected(&self, model: &Model, before: &[u8]) -> Vec<u8> {
        let mut expected = model.expected(before, self.options.wipe);
        let disk = disk::MemoryDisk::new(before.to_vec());
        let old = of_disk(&disk, &read_layout(&disk).unwrap()).unwrap();
        for at in old.ranges().minus(&self.tables.ranges()).iter().flatten() {
            if model.extent_at(at).unwrap().kind == ExtentKind::Absent {
                expected[at as usize] = 0;
            }
        }
        expected
    }

    fn start(&self, target: &VolatileDisk, undo: &Path) -> Result<Restored> {
        let cancel = Cancel::default();
        self.start_with(target, undo, Run { threads: 3, ..quiet(&cancel) })
    }

    fn start_with(&self, target: &VolatileDisk, undo: &Path, run: Run<'_>) -> Result<Restored> {
        let old = of_disk(target, &read_layout(target).unwrap()).unwrap();
        let save = structures_to_save(&self.tables, &old, 512, target.len());
        let mut undo = Undo::create(undo, start())?;
        self.session(target).start(&mut undo, &save, run)
    }

    fn resume(&self, target: &VolatileDisk, undo: &Path) -> Result<Restored> {
        let mut undo = Undo::open(undo)?;
        self.session(target).resume(&mut undo, quiet(&Cancel::default()))
    }
}

/// A folder in memory where there is one: undo files are synced line by line.
fn folder() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn start() -> Start {
    let session = "0b8ee8ba-5b23-4c3e-a48e-a0ea3eb2cbd0".into();
    Start { version: 1, session, work: "whole disk".into(), ..Start::default() }
}

fn options() -> WriteOptions {
    WriteOptions { checkpoint: 512 << 10, ..WriteOptions::default() }
}

/// A target that was in use: a table of its own, and noise.
fn used_target(table: &str, random: &mut Random) -> Vec<u8> {
    Model::random(table, random, false).bytes
}

fn plain(model: &Model) -> Vec<u8> {
    model.expected(&vec![0xee; model.bytes.len()], false)
}

#[test]
fn every_kind_of_extent_is_written_as_it_should_be() {
    let mut random = Random::new(1);
    for (table, wipe) in [(MBR, false), (MBR, true), (GPT, false), (GPT, true), (NONE, false)] {
        for old_table in [MBR, GPT, NONE] {
            let folder = folder();
            let model = Model::random(table, &mut random, true);
            let before = used_target(old_table, &mut random);
            let target = VolatileDisk::new(before.clone());
            let job = Job::new(&model, WriteOptions { wipe, verify: true, ..options() });
            let restored = job.start(&target, &folder.path().join("undo")).unwrap();
            let expected = job.expected(&model, &before);
            assert!(target.bytes() == expected, "{table:?} over {old_table:?}");
            let bad: u64 = restored.bad.iter().map(|(_, len)| len).sum();
            let of = |kind| {
                let mut at = 0;
                let mut sum = 0;
                for (end, this) in &model.extents {
                    sum += if *this == kind { end - at } else { 0 };
                    at = *end;
                }
                sum
            };
            assert_eq!((restored.data, restored.zero), (of(ExtentKind::Data), of(ExtentKind::Zero)));
            assert_eq!((restored.absent, bad), (of(ExtentKind::Absent), of(ExtentKind::Bad)));
            assert_eq!(restored.written + restored.skipped, restored.verified);
            let undo = Undo::open(&folder.path().join("undo")).unwrap();
            assert_eq!(undo.phase(), Phase::Finished);
            for saved in undo.saved() {
                assert!(before[saved.offset as usize..][..saved.bytes.len()] == saved.bytes[..], "{}", saved.what);
            }
        }
    }
}

#[test]
fn comparing_writes_only_what_differs_and_nothing_where_nothing_does() {
    let mut random = Random::new(2);
    let folder = folder();
    for (n, table) in [MBR, GPT, NONE].into_iter().enumerate() {
        let model = Model::random(table, &mut random, false);
        let target = VolatileDisk::new(plain(&model));
        let job = Job::new(&model, WriteOptions { compare: true, ..options() });
        let undo = |m: usize| folder.path().join(format!("{n}-{m}"));
        let restored = job.start(&target, &undo(0)).unwrap();
        assert_eq!((target.written(), restored.written), (0, 0));
        // Five bytes in as many units.
        let mut changed = plain(&model);
        let mut units = std::collections::BTreeSet::new();
        while units.len() < 5 {
            let at = (512 * 70 + random.below(LEN as u64 - 512 * 200)) as usize;
            let kind = model.extent_at(at as u64).unwrap().kind;
            let in_table = job.tables.ranges().contains(at as u64..at as u64 + 1);
            if kind != ExtentKind::Absent && !in_table {
                changed[at] ^= 1;
                units.insert(at / 4096);
            }
        }
        let target = VolatileDisk::new(changed);
        let restored = job.start(&target, &undo(1)).unwrap();
        assert!(target.bytes() == plain(&model));
        let tables = job.tables.ranges().total();
        assert!(restored.written <= 5 * 4096 + tables, "{} bytes written", restored.written);
        assert!(target.written() <= 5 * 4096 + 2 * tables + 512);
        // Only the table.
        let mut changed = plain(&model);
        changed[444] ^= 1;
        let target = VolatileDisk::new(changed);
        job.start(&target, &undo(2)).unwrap();
        assert!(target.bytes() == plain(&model));
        assert!(target.written() <= 2 * tables + 512);
    }
}

/// What may be on the medium at any moment: the target as it was, or something without a valid table, or the whole result.
fn assert_never_half_valid(now: &[u8], before: &[u8], model: &Model, tables: &RangeSet, at: &str) {
    let before_disk = disk::MemoryDisk::new(before.to_vec());
    let old = of_disk(&before_disk, &read_layout(&before_disk).unwrap()).unwrap().ranges();
    let layout = read_layout(&disk::MemoryDisk::new(now.to_vec())).unwrap();
    if layout.scheme == Scheme::None {
        return;
    }
    let wanted = model.expected(before, false);
    let (mut as_before, mut as_wanted) = (true, true);
    let mut from = 0;
    for (end, kind) in &model.extents {
        // The tables may be written one after the other once the body is there, and the old ones be made invalid before.
        let body = RangeSet::from_range(from..*end).minus(tables);
        if *kind != ExtentKind::Absent {
            let same = |set: &RangeSet, with: &[u8]| {
                set.iter().all(|r| now[r.start as usize..r.end as usize] == with[r.start as usize..r.end as usize])
            };
            as_before &= same(&body.minus(&old), before);
            as_wanted &= same(&body, &wanted);
        }
        from = *end;
    }
    assert!(as_before || as_wanted, "{at}: a table is valid and the data are neither the old nor the new ones");
}

#[test]
fn whatever_ends_a_restore_the_table_is_never_valid_before_the_data_and_resume_completes_it() {
    let mut random = Random::new(21);
    let points = if std::env::var_os("HIKAE_LONG").is_some() { 100 } else { 40 };
    let mut resumed_without_reading = 0;
    for point in 0..points {
        let table = [MBR, GPT][point % 2];
        let fault = [Fault::Plug, Fault::Error, Fault::Torn][point / 2 % 3];
        let compare = point % 5 == 4;
        let model = Model::random(table, &mut random, point % 7 == 0);
        let before = used_target([GPT, MBR, MBR, GPT][point % 4], &mut random);
        let job = Job::new(&model, WriteOptions { compare, verify: point % 3 == 0, ..options() });
        let folder = folder();
        let whole = VolatileDisk::new(before.clone());
        job.start(&whole, &folder.path().join("whole")).unwrap();
        let expected = whole.bytes();

        let target = VolatileDisk::new(before.clone());
        let at = 1 + random.below(whole.operations());
        target.fail_at(at, fault);
        let undo = folder.path().join("undo");
        let error = job.start(&target, &undo).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        let label = format!("point {point}: {fault:?} at operation {at} of {}", whole.operations());
        // A second fault hits the resumed run.
        let mut now = if fault == Fault::Plug { target.after_the_plug(&mut random) } else { target.bytes() };
        for round in 0..2 {
            assert_never_half_valid(&now, &before, &model, &job.tables.ranges(), &label);
            let target = VolatileDisk::new(now);
            if round == 0 {
                target.fail_at(1 + random.below(whole.operations()), fault);
            }
            match job.resume(&target, &undo) {
                Ok(restored) => {
                    assert!(target.bytes() == expected, "{label}");
                    resumed_without_reading += u64::from(restored.skipped > 1 << 20);
                    assert!(matches!(job.resume(&target, &undo), Err(Error::Refused(_))), "finished is finished");
                    now = Vec::new();
                    break;
                }
                Err(error) => {
                    assert!(round == 0, "{label}: {error}");
                    now = if fault == Fault::Plug { target.after_the_plug(&mut random) } else { target.bytes() };
                }
            }
        }
        assert!(now.is_empty(), "{label}");
    }
    assert!(resumed_without_reading > 5, "{resumed_without_reading} runs went on where the last one ended");
}

#[test]
fn what_is_right_already_is_not_written_again() {
    let mut random = Random::new(3);
    let folder = folder();
    let model = Model::random(GPT, &mut random, false);
    let job = Job::new(&model, options());
    let whole = VolatileDisk::new(vec![0xaa; LEN]);
    job.start(&whole, &folder.path().join("whole")).unwrap();
    let target = VolatileDisk::new(vec![0xaa; LEN]);
    target.fail_at(whole.operations() * 3 / 4, Fault::Error);
    let undo = folder.path().join("undo");
    job.start(&target, &undo).unwrap_err();
    let first = target.written();
    let restored = job.resume(&target, &undo).unwrap();
    assert!(target.bytes() == job.expected(&model, &vec![0xaa; LEN]));
    assert!(restored.written < first, "{} written again after {first}", restored.written);
    assert!(target.written() < whole.written() + job.tables.ranges().total() + (64 << 10));
}

#[test]
fn a_medium_that_lies_is_found_and_written_again() {
    let mut random = Random::new(4);
    let folder = folder();
    let model = Model::random(MBR, &mut random, false);
    let job = Job::new(&model, WriteOptions { verify: true, ..options() });
    let before = vec![0x11; LEN];
    let target = VolatileDisk::new(before.clone());
    let place =
        (0..LEN / 512).rev().find(|sector| model.extent_at(*sector as u64 * 512).unwrap().kind == ExtentKind::Data);
    let place = place.unwrap();
    target.lossy.lock().unwrap().insert(place);
    let undo = folder.path().join("undo");
    let error = job.start(&target, &undo).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Corrupt { offset, .. } if offset as usize / 512 <= place), "{text}");
    assert!(text.contains("--resume"), "{text}");
    let left = target.after_the_plug(&mut random);
    assert_never_half_valid(&left, &before, &model, &job.tables.ranges(), "after the verification");
    assert_eq!(read_layout(&disk::MemoryDisk::new(left.clone())).unwrap().scheme, Scheme::None);
    assert!(std::fs::read_to_string(&undo).unwrap().contains("\"wrong\""));
    // The medium behaves again (a remapped sector); nothing that was done before is trusted.
    let target = VolatileDisk::new(left);
    job.resume(&target, &undo).unwrap();
    assert!(target.bytes() == job.expected(&model, &before));
}

#[test]
fn a_target_that_something_else_wrote_to_is_not_resumed() {
    let mut random = Random::new(5);
    let folder = folder();
    let model = Model::random(MBR, &mut random, false);
    let job = Job::new(&model, options());
    let target = VolatileDisk::new(vec![0x11; LEN]);
    target.fail_at(8, Fault::Error);
    let undo = folder.path().join("undo");
    job.start(&target, &undo).unwrap_err();
    let mut bytes = target.bytes();
    let foreign = used_target(MBR, &mut random);
    bytes[..512].copy_from_slice(&foreign[..512]);
    bytes[440] ^= 0xff;
    let target = VolatileDisk::new(bytes.clone());
    let refused = job.resume(&target, &undo).unwrap_err();
    assert!(matches!(&refused, Error::Refused(text) if text.contains("something else")), "{refused}");
    assert!(target.bytes() == bytes);
}

#[test]
fn a_cancelled_restore_goes_on_where_it_was() {
    struct CancelAt<'a>(&'a Cancel, std::sync::atomic::AtomicU64, u64);
    impl imgfmt::engine::Progress for CancelAt<'_> {
        fn begin(&self, _: &str, _: u64) {}
        fn advance(&self, bytes: u64) {
            if self.1.fetch_add(bytes, std::sync::atomic::Ordering::SeqCst) + bytes >= self.2 {
                self.0.cancel();
            }
        }
        fn note(&self, _: &str) {}
    }
    let mut random = Random::new(6);
    let folder = folder();
    let model = Model::random(MBR, &mut random, false);
    // No checkpoint of its own comes before the end.
    let job = Job::new(&model, WriteOptions::default());
    let target = VolatileDisk::new(vec![0x11; LEN]);
    let undo = folder.path().join("undo");
    let cancel = Cancel::default();
    let progress = CancelAt(&cancel, Default::default(), LEN as u64 / 2);
    let run = Run { threads: 2, cancel: &cancel, progress: &progress };
    assert!(matches!(job.start_with(&target, &undo, run), Err(Error::Cancelled)));
    let done = Undo::open(&undo).unwrap().done();
    assert!(done >= LEN as u64 / 3, "{done}");
    let restored = job.resume(&target, &undo).unwrap();
    assert!(restored.skipped >= done);
    assert!(target.bytes() == job.expected(&model, &vec![0x11; LEN]));
}

#[test]
fn a_target_that_is_longer_keeps_what_lies_behind_the_source() {
    let mut random = Random::new(7);
    let folder = folder();
    let model = Model::random(MBR, &mut random, false);
    let mut before = vec![0x22; LEN + 70_000];
    let wanted = Wanted::new(Arc::new(model.clone()), before.len() as u64);
    let job = Job::new(&wanted, options());
    let target = VolatileDisk::new(before.clone());
    job.start(&target, &folder.path().join("undo")).unwrap();
    let expected = job.expected(&model, &before[..LEN]);
    before[..LEN].copy_from_slice(&expected);
    assert!(target.bytes() == before);
    let short = VolatileDisk::new(vec![0; LEN - 512]);
    let refused = Job::new(&model, options()).start(&short, &folder.path().join("short")).unwrap_err();
    assert!(matches!(refused, Error::Refused(_)));
    assert!(short.bytes() == vec![0; LEN - 512]);
}
