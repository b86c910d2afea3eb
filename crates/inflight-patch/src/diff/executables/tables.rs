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
const ORDER: [&[RegionKind]; 2] = [
    &[
        RegionKind::Pointers,
        RegionKind::UnwindEntries,
        RegionKind::Constants,
        RegionKind::MixedConstants,
        RegionKind::UnwindInformation,
        RegionKind::LongUnwindEntries,
    ],
    &[
        RegionKind::Relocations,
        RegionKind::Symbols,
        RegionKind::UnwindIndex,
        RegionKind::Offsets,
        RegionKind::Functions,
        RegionKind::ShortSymbols,
    ],
];

/// Bytes of a new table aligned as one piece of work.
const ALIGN_BYTES: usize = 256 << 10;

/// Bytes of a table whose targets are followed as one piece of work: whole entries, but for those of
/// unwinding, of which one is lost where it is cut.
const SCAN_BYTES: usize = 24 << 12;

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
        RegionKind::Symbols | RegionKind::ShortSymbols => (3, 4),
        RegionKind::Constants => (2, 2),
        RegionKind::MixedConstants => (3, 2),
        RegionKind::UnwindEntries
        | RegionKind::LongUnwindEntries
        | RegionKind::UnwindInformation => (3, 3),
        RegionKind::Offsets | RegionKind::Functions => (4, 1),
        RegionKind::Relocations | RegionKind::UnwindIndex => (8, 1),
        _ => (8, 3),
    };
    Comparing { target_bytes, scoring: Scoring { mismatch, drop: 64 } }
}

/// Adds copies for tables to those of the rest of an executable. One entry in 2^`sampled` is looked
/// up.
pub(super) fn align(
    pool: &Pool,
    old: &[u8],
    old_executables: &Arc<Vec<OldExecutable>>,
    new: &[u8],
    executable: &Found,
    mut copies: Vec<Copy>,
    sampled: u32,
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
                let (predicted, real) = rayon::join(
                    || rewritten(&from.space, old_region, from_bytes, follow),
                    || rewritten(&executable.space, new_region, new, |target| target),
                );
                let place = from.start as u32 + old_region.start;
                let add = |copy: &Copy| Copy {
                    new: copy.new + new_region.start,
                    old: copy.old + place,
                    length: copy.length,
                };
                let found = match_table(pool, &predicted, &real, new_region.kind, sampled);
                found.iter().map(add).collect()
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
fn rewritten(
    space: &Space,
    region: &Region,
    file: &[u8],
    follow: impl Fn(u32) -> u32 + Sync,
) -> Vec<u8> {
    let bytes = &file[region.start as usize..region.end() as usize];
    let mut out = bytes.to_vec();
    let target_bytes = comparing(region.kind).target_bytes;
    let put = |out: &mut [u8], target: u32| {
        let mixed = u64::from(target).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let mut value = [0x55; 8];
        value[..target_bytes].copy_from_slice(&mixed[..target_bytes]);
        out.copy_from_slice(&value[..out.len()]);
    };
    let pieces = out.par_chunks_mut(SCAN_BYTES).zip(bytes.par_chunks(SCAN_BYTES)).enumerate();
    pieces.for_each(|(number, (out, bytes))| {
        scan(space, region, (number * SCAN_BYTES) as u32, bytes, |reference| {
            let end = reference.at + reference.field.bytes();
            put(&mut out[reference.at..end], follow(reference.target));
        });
    });
    if region.kind == RegionKind::Pointers {
        // Linkers often leave the slots that a relocation fills empty.
        for (slot, target) in relocations(space, file, follow) {
            let at = slot.wrapping_sub(region.spot);
            if at <= region.length.saturating_sub(8) && region.length >= 8 {
                put(&mut out[at as usize..at as usize + 8], target);
            }
        }
    }
    out
}

/// Slot and followed target of every relocation that only adds where the image is loaded.
fn relocations(space: &Space, file: &[u8], follow: impl Fn(u32) -> u32 + Sync) -> Vec<(u32, u32)> {
    /// By that name on x86-64 and AArch64.
    const RELATIVE: [u64; 2] = [8, 1027];
    let tables = space.regions.iter().filter(|region| region.kind == RegionKind::Relocations);
    let followed = |record: &[u8]| {
        let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("8 bytes"));
        let (slot, target) = (word(0).wrapping_sub(space.base), word(16).wrapping_sub(space.base));
        let loaded = u64::from(space.loaded);
        let counts = RELATIVE.contains(&word(8)) && slot < loaded && target < loaded;
        counts.then(|| (slot as u32, follow(target as u32)))
    };
    let mut all = Vec::new();
    for region in tables {
        let records = file[region.start as usize..region.end() as usize].par_chunks_exact(24);
        all.par_extend(records.filter_map(followed));
    }
    all
}

/// Where entries start, as far as that can be told, and how much of them is looked up.
fn sampling(kind: RegionKind) -> Sampling {
    let (bits, stride, phase, bytes) = match kind {
        RegionKind::Relocations => (0, 24, 0, 8),
        // By kind and value: names are looked at later.
        RegionKind::Symbols => (0, 24, 4, 8),
        RegionKind::ShortSymbols => (0, 16, 4, 8),
        RegionKind::UnwindIndex => (0, 8, 4, 8),
        RegionKind::UnwindEntries | RegionKind::LongUnwindEntries => (0, 4, 0, 8),
        RegionKind::Constants | RegionKind::MixedConstants => (2, 1, 0, 16),
        RegionKind::UnwindInformation => (0, 4, 0, 16),
        RegionKind::Offsets => (0, 4, 0, 8),
        RegionKind::Functions => (0, 12, 0, 8),
        _ => (0, 8, 0, 16),
    };
    Sampling { bits, stride, phase, bytes }
}

fn match_table(pool: &Pool, old: &[u8], new: &[u8], kind: RegionKind, sampled: u32) -> Vec<Copy> {
    if old == new {
        return vec![Copy { new: 0, old: 0, length: new.len() as u32 }];
    }
    let scoring = comparing(kind).scoring;
    let mut sampling = sampling(kind);
    sampling.bits = sampling.bits.max(sampled);
    let whole = 0..old.len();
    let Some(index) = AnchorIndex::of(pool, old, std::slice::from_ref(&whole), sampling) else {
        return Vec::new();
    };
    let options = Options {
        find: FindOptions { scoring, score_min: 20 },
        refine: RefineOptions { words: 2, window_bytes: WINDOW_BYTES, scoring, score_min: 18 },
    };
    crate::align::align(new, 0..new.len(), ALIGN_BYTES, old, &index, &options)
}
