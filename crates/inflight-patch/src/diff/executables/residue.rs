//! What is left: bytes that differ from what is copied, and references that were not predicted.

use std::ops::Range;

use rayon::prelude::*;

use super::seen::{Missed, Seen};
use super::tell;
use crate::diff::group::{Residue, for_each_difference};
use crate::format::{GapList, GroupInstructions, Told, put_signed};
use crate::transform::references::{CopyPart, Relocator, copy_parts};

/// The residue of an executable whose bytes are `new`, literals, and what to tell the relocator
/// first.
pub(super) fn residue(
    instructions: &GroupInstructions,
    relocator: &Relocator,
    old: &[u8],
    new: &[u8],
    units: &[Range<u64>],
) -> (Residue, Vec<u8>, Vec<Told>) {
    let parts: Vec<CopyPart> = copy_parts(&instructions.list).collect();
    let end = instructions.start + new.len() as u64;
    let first = units.partition_point(|unit| unit.end <= instructions.start);
    let pieces: Vec<Range<u32>> = units[first..]
        .iter()
        .take_while(|unit| unit.start < end)
        .map(|unit| {
            let start = unit.start.max(instructions.start) - instructions.start;
            start as u32..(unit.end.min(end) - instructions.start) as u32
        })
        .collect();
    let seen: Vec<Seen> =
        pieces.into_par_iter().map(|piece| look(piece, &parts, relocator, old, new)).collect();
    let changes = tell::changes(relocator, &seen);
    let missed: Vec<Vec<Missed>> =
        seen.par_iter().map(|seen| tell::left_over(seen, &changes)).collect();
    let mut all = Residue::default();
    let mut literals = Vec::with_capacity(instructions.literal_bytes() as usize);
    let any_mismatch = seen.iter().any(|piece| !piece.mismatches.is_empty());
    let any_miss = missed.iter().any(|missed| !missed.is_empty());
    for (piece, missed) in seen.iter().zip(&missed) {
        literals.extend_from_slice(&piece.literals);
        if any_mismatch {
            piece.mismatches.put(&mut all.mismatches);
            all.differences.extend_from_slice(&piece.differences);
        }
        if any_miss {
            let mut misses = GapList::default();
            for missed in missed {
                misses.push(missed.open.ordinal.into());
                put_signed(&mut all.corrections, missed.miss);
            }
            misses.put(&mut all.misses);
        }
    }
    (all, literals, tell::listed(&changes))
}

fn look(
    piece: Range<u32>,
    parts: &[CopyPart],
    relocator: &Relocator,
    old: &[u8],
    new: &[u8],
) -> Seen {
    let mut seen = Seen::default();
    let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
    let (mut copied, mut ordinal) = (0u64, 0);
    let mut position = piece.start;
    let literal = |range: Range<u32>, seen: &mut Seen| {
        let at = seen.literals.len();
        seen.literals.extend_from_slice(&new[range.start as usize..range.end as usize]);
        relocator.make_absolute(range.start, &mut seen.literals[at..]);
    };
    let first = parts.partition_point(|part| part.new + part.length <= piece.start);
    for part in parts[first..].iter().take_while(|part| part.new < piece.end) {
        let from = part.new.max(piece.start);
        let length = (part.new + part.length).min(piece.end) - from;
        literal(position..from, &mut seen);
        position = from + length;
        let start = part.old + u64::from(from - part.new);
        let part = CopyPart { old: start, new: from, length };
        bytes.clear();
        bytes.extend_from_slice(&old[start as usize..start as usize + length as usize]);
        let real = &new[from as usize..from as usize + length as usize];
        relocator.relocate(part, &mut bytes, &mut scratch, |predicted| {
            let mut raw = [0; 8];
            raw[..predicted.width].copy_from_slice(&real[predicted.at..][..predicted.width]);
            let value = u64::from_le_bytes(raw);
            seen.note(ordinal, predicted, predicted.miss(value));
            ordinal += 1;
            value
        });
        let mut as_they_are = relocator.told_as_they_are(part).peekable();
        for_each_difference(&bytes, real, |at| {
            while as_they_are.next_if(|range| range.end <= at).is_some() {}
            let as_it_is = as_they_are.peek().is_some_and(|range| range.contains(&at));
            let base = if as_it_is { 0 } else { bytes[at] };
            seen.mismatches.push(copied + at as u64);
            seen.differences.push(real[at].wrapping_sub(base));
        });
        copied += u64::from(length);
    }
    literal(position..piece.end, &mut seen);
    seen
}
