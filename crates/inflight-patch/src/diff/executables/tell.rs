//! Telling where targets are that the alignment has elsewhere: worth it where several references
//! agree on it.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::align::Copy;
use crate::format::Told;
use crate::transform::references::map::SpotHash;
use crate::transform::references::space::{OldExecutable, Space};
use crate::transform::references::{CopyPart, Relocator};

/// Copies worked through as one piece of work.
const COPIES_AT_ONCE: usize = 1024;
/// References that must gain.
const GAIN_MIN: usize = 2;

/// An old executable and a spot in it.
type Target = (u32, u32);

/// What was seen of some copies.
#[derive(Default)]
struct Seen {
    /// Targets that are not where they were predicted, and how far from there.
    misses: Vec<(Target, i64)>,
    /// Targets that are, where telling another place would change that.
    right: Vec<Target>,
}

/// The relocator of an executable made of `copies`, and what it was told.
pub(super) fn tell(
    old_executables: &Arc<Vec<OldExecutable>>,
    space: &Space,
    old: &[u8],
    new: &[u8],
    copies: &[Copy],
) -> (Relocator, Vec<Told>) {
    let parts = copies.iter().enumerate().map(|(number, copy)| part(number, copy));
    let mut relocator = Relocator::new(old_executables.clone(), space.clone(), parts);
    let seen: Vec<Seen> = copies
        .par_chunks(COPIES_AT_ONCE)
        .enumerate()
        .map(|(number, copies)| look(&relocator, old, new, number * COPIES_AT_ONCE, copies))
        .collect();
    let told = told(&seen);
    for told in &told {
        relocator.tell(told.space, told.target, told.change);
    }
    (relocator, told)
}

fn part(number: usize, copy: &Copy) -> CopyPart {
    CopyPart { copy: number as u32, old: copy.old.into(), new: copy.new, length: copy.length }
}

fn told(seen: &[Seen]) -> Vec<Told> {
    let mut misses: Vec<(Target, i64)> =
        seen.iter().flat_map(|seen| &seen.misses).copied().collect();
    misses.par_sort_unstable();
    // For each target, the change that most agree on.
    let mut gains: HashMap<Target, (i64, usize), SpotHash> = HashMap::default();
    for target in misses.chunk_by(|a, b| a.0 == b.0) {
        let agreeing = target.chunk_by(|a, b| a.1 == b.1).max_by_key(|same| same.len());
        if let Some(same) = agreeing.filter(|same| same.len() >= GAIN_MIN) {
            gains.insert(same[0].0, (same[0].1, same.len()));
        }
    }
    let lost: Vec<Target> = seen
        .par_iter()
        .flat_map_iter(|seen| &seen.right)
        .filter(|target| gains.contains_key(*target))
        .copied()
        .collect();
    for target in lost {
        if let Some((_, gain)) = gains.get_mut(&target) {
            *gain = gain.saturating_sub(1);
        }
    }
    let mut told: Vec<Told> = gains
        .into_iter()
        .filter(|(_, (_, gain))| *gain >= GAIN_MIN)
        .map(|((space, target), (change, _))| Told { space, target, change })
        .collect();
    told.sort_unstable_by_key(|told| (told.space, told.target));
    told
}

fn look(relocator: &Relocator, old: &[u8], new: &[u8], first: usize, copies: &[Copy]) -> Seen {
    let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
    let mut seen = Seen::default();
    for (number, copy) in copies.iter().enumerate() {
        let (start, length) = (copy.old as usize, copy.length as usize);
        bytes.clear();
        bytes.extend_from_slice(&old[start..start + length]);
        let real = &new[copy.new as usize..copy.new as usize + length];
        relocator.relocate(part(first + number, copy), &mut bytes, &mut scratch, |predicted| {
            let mut raw = [0; 8];
            raw[..predicted.width].copy_from_slice(&real[predicted.at..][..predicted.width]);
            let value = u64::from_le_bytes(raw);
            let target = (predicted.space, predicted.target);
            match predicted.miss(value) {
                0 if predicted.along => {}
                0 => seen.right.push(target),
                miss => seen.misses.push((target, miss)),
            }
            value
        });
    }
    seen
}
