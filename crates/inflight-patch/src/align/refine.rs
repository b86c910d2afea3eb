//! Between copies: short agreements near the diagonals of the neighbours, which anchors are too
//! far apart to see.

use std::ops::Range;

use super::Copy;
use super::extend::{Scoring, backward, forward};

/// The most old bytes looked at on either side of a gap.
pub(crate) const WINDOW_MAX: usize = 4096;
/// Gaps longer than this are left to the index.
const GAP_MAX: usize = 4096;
/// Bytes that start an agreement.
const WORD: usize = 8;

/// What counts as found in a gap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefineOptions {
    /// Old bytes looked at on either side of a gap, besides twice its length.
    pub(crate) window_bytes: usize,
    pub(crate) scoring: Scoring,
    pub(crate) score_min: i32,
}

/// Appends a copy; one that goes on where the last ended becomes part of it.
pub(crate) fn join(copies: &mut Vec<Copy>, copy: Copy) {
    if let Some(last) = copies.last_mut()
        && last.new_end() == copy.new
        && last.old_end() == copy.old
    {
        last.length += copy.length;
        return;
    }
    copies.push(copy);
}

/// What things cost in eighths of a byte of the patch, about, once compressed.
mod cost {
    pub(super) const LITERAL_BYTE: usize = 3;
    pub(super) const MISMATCH: usize = 9;
    pub(super) const LITERAL_AND_COPY: usize = 28;
}

/// Joins neighbours on the same diagonal where the few mismatches between them cost less than a
/// literal would.
pub(crate) fn bridge(new: &[u8], old: &[u8], copies: &[Copy]) -> Vec<Copy> {
    let mut out: Vec<Copy> = Vec::with_capacity(copies.len());
    for copy in copies {
        if let Some(last) = out.last_mut()
            && last.diagonal() == copy.diagonal()
        {
            let new = &new[last.new_end() as usize..copy.new as usize];
            let old = &old[last.old_end() as usize..copy.old as usize];
            let mismatches = new.iter().zip(old).filter(|(a, b)| a != b).count();
            let literal = new.len() * cost::LITERAL_BYTE + cost::LITERAL_AND_COPY;
            if mismatches * cost::MISMATCH <= literal {
                last.length = copy.new_end() - last.new;
                continue;
            }
        }
        out.push(*copy);
    }
    out
}

/// Looks through the gaps between `copies`.
pub(crate) fn refine(
    new: &[u8],
    range: Range<usize>,
    old: &[u8],
    copies: &[Copy],
    options: &RefineOptions,
) -> Vec<Copy> {
    let mut out = Vec::with_capacity(copies.len() + copies.len() / 4);
    let mut table = WordTable::new();
    let mut done = range.start;
    for (number, copy) in copies.iter().enumerate() {
        let before = number.checked_sub(1).map(|number| copies[number]);
        gap(new, done..copy.new as usize, old, before, Some(*copy), options, &mut table, &mut out);
        done = copy.new_end() as usize;
        join(&mut out, *copy);
    }
    gap(new, done..range.end, old, copies.last().copied(), None, options, &mut table, &mut out);
    out
}

/// Places of the words of one gap in its windows.
struct WordTable {
    /// A bit for each hash of a word in the gap: most words of the windows are none of them.
    wanted: [u64; WordTable::SLOTS / 64],
    /// Which gap an entry is of, and a place in its windows.
    places: Vec<(u32, u32)>,
    gap: u32,
}

impl WordTable {
    const BITS: u32 = 12;
    const SLOTS: usize = 1 << WordTable::BITS;

    fn new() -> WordTable {
        let places = vec![(0, 0); WordTable::SLOTS];
        WordTable { wanted: [0; WordTable::SLOTS / 64], places, gap: 0 }
    }

    #[inline]
    fn slot(word: &[u8]) -> usize {
        let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - WordTable::BITS)) as usize
    }

    /// Starts over with the words of `gap` in `windows`; the first place of a word counts.
    fn fill(&mut self, gap: &[u8], old: &[u8], windows: &[Range<usize>]) {
        self.gap += 1;
        self.wanted.fill(0);
        for word in gap.windows(WORD) {
            let slot = WordTable::slot(word);
            self.wanted[slot / 64] |= 1 << (slot % 64);
        }
        for window in windows {
            for (place, word) in old[window.clone()].windows(WORD).enumerate() {
                let slot = WordTable::slot(word);
                if self.wanted[slot / 64] >> (slot % 64) & 1 != 0 && self.places[slot].0 != self.gap
                {
                    self.places[slot] = (self.gap, (window.start + place) as u32);
                }
            }
        }
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        let slot = self.places[WordTable::slot(&bytes[..WORD])];
        (slot.0 == self.gap).then_some(slot.1 as usize)
    }
}

#[allow(clippy::too_many_arguments, reason = "a gap is defined by all that is around it")]
fn gap(
    new: &[u8],
    range: Range<usize>,
    old: &[u8],
    before: Option<Copy>,
    after: Option<Copy>,
    options: &RefineOptions,
    table: &mut WordTable,
    out: &mut Vec<Copy>,
) {
    let length = range.len();
    // An agreement scores no more than its length.
    let least = WORD.max(options.score_min as usize);
    if !(least..=GAP_MAX).contains(&length) {
        return;
    }
    // Old bytes behind the copy before, and ahead of the one after.
    let reach = (2 * length + options.window_bytes).min(WINDOW_MAX);
    let behind = before.map(|copy| {
        let start = copy.old_end() as usize;
        start..(start + reach).min(old.len())
    });
    let ahead = after.map(|copy| {
        let end = copy.old as usize;
        end.saturating_sub(reach)..end
    });
    let windows = match (behind, ahead) {
        (Some(a), Some(b)) if a.start <= b.end && b.start <= a.end => {
            [Some(a.start.min(b.start)..a.end.max(b.end)), None]
        }
        other => [other.0, other.1],
    };
    let windows: Vec<Range<usize>> = windows.into_iter().flatten().collect();
    if windows.is_empty() {
        return;
    }
    table.fill(&new[range.clone()], old, &windows);
    let (mut done, mut at) = (range.start, range.start);
    while at + WORD <= range.end {
        let place = table.find(&new[at..]);
        if let Some(place) = place.filter(|place| old[*place..][..WORD] == new[at..][..WORD]) {
            let ahead = forward(&new[at..range.end], &old[place..], options.scoring);
            let back = backward(&new[done..at], &old[..place], options.scoring);
            if ahead.score + back.score >= options.score_min {
                let copy = Copy {
                    new: (at - back.length) as u32,
                    old: (place - back.length) as u32,
                    length: (ahead.length + back.length) as u32,
                };
                join(out, copy);
                done = copy.new_end() as usize;
                at = done;
                continue;
            }
        }
        at += 1;
    }
}
