//! Aligning tables by what their entries refer to: the old table as it would be if everything in it
//! had moved as the alignment so far says, against the new one.

use std::sync::Arc;

use inflight::Pool;
use rayon::prelude::*;

use super::Found;
use crate::align::anchor::{AnchorIndex, Sampling};
use crate::align::extend::Scoring;
use crate::align::find::FindOptions;
use crate::align::refine::RefineOptions;
use crate::align::{Copy, Options};
use crate::transform::references::scan::scan;
use crate::transform::references::space::{OldExecutable, Region, RegionKind, Space};
use crate::transform::references::{CopyPart, Relocator};

/// Kinds of tables, each behind those that its references lead to.
const ORDER: [&[RegionKind]; 3] = [
    &[RegionKind::Pointers, RegionKind::UnwindEntries, RegionKind::Constants],
    &[RegionKind::Relocations, RegionKind::Symbols],
    &[RegionKind::UnwindIndex],
];

/// Bytes of a new table aligned as one piece of work.
const ALIGN_BYTES: usize = 256 << 10;

/// Old bytes looked at on either side of a gap.
const WINDOW_BYTES: usize = 256;

/// How entries are compared.
struct Comparing {
    /// Bytes by which targets differ where they differ.
    target_bytes: usize,
    scoring: Scoring,
}

fn comparing(kind: RegionKind) -> Comparing {
    let (target_bytes, mismatch) = match kind {
        // What a slot points to does not stand in the file: only the shape matters.
        RegionKind::Pointers => (3, 3),
        RegionKind::Symbols => (3, 4),
        RegionKind::Constants => (2, 2),
        RegionKind::UnwindEntries => (3, 3),
        RegionKind::Relocations | RegionKind::UnwindIndex => (8, 1),
        _ => (8, 3),
    };
    Comparing { target_bytes, scoring: Scoring { mismatch, drop: 64 } }
}

/// Adds copies for tables to those of the rest of an executable.
pub(super) fn align(
    pool: &Pool,
    old: &[u8],
    old_executables: &Arc<Vec<OldExecutable>>,
    new: &[u8],
    executable: &Found,
    mut copies: Vec<Copy>,
) -> Vec<Copy> {
    let Some(main) = counterpart(old_executables, &copies) else { return copies };
    let from = &old_executables[main];
    let from_bytes = &old[from.start as usize..from.end() as usize];
    for kinds in ORDER {
        let parts = parts(&copies);
        let relocator =
            Relocator::new(old_executables.clone(), executable.space.clone(), parts.into_iter());
        let regions: Vec<(&Region, &Region)> = pairs(&from.space, &executable.space, kinds);
        let added: Vec<Vec<Copy>> = regions
            .into_par_iter()
            .map(|(old_region, new_region)| {
                let follow = |target| relocator.predict(main as u32, target);
                let predicted = rewritten(&from.space, old_region, from_bytes, follow);
                let real = rewritten(&executable.space, new_region, new, |target| target);
                let place = from.start as u32 + old_region.start;
                let add = |copy: &Copy| Copy {
                    new: copy.new + new_region.start,
                    old: copy.old + place,
                    length: copy.length,
                };
                match_table(pool, &predicted, &real, new_region.kind).iter().map(add).collect()
            })
            .collect();
        copies.extend(added.into_iter().flatten());
        copies.sort_by_key(|copy| copy.new);
    }
    copies
}

fn parts(copies: &[Copy]) -> Vec<CopyPart> {
    let part = |copy: &Copy| CopyPart { old: copy.old.into(), new: copy.new, length: copy.length };
    copies.iter().map(part).collect()
}

/// The old executable that most is copied from.
fn counterpart(old: &[OldExecutable], copies: &[Copy]) -> Option<usize> {
    let mut copied = vec![0u64; old.len()];
    for part in parts(copies) {
        for alignment in part.alignments(old) {
            copied[alignment.space as usize] += u64::from(alignment.length);
        }
    }
    let most = copied.iter().copied().max().filter(|most| *most > 0)?;
    copied.iter().position(|bytes| *bytes == most)
}

/// The regions of these kinds, the first with the first and so on.
fn pairs<'a>(
    old: &'a Space,
    new: &'a Space,
    kinds: &[RegionKind],
) -> Vec<(&'a Region, &'a Region)> {
    let mut pairs = Vec::new();
    for kind in kinds {
        let of = |region: &&Region| region.kind == *kind;
        pairs.extend(old.regions.iter().filter(of).zip(new.regions.iter().filter(of)));
    }
    pairs
}

/// A table with all targets, as `follow` gives them, in the place of its values.
fn rewritten(space: &Space, region: &Region, file: &[u8], follow: impl Fn(u32) -> u32) -> Vec<u8> {
    let bytes = &file[region.start as usize..region.end() as usize];
    let mut out = bytes.to_vec();
    let target_bytes = comparing(region.kind).target_bytes;
    let mut put = |at: usize, width: usize, target: u32| {
        let mixed = u64::from(target).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let mut value = [0x55; 8];
        value[..target_bytes].copy_from_slice(&mixed[..target_bytes]);
        out[at..at + width].copy_from_slice(&value[..width]);
    };
    scan(space, region, 0, bytes, |reference| {
        put(reference.at, reference.width, follow(reference.target));
    });
    if region.kind == RegionKind::Pointers {
        // Linkers often leave the slots that a relocation fills empty.
        each_relocation(space, file, |slot, target| {
            let at = slot.wrapping_sub(region.spot);
            if at <= region.length.saturating_sub(8) && region.length >= 8 {
                put(at as usize, 8, follow(target));
            }
        });
    }
    out
}

/// Calls `each` with slot and target of every relocation that only adds where the image is loaded.
fn each_relocation(space: &Space, file: &[u8], mut each: impl FnMut(u32, u32)) {
    const RELATIVE: u64 = 8;
    let tables = space.regions.iter().filter(|region| region.kind == RegionKind::Relocations);
    for region in tables {
        for record in file[region.start as usize..region.end() as usize].chunks_exact(24) {
            let word =
                |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("8 bytes"));
            let (slot, target) =
                (word(0).wrapping_sub(space.base), word(16).wrapping_sub(space.base));
            let loaded = u64::from(space.loaded);
            if word(8) == RELATIVE && slot < loaded && target < loaded {
                each(slot as u32, target as u32);
            }
        }
    }
}

/// Where entries start, as far as that can be told, and how much of them is looked up.
fn sampling(kind: RegionKind) -> Sampling {
    let (bits, stride, phase, bytes) = match kind {
        RegionKind::Relocations => (0, 24, 0, 8),
        // By kind and value: names are looked at later.
        RegionKind::Symbols => (0, 24, 4, 8),
        RegionKind::UnwindIndex => (0, 8, 4, 8),
        RegionKind::UnwindEntries => (0, 4, 0, 8),
        RegionKind::Constants => (2, 1, 0, 16),
        _ => (0, 8, 0, 16),
    };
    Sampling { bits, stride, phase, bytes }
}

fn match_table(pool: &Pool, old: &[u8], new: &[u8], kind: RegionKind) -> Vec<Copy> {
    if old == new {
        return vec![Copy { new: 0, old: 0, length: new.len() as u32 }];
    }
    let scoring = comparing(kind).scoring;
    let sampling = sampling(kind);
    let whole = 0..old.len();
    let Some(index) = AnchorIndex::of(pool, old, std::slice::from_ref(&whole), sampling) else {
        return Vec::new();
    };
    let options = Options {
        find: FindOptions { scoring, score_min: 20 },
        refine: RefineOptions { scoring, score_min: 18, window_bytes: WINDOW_BYTES },
    };
    crate::align::align(new, 0..new.len(), ALIGN_BYTES, old, &index, &options)
}
