//! Telling where targets are that the alignment has elsewhere: worth it where several references
//! agree on it.

use rayon::prelude::*;

use crate::format::{GroupInstructions, Told};
use crate::transform::references::{CopyPart, Relocator, copy_parts};

/// Copies worked through as one piece of work.
const COPIES_AT_ONCE: usize = 1024;
/// References that must gain.
const GAIN_MIN: usize = 2;

/// A reference to a target, and how far it is from its prediction.
type Miss = (u32, u32, i64);

/// Corrects the map where that pays, and lists what was told.
pub(super) fn tell(
    relocator: &mut Relocator,
    old: &[u8],
    new: &[u8],
    instructions: &GroupInstructions,
) -> Vec<Told> {
    let parts: Vec<CopyPart> = copy_parts(&instructions.list).collect();
    let this = &*relocator;
    let mut misses: Vec<Miss> = parts
        .par_chunks(COPIES_AT_ONCE)
        .flat_map_iter(|parts| references(this, old, new, parts))
        .collect();
    misses.par_sort_unstable();
    let mut told = Vec::new();
    for target in misses.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let right = target.iter().filter(|miss| miss.2 == 0).count();
        let agreeing = target.chunk_by(|a, b| a.2 == b.2).max_by_key(|same| same.len());
        let Some(same) = agreeing else { continue };
        let (space, target, change) = same[0];
        if change != 0 && same.len() >= right + GAIN_MIN {
            told.push(Told { space, target, change });
        }
    }
    for told in &told {
        relocator.tell(told.space, told.target, told.change);
    }
    told
}

fn references(relocator: &Relocator, old: &[u8], new: &[u8], parts: &[CopyPart]) -> Vec<Miss> {
    let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
    let mut misses = Vec::new();
    for part in parts {
        let (start, length) = (part.old as usize, part.length as usize);
        bytes.clear();
        bytes.extend_from_slice(&old[start..start + length]);
        let real = &new[part.new as usize..part.new as usize + length];
        relocator.relocate(*part, &mut bytes, &mut scratch, |predicted| {
            let mut raw = [0; 8];
            raw[..predicted.width].copy_from_slice(&real[predicted.at..][..predicted.width]);
            let value = u64::from_le_bytes(raw);
            misses.push((predicted.space, predicted.target, predicted.miss(value)));
            value
        });
    }
    misses
}
