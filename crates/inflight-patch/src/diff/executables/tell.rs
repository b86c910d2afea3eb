//! Telling where targets are that the alignment has elsewhere: worth it where several references
//! agree on it.

use std::collections::HashMap;

use rayon::prelude::*;

use super::seen::{Missed, Open, Seen, Target};
use crate::format::Told;
use crate::transform::references::Relocator;
use crate::transform::references::map::SpotHash;

/// References that must gain.
const GAIN_MIN: usize = 2;

/// What is told: for each target, how far it is from its predicted place.
pub(super) type Changes = HashMap<Target, i64, SpotHash>;

/// What to tell, given all pieces of an executable.
pub(super) fn changes(relocator: &Relocator, seen: &[Seen]) -> Changes {
    let mut misses: Vec<(Target, i64)> = seen
        .iter()
        .flat_map(|seen| &seen.missed)
        .filter(|missed| !missed.along)
        .map(|missed| (missed.open.target(), missed.change()))
        .collect();
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
        .map(Open::target)
        .filter(|target| gains.contains_key(target))
        .collect();
    for target in lost {
        if let Some((_, gain)) = gains.get_mut(&target) {
            *gain = gain.saturating_sub(1);
        }
    }
    // A place that is no spot cannot be told.
    let is_spot = |(space, target): Target, change: i64| {
        let place = i64::from(relocator.predict(space.into(), target)).checked_add(change);
        place.is_some_and(|place| u32::try_from(place).is_ok())
    };
    let gain = gains
        .into_iter()
        .filter(|(target, (change, gain))| *gain >= GAIN_MIN && is_spot(*target, *change));
    gain.map(|(target, (change, _))| (target, change)).collect()
}

/// The same as a patch has it.
pub(super) fn listed(changes: &Changes) -> Vec<Told> {
    let told = |((space, target), change): (&Target, &i64)| Told {
        space: u32::from(*space),
        target: *target,
        change: *change,
    };
    let mut list: Vec<Told> = changes.iter().map(told).collect();
    list.sort_unstable_by_key(|told| (told.space, told.target));
    list
}

/// The references of a piece that miss once the changes are told.
pub(super) fn left_over(seen: &Seen, changes: &Changes) -> Vec<Missed> {
    let mut left = Vec::with_capacity(seen.missed.len());
    for missed in &seen.missed {
        let change = changes.get(&missed.open.target()).filter(|_| !missed.along);
        let missed = missed.after(change.copied().unwrap_or(0));
        if missed.miss != 0 {
            left.push(missed);
        }
    }
    let kept = left.len();
    for open in &seen.right {
        if let Some(change) = changes.get(&open.target()) {
            left.push(Missed { open: *open, along: false, miss: 0 }.after(*change));
        }
    }
    if left.len() > kept {
        left.sort_unstable_by_key(|missed| missed.open.ordinal);
    }
    left
}
