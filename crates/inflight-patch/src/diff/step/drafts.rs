//! What was made of the units of the new tree until all of the old one was read, as far as memory
//! allows.

use std::ops::Range;
use std::sync::Arc;

use inflight::{Buffer, Pool, Reservation, Task};

use super::super::known::PartDigest;
use super::super::left::Found;
use super::super::patchwork::Patchwork;
use super::super::plan::Plan;
use super::super::unit::{Given, Matched, UnitMatcher};
use crate::crew::Hand;
use crate::error::Result;
use crate::image::Image;
use crate::job::Job;

/// What was made of a unit of the new tree, and the memory for it; nothing where that did not
/// suffice.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) digests: Vec<PartDigest>,
    pub(super) kept: Option<Kept>,
}

/// What is matched, and the memory for it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) matched: Matched,
    reserved: Reservation,
}

impl Draft {
    /// Bytes of stretches of literals and short copies.
    pub(super) fn patchwork_bytes(&self) -> u64 {
        let stretches = self.kept.as_ref().map_or(Vec::new(), Kept::patchworks);
        stretches.iter().map(Patchwork::length).sum()
    }
}

impl Kept {
    /// Bytes of literals.
    pub(super) fn literal_bytes(&self) -> u64 {
        self.matched.literal_bytes()
    }

    /// The stretches of literals and short copies.
    pub(super) fn patchworks(&self) -> Vec<Patchwork> {
        self.matched.patchworks()
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
        if self.used + bytes > self.bytes / 4 * 3 {
            matched = matched.without_literals();
            bytes = matched.footprint();
        }
        let fits = self.used + bytes <= self.bytes;
        let reserved = fits.then(|| self.pool.try_reserve(bytes)).flatten()?;
        self.used += bytes;
        Some(Kept { matched, reserved })
    }
}

/// Makes drafts whole. Cheap to clone.
#[derive(Clone)]
pub(super) struct Completion {
    new: Image,
    matcher: UnitMatcher,
    hand: Hand,
    /// Whether what is left was looked up in all of the old tree, and what was found there besides.
    looked: bool,
    found: Arc<[Found]>,
}

/// What is made of a unit in the end, and the memory of its draft.
pub(super) struct Completed {
    pub(super) matched: Matched,
    _reserved: Option<Reservation>,
}

impl Completion {
    pub(super) fn new(job: &Job, new: Image, matcher: UnitMatcher) -> Completion {
        let hand = job.crew.hand();
        Completion { new, matcher, hand, looked: false, found: Arc::default() }
    }

    /// The same for drafts that were looked up and searched for, with what was found.
    pub(super) fn with_found(self, found: Vec<Found>) -> Completion {
        Completion { looked: true, found: found.into(), ..self }
    }

    /// The image that drafts are of.
    pub(super) fn image(&self) -> &Image {
        &self.new
    }

    pub(super) fn matcher(&self) -> &UnitMatcher {
        &self.matcher
    }

    /// Starts on a unit; waits for the memory that it takes.
    pub(super) async fn start(
        &self,
        job: &Job,
        range: Range<u64>,
        draft: Draft,
    ) -> Task<Result<Completed>> {
        let this = self.clone();
        let Draft { digests, kept } = draft;
        let executable = self.matcher.executable_at(&range);
        let (matched, reserved) = match (executable, kept) {
            (Some(matched), _) => (matched, None),
            (None, Some(Kept { matched, reserved })) => (matched, Some(reserved)),
            (None, None) => {
                let buffer = job.handle.buffer((range.end - range.start) as usize).await;
                return job.handle.spawn(async move {
                    let matched = this.read_and_match(range, digests, buffer).await?;
                    Ok(Completed { matched, _reserved: None })
                });
            }
        };
        let left_out = matched.left_out();
        let missing: u64 = left_out.iter().map(|range| range.end - range.start).sum();
        let buffer = match missing {
            0 => None,
            bytes => Some(job.handle.buffer(bytes as usize).await),
        };
        job.handle.spawn(async move {
            let mut matched = matched;
            if let Some(buffer) = buffer {
                let bytes = this.new.read_ranges(&left_out, buffer).await?;
                let mut rest = &bytes[..];
                matched.put_back(|range| {
                    let (now, behind) = rest.split_at((range.end - range.start) as usize);
                    rest = behind;
                    now
                });
            }
            let matched = this.look_again(matched).await?;
            Ok(Completed { matched, _reserved: reserved })
        })
    }

    /// Makes a unit of which nothing is kept but the digests.
    async fn read_and_match(
        self,
        range: Range<u64>,
        digests: Vec<PartDigest>,
        buffer: Buffer,
    ) -> Result<Matched> {
        let buffer = self.new.read(range.clone(), buffer).await?;
        let match_all = move || {
            let given = Given { digests: Some(&digests), horizon: u64::MAX };
            self.matcher.unit(range, &buffer, given)
        };
        self.hand.run(match_all).await
    }

    async fn look_again(self, matched: Matched) -> Result<Matched> {
        if self.looked {
            return Ok(matched.with_found(&self.found));
        }
        match matched.is_worth_a_look() {
            true => self.hand.run(move || self.matcher.look_again(matched)).await,
            false => Ok(matched),
        }
    }
}
