//! How large a first capture will be, from a sample of what the plan wants.

use std::sync::Arc;

use crate::capture::plan::Plan;
use crate::capture::planned::PlannedDisk;
use crate::disk::{Disk, ExtentKind};
use crate::error::Result;
use crate::image::codec::{Compression, Compressor};

/// Pieces that are compressed to learn the ratio.
const SAMPLES: u64 = 128;
/// Bytes of each.
const SAMPLE_LEN: u64 = 64 << 10;

/// Bytes that the image of a disk will probably need. Reads at most 8 MiB.
pub fn estimate(source: &Arc<dyn Disk>, plan: &Plan) -> Result<u64> {
    let disk = PlannedDisk::new(Arc::clone(source), &plan.unwanted, &plan.elided);
    let step = (disk.len() / SAMPLES).max(SAMPLE_LEN);
    let mut compressor = Compressor::new(Compression::default());
    let (mut raw, mut packed, mut pieces) = (0_u64, 0_u64, 0_u64);
    let mut at = 0;
    while at < disk.len() {
        let extent = disk.extent_at(at)?;
        pieces = pieces.saturating_add(1);
        if extent.kind == ExtentKind::Data {
            let len = extent.len.min(SAMPLE_LEN);
            let mut buf = vec![0; usize::try_from(len).expect("a sample is small")];
            // An unreadable sample says nothing about the ratio.
            if disk.read_at(&mut buf, at).is_ok() {
                raw = raw.saturating_add(len);
                if buf.iter().any(|byte| *byte != 0) {
                    let payload = compressor.compress(&buf).1.len();
                    packed = packed.saturating_add(u64::try_from(payload).unwrap_or(len));
                }
            }
        }
        at = at.saturating_add(step);
    }
    let mut wanted = 0_u64;
    let mut at = 0;
    while at < disk.len() {
        let extent = disk.extent_at(at)?;
        if extent.kind == ExtentKind::Data {
            wanted = wanted.saturating_add(extent.len);
        }
        at = extent.end();
    }
    let estimate = u128::from(wanted).saturating_mul(u128::from(packed)).checked_div(u128::from(raw));
    Ok(estimate.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(wanted))
}
