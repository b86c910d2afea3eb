//! What is left: bytes that differ from what is copied, and references that were not predicted.

use std::ops::Range;

use rayon::prelude::*;

use super::seen::{Missed, Seen};
use super::tell;
use crate::diff::group::Residue;
use crate::diff::piece::for_each_difference;
use crate::format::{GapList, GroupInstructions, Told};
use crate::transform::references::{CopyPart, Relocator, Scratch, copy_parts};

/// What a group of an executable has besides its instructions.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) residue: Residue,
    pub(super) literals: Vec<u8>,
}

/// The rest of each group of an executable whose bytes are `new`, and what to tell the relocator
/// first. Groups end where units do.
pub(super) fn rests(
    groups: &[GroupInstructions],
    relocator: &Relocator,
    old: &[u8],
    new: &[u8],
    units: &[Range<u64>],
) -> (Vec<Rest>, Vec<Told>) {
    let parts: Vec<CopyPart> = copy_parts(groups.iter().flat_map(|group| &group.list)).collect();
    let start = groups[0].start;
    let mut pieces: Vec<(usize, Range<u32>)> = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        let range = group.start..group.start + group.length();
        pieces.extend(
            cut(units, range)
                .map(|piece| (number, (piece.start - start) as u32..(piece.end - start) as u32)),
        );
    }
    let seen: Vec<Seen> = pieces
        .par_iter()
        .map(|(_, piece)| look(piece.clone(), &parts, relocator, old, new))
        .collect();
    let changes = tell::changes(relocator, &seen);
    let missed: Vec<Vec<Missed>> =
        seen.par_iter().map(|seen| tell::left_over(seen, &changes)).collect();
    let mut rests: Vec<Rest> = Vec::new();
    let of_group =
        |a: &((usize, Seen), Vec<Missed>), b: &((usize, Seen), Vec<Missed>)| a.0.0 == b.0.0;
    let numbers = pieces.into_iter().map(|(number, _)| number);
    let all: Vec<((usize, Seen), Vec<Missed>)> = numbers.zip(seen).zip(missed).collect();
    for group in all.chunk_by(of_group) {
        rests.push(gather(group.iter().map(|((_, seen), missed)| (seen, &missed[..]))));
    }
    (rests, tell::listed(&changes))
}

/// Cuts a range of the new image at the ends of units.
pub(super) fn cut(units: &[Range<u64>], range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let first = units.partition_point(|unit| unit.end <= range.start);
    let Range { start, end } = range;
    let inside = units[first..].iter().take_while(move |unit| unit.start < end);
    inside.map(move |unit| unit.start.max(start)..unit.end.min(end))
}

/// Puts the pieces of a group together.
fn gather<'a>(pieces: impl Iterator<Item = (&'a Seen, &'a [Missed])> + Clone) -> Rest {
    let mut rest = Rest::default();
    let any_mismatch = pieces.clone().any(|(piece, _)| !piece.mismatches.is_empty());
    let any_miss = pieces.clone().any(|(_, missed)| !missed.is_empty());
    for (piece, missed) in pieces {
        rest.literals.extend_from_slice(&piece.literals);
        if any_mismatch {
            piece.mismatches.put(&mut rest.residue.mismatches);
            rest.residue.differences.extend_from_slice(&piece.differences);
        }
        if any_miss {
            let mut misses = GapList::default();
            for missed in missed {
                misses.push(missed.open.ordinal.into());
                rest.residue.corrections.push(missed.miss);
            }
            misses.put(&mut rest.residue.misses);
        }
    }
    rest
}

fn look(
    piece: Range<u32>,
    parts: &[CopyPart],
    relocator: &Relocator,
    old: &[u8],
    new: &[u8],
) -> Seen {
    let mut seen = Seen::default();
    let (mut bytes, mut scratch) = (Vec::new(), Scratch::default());
    let (mut copied, mut ordinal) = (0u64, 0);
    let mut position = piece.start;
    let literal = |range: Range<u32>, seen: &mut Seen| {
        let at = seen.literals.len();
        seen.literals.extend_from_slice(&new[range.start as usize..range.end as usize]);
        relocator.make_alike(range.start, &mut seen.literals[at..]);
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
            let value = predicted.real(real);
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
