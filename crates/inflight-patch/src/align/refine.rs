//! Between copies: short agreements near the diagonals of the neighbours, which anchors are too
//! far apart to see.

use std::ops::Range;

use super::Copy;
use super::anchor::Sampling;
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
    /// One word in two to this power starts an agreement, chosen by what it is.
    pub(crate) words: u32,
    /// Old bytes looked at on either side of a gap, besides as many as it has.
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
    let mut table = WordTable::new(Sampling::of_bytes(options.words, WORD));
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

/// Places of the words of one gap in its windows. Words are looked at where `sampling` says.
struct WordTable {
    sampling: Sampling,
    /// The words of the gap: where they are, and their slots.
    words: Vec<(u32, u32)>,
    /// A bit for each slot of a word in the gap: most words of the windows are none of them.
    wanted: [u64; WordTable::SLOTS / 64],
    /// Which gap an entry is of, and a place in its windows.
    places: Vec<(u32, u32)>,
    gap: u32,
}

impl WordTable {
    const BITS: u32 = 12;
    const SLOTS: usize = 1 << WordTable::BITS;

    fn new(sampling: Sampling) -> WordTable {
        let places = vec![(0, 0); WordTable::SLOTS];
        let wanted = [0; WordTable::SLOTS / 64];
        WordTable { sampling, words: Vec::new(), wanted, places, gap: 0 }
    }

    #[inline]
    fn slot(bytes: &[u8], at: usize) -> usize {
        let word = u64::from_le_bytes(bytes[at..at + WORD].try_into().expect("8 bytes"));
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - WordTable::BITS)) as usize
    }

    /// Starts over with the words of a gap in `windows` of old bytes; the first place of a word counts.
    fn fill(&mut self, new: &[u8], gap: Range<usize>, old: &[u8], windows: &[Range<usize>]) {
        self.gap += 1;
        self.wanted.fill(0);
        self.words.clear();
        let (words, wanted) = (&mut self.words, &mut self.wanted);
        each_word(self.sampling, new, gap, |at, slot| {
            words.push((at as u32, slot as u32));
            wanted[slot / 64] |= 1 << (slot % 64);
        });
        for window in windows {
            each_word(self.sampling, old, window.clone(), |at, slot| {
                let is_wanted = self.wanted[slot / 64] >> (slot % 64) & 1 != 0;
                if is_wanted && self.places[slot].0 != self.gap {
                    self.places[slot] = (self.gap, at as u32);
                }
            });
        }
    }

    /// The words of the gap that may be in its windows: where they are, and where that would be.
    fn found(&self) -> impl Iterator<Item = (usize, usize)> {
        self.words.iter().filter_map(|(at, slot)| {
            let (gap, place) = self.places[*slot as usize];
            (gap == self.gap).then_some((*at as usize, place as usize))
        })
    }
}

/// Gives `each` the words that `sampling` chooses in a range, with their slots.
fn each_word(
    sampling: Sampling,
    bytes: &[u8],
    range: Range<usize>,
    mut each: impl FnMut(usize, usize),
) {
    sampling.anchors(bytes, range.start, range.end).each(|at| each(at, WordTable::slot(bytes, at)));
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
    let reach = (length + options.window_bytes).min(WINDOW_MAX);
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
    table.fill(new, range.clone(), old, &windows);
    let mut done = range.start;
    // A diagonal that scored too little, and up to where it would again.
    let mut failed = (i64::MAX, 0);
    for (at, place) in table.found() {
        let diagonal = place as i64 - at as i64;
        let is_seen = at < done || failed.0 == diagonal && at < failed.1;
        if is_seen || old[place..][..WORD] != new[at..][..WORD] {
            continue;
        }
        let ahead = forward(&new[at..range.end], &old[place..], options.scoring);
        let back = backward(&new[done..at], &old[..place], options.scoring);
        if ahead.score + back.score < options.score_min {
            failed = (diagonal, at + ahead.length);
            continue;
        }
        let copy = Copy {
            new: (at - back.length) as u32,
            old: (place - back.length) as u32,
            length: (ahead.length + back.length) as u32,
        };
        join(out, copy);
        done = copy.new_end() as usize;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTIONS: RefineOptions = RefineOptions {
        words: 1,
        window_bytes: 64,
        scoring: Scoring { mismatch: 2, drop: 32 },
        score_min: 18,
    };

    fn noise(length: usize, mut state: u64) -> Vec<u8> {
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..length).map(step).collect()
    }

    proptest! {
        #[test]
        fn what_was_found_stays_and_what_comes_in_agrees_mostly(
            seed: u64,
            alphabet in 1u8..=255,
            pieces in prop::collection::vec((0usize..300, 0usize..120, 0usize..40), 1..8),
        ) {
            let old: Vec<u8> = noise(4000, seed).iter().map(|byte| byte % alphabet).collect();
            let (mut new, mut copies, mut place) = (Vec::new(), Vec::<Copy>::new(), 0);
            for (copied, between, skipped) in pieces {
                if copied > 0 {
                    let copy = Copy {
                        new: new.len() as u32, old: place as u32, length: copied as u32,
                    };
                    copies.push(copy);
                    new.extend_from_slice(&old[place..place + copied]);
                }
                place += copied;
                let gap = noise(between, seed ^ place as u64);
                new.extend(gap.iter().map(|byte| byte % alphabet));
                new.extend_from_slice(&old[place + skipped / 2..place + skipped]);
                place += skipped;
            }
            let refined = refine(&new, 0..new.len(), &old, &copies, &OPTIONS);
            let (mut done, mut rest) = (0, &copies[..]);
            for copy in &refined {
                prop_assert!(copy.new >= done && copy.new_end() as usize <= new.len());
                done = copy.new_end();
                let (from, to) = (copy.new as usize, copy.new_end() as usize);
                let there = &old[copy.old as usize..copy.old_end() as usize];
                let equal = new[from..to].iter().zip(there).filter(|(a, b)| a == b).count();
                prop_assert!(equal * 3 > 2 * there.len(), "{equal} of {}", there.len());
                while let Some((first, behind)) = rest.split_first()
                    && first.new_end() <= done
                {
                    prop_assert!(first.diagonal() == copy.diagonal() && first.new >= copy.new);
                    rest = behind;
                }
            }
            prop_assert!(rest.is_empty(), "{rest:?}");
        }
    }

    #[test]
    fn short_agreements_in_a_gap_are_found() {
        let old = noise(3000, 7);
        // Between two copies that are known, 40 old bytes a few places further on than they were, and
        // 30 with one in the middle that differs.
        let mut changed = old[1120..1150].to_vec();
        changed[17] ^= 1;
        let new = [
            &old[..1000],
            &noise(11, 8)[..],
            &old[1040..1080],
            &noise(25, 9)[..],
            &changed,
            &old[1200..2000],
        ]
        .concat();
        let copies = [
            Copy { new: 0, old: 0, length: 1000 },
            Copy { new: new.len() as u32 - 800, old: 1200, length: 800 },
        ];
        let refined = refine(&new, 0..new.len(), &old, &copies, &OPTIONS);
        let expected = [
            copies[0],
            Copy { new: 1011, old: 1040, length: 40 },
            Copy { new: 1076, old: 1120, length: 30 },
            copies[1],
        ];
        assert_eq!(refined, expected);
    }
}
