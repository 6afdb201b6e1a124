//! Writing a scope in the order that never shows a half-written disk as a good one. `docs/restore.md` section 2 fixes the order.

use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::capture::bad::read_tolerant;
use crate::disk::{Disk, Extent, ExtentKind, buf_len};
use crate::engine::{Run, run_ordered};
use crate::error::{Error, Result};
use crate::partition::Structure;
use crate::ranges::RangeSet;
use crate::restore::pieces::{PIECE, Pieces, differences, fill, joined};
use crate::restore::tables::Tables;
use crate::restore::undo::{Phase, Undo};
use crate::target::InPlace;

/// Bytes that are made zero at once where nothing is compared.
const ZERO_PIECE: u64 = 256 << 20;
/// Bytes written between two checkpoints.
const CHECKPOINT: u64 = 256 << 20;
/// Time between two checkpoints, however little was written.
const CHECKPOINT_TIME: Duration = Duration::from_secs(60);
/// Ranges that differ when they are read back, before the reading ends.
const MAX_WRONG: usize = 1000;
/// What the first sector of a scope begins with while a session is not finished.
pub const MARK: &str = "HIKAE: THE RESTORE OF THIS DISK IS NOT FINISHED. SESSION ";

/// How a scope is written.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Make Absent ranges zero, rather than leaving alone what the target has there.
    pub wipe: bool,
    /// Read the target, and write only where it differs.
    pub compare: bool,
    /// Read everything back from the medium before the tables are written.
    pub verify: bool,
    /// The source cannot have changed since the session began: what is done needs no second look.
    pub stable_source: bool,
    /// Bytes written between two checkpoints.
    pub checkpoint: u64,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { wipe: false, compare: false, verify: false, stable_source: true, checkpoint: CHECKPOINT }
    }
}

/// What a session did, in bytes, in this run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Data that the wanted scope has.
    pub data: u64,
    /// Zeros that the wanted scope has.
    pub zero: u64,
    /// Absent: left alone, or made zero on request.
    pub absent: u64,
    /// Unreadable at the source: `(offset, len)`, filled with a marker.
    pub bad: Vec<(u64, u64)>,
    /// Bytes that were written or made zero, tables included.
    pub written: u64,
    /// Bytes that were right already, or were done by an earlier run.
    pub skipped: u64,
    /// Bytes that were read back and compared.
    pub verified: u64,
}

/// A session: what is wanted, and where.
pub struct Session<'a> {
    /// The scope as it shall be; as long as the target at the most.
    pub wanted: &'a dyn Disk,
    /// The scope as it is.
    pub target: &'a dyn InPlace,
    /// The tables of what is wanted.
    pub tables: &'a Tables,
    /// How.
    pub options: WriteOptions,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("tables", &self.tables).field("options", &self.options).finish_non_exhaustive()
    }
}

/// What goes into the undo file before a session: the tables that are wanted, where they will lie, and those of the target.
pub fn structures_to_save(wanted: &Tables, old: &Tables, sector_size: u32, len: u64) -> Vec<Structure> {
    let mut all: Vec<Structure> = Vec::new();
    let mut taken = RangeSet::empty();
    let first = Structure { what: "first sector".into(), range: 0..u64::from(sector_size).min(len) };
    let new = wanted.all().map(|new| Structure { what: format!("place of the new {}", new.what), ..new.clone() });
    for structure in old.all().cloned().chain([first]).chain(new) {
        let range = structure.range.start.min(len)..structure.range.end.min(len);
        let own = RangeSet::from_range(range).minus(&taken);
        all.extend(own.iter().map(|range| Structure { what: structure.what.clone(), range }));
        taken = taken.union(&own);
    }
    all.sort_by_key(|structure| structure.range.start);
    all
}

impl Session<'_> {
    /// Starts a session whose undo file is new.
    pub fn start(&self, undo: &mut Undo, save: &[Structure], run: Run<'_>) -> Result<Restored> {
        self.check_len()?;
        undo.save(self.target, save)?;
        let invalid = RangeSet::from_unsorted(save.iter().map(|structure| structure.range.clone()).collect());
        let work = Work { session: self, invalid, run };
        work.everything(undo, 0, self.options.compare)
    }

    /// Takes up a session that was interrupted.
    pub fn resume(&self, undo: &mut Undo, run: Run<'_>) -> Result<Restored> {
        self.check_len()?;
        let path = undo.path().display().to_string();
        let invalid = undo.saved().iter().map(|saved| saved.offset..saved.offset.saturating_add(buf_len(&saved.bytes)));
        // What could not be read was not saved, and is written again.
        let invalid = RangeSet::from_unsorted(invalid.collect()).union(&self.tables.ranges());
        let work = Work { session: self, invalid, run };
        match undo.phase() {
            Phase::Saving => Err(Error::Refused(format!(
                "the run that made {path} ended before it wrote anything: start again without --resume"
            ))),
            Phase::Finished => Err(Error::Refused(format!("the session of {path} is finished: nothing is left to do"))),
            Phase::Ready | Phase::Invalidated | Phase::Body => {
                let marked = self.carries_mark(&undo.start().session)?;
                if !marked && !self.looks_like_this_session(undo)? {
                    return Err(Error::Refused(format!(
                        "something else has written to the target since {path} was made: start again without --resume"
                    )));
                }
                let trusted = marked && undo.phase() >= Phase::Invalidated && self.options.stable_source;
                let from = if trusted { undo.done() } else { 0 };
                work.everything(undo, from, true)
            }
        }
    }

    /// Reads the target back from the medium, tables included. Returns the bytes that were compared, and where they differ.
    pub fn read_back(&self, run: Run<'_>) -> Result<(u64, Vec<Range<u64>>)> {
        let work = Work { session: self, invalid: RangeSet::empty(), run };
        let mut restored = Restored::default();
        let wrong = work.compare_all(&RangeSet::empty(), "reading back", &mut restored)?;
        Ok((restored.verified, wrong))
    }

    fn check_len(&self) -> Result<()> {
        let (have, need) = (self.target.len(), self.wanted.len());
        if have < need {
            return Err(Error::Refused(format!("the target has {have} bytes, and {need} are needed")));
        }
        Ok(())
    }

    /// Says whether the first sector has the mark of a session.
    fn carries_mark(&self, session: &str) -> Result<bool> {
        Ok(self.first_sector(self.target)?.starts_with(format!("{MARK}{session}\n").as_bytes()))
    }

    fn first_sector(&self, disk: &dyn Disk) -> Result<Vec<u8>> {
        let len = u64::from(self.target.sector_size()).min(self.wanted.len());
        let mut buf = vec![0; usize::try_from(len).expect("a sector is small")];
        read_tolerant(disk, &mut buf, 0, &mut Vec::new())?;
        Ok(buf)
    }

    /// Without a mark the first sector must be what it was before, or what it will be.
    fn looks_like_this_session(&self, undo: &Undo) -> Result<bool> {
        let now = self.first_sector(self.target)?;
        if now == self.first_sector(self.wanted)? {
            return Ok(true);
        }
        let saved = undo.saved().iter().find(|saved| saved.offset == 0);
        Ok(saved.is_some_and(|saved| {
            let same = saved.bytes.len().min(now.len());
            saved.bytes.get(..same) == now.get(..same)
        }))
    }
}

/// One run of a session.
struct Work<'a> {
    session: &'a Session<'a>,
    /// What is made invalid before the first write of the body.
    invalid: RangeSet,
    run: Run<'a>,
}

/// What a worker found out of a piece.
struct Done {
    piece: Extent,
    /// The wanted bytes; empty for zeros.
    bytes: Vec<u8>,
    /// What must be written, in bytes of the piece.
    writes: Vec<Range<usize>>,
    /// What could not be read at the source, in bytes of the scope.
    bad: Vec<Range<u64>>,
}

/// What a worker keeps from piece to piece.
#[derive(Default)]
struct Buffers {
    there: Vec<u8>,
}

impl Work<'_> {
    fn everything(&self, undo: &mut Undo, from: u64, compare: bool) -> Result<Restored> {
        let mut restored = Restored { skipped: from, ..Restored::default() };
        self.body(undo, from, compare, &mut restored)?;
        self.session.target.flush()?;
        undo.body_done()?;
        if self.session.options.verify {
            self.verify_body(undo, &mut restored)?;
        }
        self.tables(undo, compare, &mut restored)?;
        undo.finished()?;
        Ok(restored)
    }

    /// Makes the tables of the target invalid, once, before anything else is written.
    fn invalidate(&self, undo: &mut Undo) -> Result<()> {
        if undo.phase() >= Phase::Invalidated && self.session.carries_mark(&undo.start().session)? {
            return Ok(());
        }
        let target = self.session.target;
        // The mark goes first: at any moment the first sector is what it was, or the mark, and a later run can tell whose disk this is.
        let sector = u64::from(target.sector_size()).min(target.len());
        let mut mark = format!("{MARK}{}\n", undo.start().session).into_bytes();
        mark.resize(usize::try_from(sector).expect("a sector is small"), 0);
        target.write_at(&mark, 0)?;
        for range in self.invalid.minus(&RangeSet::from_range(0..sector)).iter() {
            let len = range.end.min(target.len()).saturating_sub(range.start);
            target.zero_at(range.start, len)?;
        }
        target.flush()?;
        undo.invalidated()
    }

    fn body(&self, undo: &mut Undo, from: u64, compare: bool, restored: &mut Restored) -> Result<()> {
        let (wanted, target, options) = (self.session.wanted, self.session.target, self.session.options);
        let tables = self.session.tables.ranges();
        let forced = self.invalid.minus(&tables);
        self.run.progress.begin("restoring", wanted.len());
        self.run.progress.advance(from);
        let zero_piece = if compare { PIECE } else { ZERO_PIECE };
        let mut pieces = Pieces::new(wanted, &tables, from, zero_piece);
        let pool = Mutex::new(Vec::<Vec<u8>>::new());
        let mut place = Checkpoint { at: from, from, unflushed: 0, last: Instant::now() };
        let mut invalid = false;
        let result = run_ordered(
            self.run,
            || pieces.next(),
            Buffers::default,
            |buffers, piece| {
                let spare = || pool.lock().expect("no holder of the lock panics").pop().unwrap_or_default();
                self.examine(buffers, spare, piece, compare, &forced)
            },
            |done| {
                let piece = done.piece;
                let mut written = 0_u64;
                for range in &done.writes {
                    if !invalid {
                        self.invalidate(undo)?;
                        invalid = true;
                    }
                    let at = piece.offset.saturating_add(u64::try_from(range.start).unwrap_or(u64::MAX));
                    let len = u64::try_from(range.len()).unwrap_or(u64::MAX);
                    if done.bytes.is_empty() {
                        target.zero_at(at, len)?;
                    } else {
                        target.write_at(done.bytes.get(range.clone()).expect("inside the piece"), at)?;
                    }
                    written = written.saturating_add(len);
                }
                restored.count(&piece, &done.bad);
                restored.written = restored.written.saturating_add(written);
                if piece.kind != ExtentKind::Absent || options.wipe {
                    restored.skipped = restored.skipped.saturating_add(piece.len.saturating_sub(written));
                }
                self.run.progress.advance(piece.len);
                self.run.progress.written(written);
                place.at = piece.end();
                place.unflushed = place.unflushed.saturating_add(written);
                if done.bytes.capacity() > 0 {
                    pool.lock().expect("no holder of the lock panics").push(done.bytes);
                }
                if place.is_due(options.checkpoint) {
                    self.checkpoint(undo, &mut place)?;
                }
                Ok(())
            },
        );
        if let Err(error) = result {
            // What was written so far need not be looked at again. Where even that cannot be said, the next run looks.
            if invalid && place.at > place.from {
                let _ = self.checkpoint(undo, &mut place);
            }
            return Err(error);
        }
        if invalid {
            self.checkpoint(undo, &mut place)?;
        }
        Ok(())
    }

    fn checkpoint(&self, undo: &mut Undo, place: &mut Checkpoint) -> Result<()> {
        self.session.target.flush()?;
        self.session.target.forget(place.from, place.at.saturating_sub(place.from));
        // Nothing is done as long as the old tables are in force.
        if undo.phase() >= Phase::Invalidated {
            undo.done_to(place.at)?;
        }
        place.from = place.at;
        place.unflushed = 0;
        place.last = Instant::now();
        Ok(())
    }

    /// Reads a piece, and finds what must be written of it.
    fn examine(
        &self,
        buffers: &mut Buffers,
        spare: impl FnOnce() -> Vec<u8>,
        piece: Extent,
        compare: bool,
        forced: &RangeSet,
    ) -> Result<Done> {
        let mut bad = Vec::new();
        let is_zero = piece.kind == ExtentKind::Zero || piece.kind == ExtentKind::Absent;
        if piece.kind == ExtentKind::Absent && !self.session.options.wipe {
            return Ok(Done { piece, bytes: Vec::new(), writes: Vec::new(), bad });
        }
        let len = usize::try_from(piece.len).expect("a piece fits into memory's addresses");
        let mut bytes = Vec::new();
        if !is_zero {
            bytes = spare();
            fill(self.session.wanted, piece, &mut bytes, &mut bad)?;
        }
        if !compare {
            let whole = 0..len;
            return Ok(Done { piece, bytes, writes: vec![whole], bad });
        }
        buffers.there.resize(len, 0);
        let mut unreadable = Vec::new();
        read_tolerant(self.session.target, &mut buffers.there, piece.offset, &mut unreadable)?;
        let mut must: Vec<Range<u64>> = unreadable;
        for range in forced.iter() {
            let range = range.start.max(piece.offset)..range.end.min(piece.end());
            if !range.is_empty() {
                must.push(range);
            }
        }
        let within = |range: Range<u64>| {
            let from = |at: u64| usize::try_from(at.saturating_sub(piece.offset)).unwrap_or(usize::MAX).min(len);
            from(range.start)..from(range.end)
        };
        let mut writes: Vec<Range<usize>> = must.into_iter().map(within).collect();
        let wanted = if is_zero { None } else { Some(bytes.as_slice()) };
        differences(wanted, &buffers.there, piece.offset, &mut writes);
        Ok(Done { piece, bytes, writes: joined(writes), bad })
    }

    /// Reads the body back and compares it with the source.
    fn verify_body(&self, undo: &mut Undo, restored: &mut Restored) -> Result<()> {
        let tables = self.session.tables.ranges();
        let wrong = self.compare_all(&tables, "reading back", restored)?;
        if wrong.is_empty() {
            return Ok(());
        }
        undo.wrong(&wrong)?;
        Err(wrong_bytes(&wrong, undo))
    }

    /// Compares the medium with what is wanted, except in `skip`. Returns what differs; ends early where it is too much.
    fn compare_all(&self, skip: &RangeSet, stage: &str, restored: &mut Restored) -> Result<Vec<Range<u64>>> {
        let (wanted, options) = (self.session.wanted, self.session.options);
        let medium = self.session.target.read_back()?;
        let medium = &*medium;
        self.run.progress.begin(stage, wanted.len());
        let mut pieces = Pieces::new(wanted, skip, 0, PIECE);
        let mut wrong: Vec<Range<u64>> = Vec::new();
        run_ordered(
            self.run,
            || pieces.next(),
            || (Vec::new(), Vec::new()),
            |(bytes, there): &mut (Vec<u8>, Vec<u8>), piece| {
                let mut found = Vec::new();
                if piece.kind == ExtentKind::Absent && !options.wipe {
                    return Ok((piece, found));
                }
                let is_zero = matches!(piece.kind, ExtentKind::Zero | ExtentKind::Absent);
                let len = usize::try_from(piece.len).expect("a piece fits into memory's addresses");
                if !is_zero {
                    fill(wanted, piece, bytes, &mut Vec::new())?;
                }
                there.resize(len, 0);
                let mut unreadable = Vec::new();
                read_tolerant(medium, there, piece.offset, &mut unreadable)?;
                let mut writes = Vec::new();
                differences((!is_zero).then_some(bytes.as_slice()), there, piece.offset, &mut writes);
                let at = |at: usize| piece.offset.saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
                found.extend(writes.into_iter().map(|range| at(range.start)..at(range.end)));
                found.extend(unreadable);
                Ok((piece, found))
            },
            |(piece, found)| {
                self.run.progress.advance(piece.len);
                if wrong.len() >= MAX_WRONG {
                    return Ok(());
                }
                if piece.kind != ExtentKind::Absent || options.wipe {
                    restored.verified = restored.verified.saturating_add(piece.len);
                }
                for range in found {
                    match wrong.last_mut() {
                        Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                        _ => wrong.push(range),
                    }
                }
                Ok(())
            },
        )?;
        Ok(wrong)
    }

    /// Writes the tables, group by group. Nothing before this was a valid disk.
    fn tables(&self, undo: &mut Undo, compare: bool, restored: &mut Restored) -> Result<()> {
        let target = self.session.target;
        let marked = self.session.carries_mark(&undo.start().session)?;
        let mut groups: Vec<Vec<(u64, Vec<u8>)>> = Vec::new();
        let mut differ = marked || !compare;
        for group in self.session.tables.groups() {
            let mut writes = Vec::new();
            for structure in group {
                self.table_bytes(structure.range.clone(), undo, &mut writes, restored)?;
            }
            for (at, bytes) in &writes {
                let mut there = vec![0; bytes.len()];
                let mut unreadable = Vec::new();
                read_tolerant(target, &mut there, *at, &mut unreadable)?;
                differ |= !unreadable.is_empty() || there != *bytes;
            }
            groups.push(writes);
        }
        if !differ {
            let total: u64 = groups.iter().flatten().map(|(_, bytes)| buf_len(bytes)).sum();
            restored.skipped = restored.skipped.saturating_add(total);
            return Ok(());
        }
        // A body that did not differ left the old tables in force.
        self.invalidate(undo)?;
        for group in &groups {
            for (at, bytes) in group {
                target.write_at(bytes, *at)?;
                restored.written = restored.written.saturating_add(buf_len(bytes));
            }
            target.flush()?;
        }
        if self.session.options.verify {
            self.verify_tables(&groups, undo, restored)?;
        }
        Ok(())
    }

    fn verify_tables(&self, groups: &[Vec<(u64, Vec<u8>)>], undo: &mut Undo, restored: &mut Restored) -> Result<()> {
        let medium = self.session.target.read_back()?;
        let mut wrong = Vec::new();
        for (at, bytes) in groups.iter().flatten() {
            let mut there = vec![0; bytes.len()];
            let mut unreadable = Vec::new();
            read_tolerant(&*medium, &mut there, *at, &mut unreadable)?;
            if !unreadable.is_empty() || there != *bytes {
                wrong.push(*at..at.saturating_add(buf_len(bytes)));
            }
            restored.verified = restored.verified.saturating_add(buf_len(bytes));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        undo.wrong(&wrong)?;
        self.invalidate(undo)?;
        Err(wrong_bytes(&wrong, undo))
    }

    /// The bytes of a table. Where nothing is wanted, what the target had there before comes back.
    fn table_bytes(
        &self,
        range: Range<u64>,
        undo: &Undo,
        writes: &mut Vec<(u64, Vec<u8>)>,
        restored: &mut Restored,
    ) -> Result<()> {
        let wanted = self.session.wanted;
        let mut at = range.start;
        let end = range.end.min(wanted.len());
        while at < end {
            let extent = wanted.extent_at(at)?;
            let piece =
                Extent { offset: at, len: extent.end().min(end).saturating_sub(at).min(PIECE), kind: extent.kind };
            let (mut bytes, mut bad) = (Vec::new(), Vec::new());
            match piece.kind {
                ExtentKind::Absent if !self.session.options.wipe => {
                    for saved in undo.saved() {
                        let saved_end = saved.offset.saturating_add(buf_len(&saved.bytes));
                        let (from, to) = (saved.offset.max(piece.offset), saved_end.min(piece.end()));
                        if from < to {
                            let index =
                                |at: u64| usize::try_from(at.saturating_sub(saved.offset)).unwrap_or(usize::MAX);
                            let part = saved.bytes.get(index(from)..index(to)).unwrap_or_default();
                            writes.push((from, part.to_vec()));
                        }
                    }
                }
                ExtentKind::Zero | ExtentKind::Absent => {
                    bytes.resize(usize::try_from(piece.len).expect("a piece is small"), 0);
                    writes.push((at, bytes));
                }
                ExtentKind::Data | ExtentKind::Bad => {
                    fill(wanted, piece, &mut bytes, &mut bad)?;
                    writes.push((at, bytes));
                }
            }
            restored.count(&piece, &bad);
            at = piece.end();
        }
        Ok(())
    }
}

impl Restored {
    fn count(&mut self, piece: &Extent, bad: &[Range<u64>]) {
        let sum = match piece.kind {
            ExtentKind::Data => &mut self.data,
            ExtentKind::Zero => &mut self.zero,
            ExtentKind::Absent => &mut self.absent,
            ExtentKind::Bad => return bad.iter().for_each(|range| self.push_bad(range.clone())),
        };
        *sum = sum.saturating_add(piece.len);
        bad.iter().for_each(|range| self.push_bad(range.clone()));
    }

    fn push_bad(&mut self, range: Range<u64>) {
        let len = range.end.saturating_sub(range.start);
        match self.bad.last_mut() {
            Some((start, last)) if start.saturating_add(*last) == range.start => *last = last.saturating_add(len),
            _ => self.bad.push((range.start, len)),
        }
    }
}

/// Where the body is, and what of it is on the medium.
struct Checkpoint {
    /// Everything below was written.
    at: u64,
    /// Everything below is on the medium.
    from: u64,
    unflushed: u64,
    last: Instant,
}

impl Checkpoint {
    fn is_due(&self, bytes: u64) -> bool {
        self.unflushed >= bytes || (self.unflushed > 0 && self.last.elapsed() >= CHECKPOINT_TIME)
    }
}

fn wrong_bytes(wrong: &[Range<u64>], undo: &Undo) -> Error {
    let total: u64 = wrong.iter().map(|range| range.end.saturating_sub(range.start)).sum();
    let first = wrong.first().cloned().unwrap_or_default();
    Error::Corrupt {
        structure: format!(
            "the target ({total} bytes in {} ranges read back differently, listed in {}; its tables stay invalid, and --resume writes those bytes again)",
            wrong.len(),
            undo.path().display()
        ),
        offset: first.start,
        reason: "the medium does not hold what was written to it",
    }
}
