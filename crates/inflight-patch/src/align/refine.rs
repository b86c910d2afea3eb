//! Between copies: short agreements near the diagonals of the neighbours, which anchors are too
//! far apart to see.

use super::Copy;
use super::extend::{Scoring, backward, forward};

/// Bytes of old looked at around a gap, besides twice its length.
const WINDOW_EXTRA: usize = 512;
const WINDOW_MAX: usize = 4096;
/// Gaps longer than this are left to the index.
const GAP_MAX: usize = 4096;
/// Bytes that start an agreement.
const WORD: usize = 8;

/// What counts as found in a gap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefineOptions {
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

/// Looks through the gaps between `copies`.
pub(crate) fn refine(
    new: &[u8],
    range: std::ops::Range<usize>,
    old: &[u8],
    copies: &[Copy],
    options: &RefineOptions,
) -> Vec<Copy> {
    let mut out = Vec::with_capacity(copies.len() + copies.len() / 4);
    let mut table = vec![0u16; 1 << 13];
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

#[allow(clippy::too_many_arguments)]
fn gap(
    new: &[u8],
    range: std::ops::Range<usize>,
    old: &[u8],
    before: Option<Copy>,
    after: Option<Copy>,
    options: &RefineOptions,
    table: &mut [u16],
    out: &mut Vec<Copy>,
) {
    let length = range.len();
    if !(WORD..=GAP_MAX).contains(&length) {
        return;
    }
    // Old bytes behind the copy before, and ahead of the one after.
    let reach = (2 * length + WINDOW_EXTRA).min(WINDOW_MAX);
    let behind = before.map(|copy| {
        let start = copy.old_end() as usize;
        start..(start + reach).min(old.len())
    });
    let ahead = after.map(|copy| {
        let end = copy.old as usize;
        end.saturating_sub(reach)..end
    });
    let windows: [Option<std::ops::Range<usize>>; 2] = match (behind, ahead) {
        (Some(a), Some(b)) if a.start <= b.end && b.start <= a.end => {
            [Some(a.start.min(b.start)..a.end.max(b.end)), None]
        }
        other => [other.0, other.1],
    };
    let mut done = range.start;
    let mut at = range.start;
    let windows: Vec<std::ops::Range<usize>> = windows.into_iter().flatten().collect();
    // Positions count through the windows, from 1 on.
    table.fill(0);
    let slot = |bytes: &[u8]| {
        let word = u64::from_le_bytes(bytes[..WORD].try_into().expect("8 bytes"));
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as usize
    };
    let mut base = 1usize;
    for window in &windows {
        let bytes = &old[window.clone()];
        for place in 0..bytes.len().saturating_sub(WORD - 1) {
            let slot = slot(&bytes[place..]);
            if table[slot] == 0 {
                table[slot] = (base + place) as u16;
            }
        }
        base += bytes.len();
    }
    let locate = |number: u16| {
        let mut number = usize::from(number) - 1;
        for window in &windows {
            if number < window.len() {
                return window.start + number;
            }
            number -= window.len();
        }
        unreachable!("a number of a place in the windows")
    };
    while at + WORD <= range.end {
        let number = table[slot(&new[at..])];
        if number != 0 {
            let place = locate(number);
            if old[place..place + WORD] == new[at..at + WORD] {
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
        }
        at += 1;
    }
}
