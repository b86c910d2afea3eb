//! Drafts made whole once all of the old tree is known.

use std::ops::Range;
use std::sync::Arc;

use inflight::{Buffer, Reservation, Task};

use super::super::drafts::{Draft, Kept};
use super::super::known::PartDigest;
use super::super::patchwork::{Found, Patchwork};
use super::super::unit::{Given, Matched, UnitMatcher};
use crate::crew::Hand;
use crate::error::Result;
use crate::image::Image;
use crate::job::Job;

/// Makes drafts whole. Cheap to clone.
#[derive(Clone)]
pub(super) struct Completion {
    new: Image,
    matcher: UnitMatcher,
    hand: Hand,
    /// What was found of what was left when drafts had seen all of the old tree.
    found: Arc<(Vec<Found>, Option<Reservation>)>,
}

/// What is made of a unit in the end, and the memory of its draft.
pub(super) struct Completed {
    pub(super) matched: Matched,
    _reserved: Option<Reservation>,
}

impl Completion {
    pub(super) fn new(job: &Job, new: Image, matcher: UnitMatcher) -> Completion {
        let hand = job.crew.hand();
        Completion { new, matcher, hand, found: Arc::default() }
    }

    /// The same for drafts that were searched for, with what was found.
    pub(super) fn with_found(self, found: Vec<Found>, memory: Option<Reservation>) -> Completion {
        Completion { found: Arc::new((found, memory)), ..self }
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
        let Draft { digests, kept, saw_all } = draft;
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
        let stretches = if saw_all { Vec::new() } else { matched.patchworks() };
        let is_mixed = stretches.iter().any(Patchwork::is_mixed);
        let wanted: Vec<Range<u64>> = match is_mixed {
            true => stretches.into_iter().map(|stretch| stretch.range).collect(),
            false => matched.left_out(),
        };
        let buffer = match wanted.iter().map(|range| range.end - range.start).sum::<u64>() {
            0 => None,
            bytes => Some(job.handle.buffer(bytes as usize).await),
        };
        job.handle.spawn(async move {
            let mut matched = matched;
            let bytes = match buffer {
                Some(buffer) => Some(this.new.read_ranges(&wanted, buffer).await?),
                None => None,
            };
            if let (Some(bytes), false) = (&bytes, is_mixed) {
                let mut rest = &bytes[..];
                matched.put_back(|range| {
                    let (now, behind) = rest.split_at((range.end - range.start) as usize);
                    rest = behind;
                    now
                });
            }
            let matched = match bytes.filter(|_| is_mixed) {
                Some(bytes) => {
                    let (matcher, hand) = (this.matcher, this.hand);
                    hand.run(move || matcher.match_again(matched, &bytes)).await?
                }
                None => this.look_again(matched, saw_all).await?,
            };
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

    async fn look_again(self, matched: Matched, saw_all: bool) -> Result<Matched> {
        match !saw_all && matched.is_worth_a_look() {
            true => self.hand.run(move || self.matcher.look_again(matched)).await,
            false => Ok(matched.with_found(&self.found.0)),
        }
    }
}
