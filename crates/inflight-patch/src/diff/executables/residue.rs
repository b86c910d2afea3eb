//! What is left: literals, bytes that differ from what is copied, and references that were not
//! predicted.

use std::ops::Range;

use rayon::prelude::*;

use crate::diff::group::Residue;
use crate::format::{GapList, GroupInstructions, put_signed};
use crate::transform::references::{CopyPart, Relocator, copy_parts};

/// The residue of one piece.
#[derive(Debug, Default)]
struct PieceResidue {
    mismatches: GapList,
    differences: Vec<u8>,
    misses: GapList,
    corrections: Vec<u8>,
}

/// The residue of an executable whose bytes are `new`.
pub(super) fn residue(
    instructions: &GroupInstructions,
    relocator: &Relocator,
    old: &[u8],
    new: &[u8],
    units: &[Range<u64>],
) -> Residue {
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
    let residues: Vec<PieceResidue> =
        pieces.into_par_iter().map(|piece| of_piece(piece, &parts, relocator, old, new)).collect();
    let mut all = Residue::default();
    let any_mismatch = residues.iter().any(|piece| !piece.mismatches.is_empty());
    let any_miss = residues.iter().any(|piece| !piece.misses.is_empty());
    for piece in &residues {
        if any_mismatch {
            piece.mismatches.put(&mut all.mismatches);
            all.differences.extend_from_slice(&piece.differences);
        }
        if any_miss {
            piece.misses.put(&mut all.misses);
            all.corrections.extend_from_slice(&piece.corrections);
        }
    }
    all
}

fn of_piece(
    piece: Range<u32>,
    parts: &[CopyPart],
    relocator: &Relocator,
    old: &[u8],
    new: &[u8],
) -> PieceResidue {
    let mut residue = PieceResidue::default();
    let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
    let (mut copied, mut seen) = (0u64, 0u64);
    let first = parts.partition_point(|part| part.new + part.length <= piece.start);
    for part in parts[first..].iter().take_while(|part| part.new < piece.end) {
        let from = part.new.max(piece.start);
        let length = (part.new + part.length).min(piece.end) - from;
        let start = part.old + u64::from(from - part.new);
        let part = CopyPart { copy: part.copy, old: start, new: from, length };
        bytes.clear();
        bytes.extend_from_slice(&old[start as usize..start as usize + length as usize]);
        let real = &new[from as usize..from as usize + length as usize];
        relocator.relocate(part, &mut bytes, &mut scratch, |predicted| {
            let mut raw = [0; 8];
            raw[..predicted.width].copy_from_slice(&real[predicted.at..][..predicted.width]);
            let value = u64::from_le_bytes(raw);
            let miss = predicted.miss(value);
            if miss != 0 {
                residue.misses.push(seen);
                put_signed(&mut residue.corrections, miss);
            }
            seen += 1;
            value
        });
        let as_they_are: Vec<Range<usize>> = relocator.told_as_they_are(part).collect();
        for_each_difference(&bytes, real, |at| {
            let as_it_is = as_they_are.iter().any(|range| range.contains(&at));
            let base = if as_it_is { 0 } else { bytes[at] };
            residue.mismatches.push(copied + at as u64);
            residue.differences.push(real[at].wrapping_sub(base));
        });
        copied += u64::from(length);
    }
    residue
}

/// Calls `each` for each place where `real` is not `predicted`.
pub(in crate::diff) fn for_each_difference(
    predicted: &[u8],
    real: &[u8],
    mut each: impl FnMut(usize),
) {
    const BLOCK: usize = 32;
    let blocks = predicted.chunks(BLOCK).zip(real.chunks(BLOCK));
    for (number, (a, b)) in blocks.enumerate() {
        if a == b {
            continue;
        }
        for (at, (a, b)) in a.iter().zip(b).enumerate() {
            if a != b {
                each(number * BLOCK + at);
            }
        }
    }
}
