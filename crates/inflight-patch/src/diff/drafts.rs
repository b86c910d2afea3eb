//! What was made of the units of the new tree, kept until it is written, as far as memory allows.

use inflight::{Pool, Reservation};

use super::known::PartDigest;
use super::patchwork::Patchwork;
use super::plan::Plan;
use super::unit::Matched;
use crate::job::Job;

/// Drafts in all with which long literals are kept: with more memory for them a diff of two archives
/// that were reordered took 1009 MiB in place of 586, and as long.
const LITERALS_MAX: u64 = 256 << 20;

/// What was made of a unit of the new tree, and the memory for it; nothing where that did not
/// suffice.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) digests: Vec<PartDigest>,
    pub(super) kept: Option<Kept>,
    /// Whether all of the old tree was known when it was matched.
    pub(super) saw_all: bool,
}

/// What is matched, and the memory for it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) matched: Matched,
    pub(super) reserved: Reservation,
}

impl Draft {
    /// Bytes of literals.
    pub(super) fn literal_bytes(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.matched.literal_bytes())
    }

    /// The stretches of literals and short copies.
    pub(super) fn patchworks(&self) -> Vec<Patchwork> {
        self.kept.as_ref().map_or(Vec::new(), |kept| kept.matched.patchworks())
    }
}

/// The memory of drafts, as much as is planned for.
#[derive(Debug)]
pub(super) struct Room {
    pool: Pool,
    bytes: u64,
    used: u64,
}

impl Room {
    pub(super) fn new(job: &Job, plan: &Plan) -> Room {
        Room { pool: job.handle.pool().clone(), bytes: plan.drafts_bytes, used: 0 }
    }

    /// Keeps what was matched, if there is room.
    pub(super) fn keep(&mut self, mut matched: Matched) -> Option<Kept> {
        let mut bytes = matched.footprint();
        // Long literals are read again if it comes to that, before anything is matched again.
        if self.used + bytes > LITERALS_MAX.min(self.bytes / 4 * 3) {
            matched = matched.without_literals();
            bytes = matched.footprint();
        }
        let fits = self.used + bytes <= self.bytes;
        let reserved = fits.then(|| self.pool.try_reserve(bytes)).flatten()?;
        self.used += bytes;
        Some(Kept { matched, reserved })
    }
}
