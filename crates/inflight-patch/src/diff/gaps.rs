//! Gaps between copies: looked through for short agreements near those, and bridged where few bytes
//! differ.

use std::ops::Range;

use super::old::{IMAGE_BYTES_MAX, OldView};
use super::piece::Piece;
use crate::align::Copy;
use crate::align::extend::Scoring;
use crate::align::refine::{RefineOptions, WINDOW_MAX, bridge, refine};
use crate::error::Result;
use crate::format::Instruction;

/// Old bytes looked at together where the old image is not in memory as a whole.
const LOCAL_BYTES_MAX: u64 = 4 << 20;
/// Old bytes between two copies that are.
const APART_BYTES_MAX: u64 = 64 << 10;

/// What is looked at of a copy at each end, and what has to be between for the rest not to be.
const COPY_END_BYTES: u64 = 16 << 10;
const MIDDLE_BYTES_MIN: u64 = 64 << 10;

/// Adds to `piece` what makes `new`, looking again through what `list` has as literals, near the
/// copies around them.
pub(super) fn refined(
    list: &[Instruction],
    new: &[u8],
    view: &mut OldView,
    piece: &mut Piece,
) -> Result<()> {
    let is_literal = |instruction: &Instruction| matches!(instruction, Instruction::Literal { .. });
    if !list.iter().any(is_literal) {
        piece.add(list, new);
        return Ok(());
    }
    let list = with_middles_apart(list);
    let mut position = 0;
    for list in list.chunk_by(|(_, a), (_, b)| !a && !b) {
        let start = position;
        let mut copies = Vec::new();
        for (instruction, is_apart) in list {
            let length = instruction.length();
            if let (Instruction::Copy { old, .. }, false) = (instruction, is_apart) {
                copies.push(FarCopy { new: position, old: *old, length });
            }
            position += length as usize;
        }
        if copies.is_empty() {
            let list: Vec<Instruction> = list.iter().map(|(instruction, _)| *instruction).collect();
            piece.add(&list, &new[start..position]);
            continue;
        }
        let (mut rest, mut done) = (&copies[..], start);
        while !rest.is_empty() {
            let (count, range) = neighbours(rest, view);
            let (together, behind) = rest.split_at(count);
            let end = behind.first().map_or(position, |next| next.new);
            view.with_bytes(range.clone(), |old| {
                add_refined(together, new, done..end, old, range.start, piece);
            })?;
            (rest, done) = (behind, end);
        }
    }
    Ok(())
}

/// A copy from anywhere in the old image.
struct FarCopy {
    new: usize,
    old: u64,
    length: u64,
}

impl FarCopy {
    fn old_end(&self) -> u64 {
        self.old + self.length
    }
}

/// How many of the first copies can be worked on together, and the old bytes around them.
fn neighbours(copies: &[FarCopy], view: &OldView) -> (usize, Range<u64>) {
    if let Some(whole) = view.whole_range().filter(|whole| whole.end <= IMAGE_BYTES_MAX as u64) {
        return (copies.len(), whole);
    }
    let mut range = copies[0].old..copies[0].old_end();
    let mut count = 1;
    for copy in &copies[1..] {
        let more = range.start.min(copy.old)..range.end.max(copy.old_end());
        let added = (more.end - more.start) - (range.end - range.start);
        if more.end - more.start > LOCAL_BYTES_MAX || added > copy.length + APART_BYTES_MAX {
            break;
        }
        (range, count) = (more, count + 1);
    }
    let around = WINDOW_MAX as u64;
    (count, range.start.saturating_sub(around)..(range.end + around).min(view.length()))
}

/// Adds what makes a range of `new` of copies from `old`, which starts at `base`, and literals.
fn add_refined(
    copies: &[FarCopy],
    new: &[u8],
    range: Range<usize>,
    old: &[u8],
    base: u64,
    piece: &mut Piece,
) {
    let near = |copy: &FarCopy| Copy {
        new: copy.new as u32,
        old: (copy.old - base) as u32,
        length: copy.length as u32,
    };
    let copies: Vec<Copy> = copies.iter().map(near).collect();
    let scoring = Scoring { mismatch: 3, drop: 24 };
    let options = RefineOptions { words: 1, window_bytes: 256, scoring, score_min: 16 };
    let mut done = range.start;
    let literal = |from: usize, to: usize, piece: &mut Piece| {
        if from < to {
            piece.add(&[Instruction::Literal { length: (to - from) as u64 }], &new[from..to]);
        }
    };
    for copy in bridge(new, old, &refine(new, range.clone(), old, &copies, &options)) {
        let (from, to) = (copy.new as usize, copy.new_end() as usize);
        literal(done, from, piece);
        let place = copy.old as usize..copy.old_end() as usize;
        piece.add_copy(base + u64::from(copy.old), &old[place], &new[from..to]);
        done = to;
    }
    literal(done, range.end, piece);
}

/// The same instructions, with long copies in three, and whether each is apart: runs are, and what is
/// between the ends of a long copy. They take no part in what is done to gaps.
fn with_middles_apart(list: &[Instruction]) -> Vec<(Instruction, bool)> {
    let mut apart = Vec::with_capacity(list.len());
    for instruction in list {
        match *instruction {
            Instruction::Copy { old, length } if length > 2 * COPY_END_BYTES + MIDDLE_BYTES_MIN => {
                let middle = old + COPY_END_BYTES;
                let end = old + length - COPY_END_BYTES;
                apart.push((Instruction::Copy { old, length: COPY_END_BYTES }, false));
                apart.push((Instruction::Copy { old: middle, length: end - middle }, true));
                apart.push((Instruction::Copy { old: end, length: COPY_END_BYTES }, false));
            }
            Instruction::Run { .. } => apart.push((*instruction, true)),
            other => apart.push((other, false)),
        }
    }
    apart
}
