//! Walking through new bytes from anchor to anchor: the last diagonal first, then the index.

use std::ops::Range;

use super::Copy;
use super::anchor::AnchorIndex;
use super::extend::{Scoring, backward, forward};

/// What counts as found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FindOptions {
    pub(crate) scoring: Scoring,
    /// The least score of a copy.
    pub(crate) score_min: i32,
}

/// Equal bytes that take up the last diagonal again.
const RESUME_BYTES: usize = 16;

/// Finds copies for a range of `new`, in order and apart from each other.
pub(crate) fn find(
    new: &[u8],
    range: Range<usize>,
    old: &[u8],
    index: &AnchorIndex,
    options: &FindOptions,
    out: &mut Vec<Copy>,
) {
    let new = &new[..range.end];
    let mut finder = Finder { new, old, options, done: range.start, diagonal: None, out };
    let mut anchors = index.prepared(new, range);
    while let Some((at, hash)) = anchors.next(finder.done) {
        if !finder.resume(at)
            && let Some(copy) = finder.best(at, index.find(hash))
        {
            finder.push(copy);
        }
    }
}

struct Finder<'a> {
    new: &'a [u8],
    old: &'a [u8],
    options: &'a FindOptions,
    /// Up to here new bytes have their copies.
    done: usize,
    diagonal: Option<i64>,
    out: &'a mut Vec<Copy>,
}

impl Finder<'_> {
    fn resume(&mut self, at: usize) -> bool {
        let Some(diagonal) = self.diagonal else { return false };
        let place = at as i64 + diagonal;
        let Ok(place) = usize::try_from(place) else { return false };
        let new = &self.new[at..self.new.len().min(at + RESUME_BYTES)];
        if self.old.get(place..place + new.len()) != Some(new) {
            return false;
        }
        match self.best(at, [place as u32].into_iter()) {
            Some(copy) => {
                self.push(copy);
                true
            }
            None => false,
        }
    }

    /// The best copy through an anchor, over the old places that it may be at.
    fn best(&self, at: usize, places: impl Iterator<Item = u32>) -> Option<Copy> {
        let scoring = self.options.scoring;
        let mut best: Option<(i32, Copy)> = None;
        for place in places {
            let place = place as usize;
            let ahead = forward(&self.new[at..], &self.old[place..], scoring);
            let behind = backward(&self.new[self.done..at], &self.old[..place], scoring);
            let score = ahead.score + behind.score;
            if score >= self.options.score_min && best.is_none_or(|(other, _)| score > other) {
                let (new, old) = (at - behind.length, place - behind.length);
                let length = (behind.length + ahead.length) as u32;
                best = Some((score, Copy { new: new as u32, old: old as u32, length }));
            }
        }
        best.map(|(_, copy)| copy)
    }

    fn push(&mut self, copy: Copy) {
        self.done = copy.new_end() as usize;
        self.diagonal = Some(copy.diagonal());
        super::refine::join(self.out, copy);
    }
}
