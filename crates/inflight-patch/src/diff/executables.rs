//! New executables, made from old ones.
//!
//! ```text
//! find ─► normalise ─► index ─► align ─┬► tables ─► tell ─► residue
//!                                      └► (restore)
//! ```
//!
//! For the time of the alignment every reference in code is zero, in old and new alike, so that
//! code that only moved is the same. The alignment then tells what references must be, tables are
//! aligned by what they refer to, and what is left over is written as residue.
//!
//! Everything here works on both images in memory, in parallel, and with the same result on any
//! number of threads.

mod find;
mod normal;
mod residue;
mod tables;
mod tell;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use find::find_all;

use super::group::Group;
use super::old::OldImage;
use super::read::Whole;
use crate::align::Copy;
use crate::align::anchor::{AnchorIndex, Sampling};
use crate::align::extend::Scoring;
use crate::align::find::{FindOptions, find};
use crate::align::refine::{RefineOptions, join, refine};
use crate::format::{GroupInstructions, Instruction, NewExecutable};
use crate::image::Image;
use crate::preset::Preset;
use crate::transform::references::space::{OldExecutable, Space};
use crate::transform::references::{Relocator, copy_parts};

/// The longest old image that the fine grain can name places in.
const IMAGE_BYTES_MAX: usize = u32::MAX as usize;
/// Bytes of new code aligned as one piece of work.
const ALIGN_BYTES: usize = 1 << 20;

/// An executable in the new image.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) start: u64,
    pub(super) space: Space,
}

impl Found {
    pub(super) fn range(&self) -> Range<u64> {
        self.start..self.start + u64::from(self.space.length())
    }
}

/// How much to look for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    sampling: Sampling,
    refine: bool,
}

impl Effort {
    pub(super) fn of(preset: Preset) -> Effort {
        let (bits, refine) = match preset {
            Preset::Fast => (5, true),
            Preset::Default => (4, true),
            Preset::Small => (3, true),
        };
        Effort { sampling: Sampling { bits, bytes: 32 }, refine }
    }

    /// Bytes that work on images of these lengths takes besides them, at most.
    pub(super) fn bytes(self, old: u64, new: u64) -> u64 {
        // References that were zeroed, and then copies, residue and tables, are less than a quarter.
        AnchorIndex::bytes(old, self.sampling) + (old + new) / 4
    }
}

/// What was made of the executables of two images.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) old: Arc<Vec<OldExecutable>>,
    /// One for each new executable that is made from old ones, in order.
    pub(super) groups: Vec<Group>,
}

/// Makes all new executables that changed. Both images are in memory, and are as they were when
/// this returns. Work for the crew, on all of its threads.
pub(super) fn run(old: &mut OldImage, image: &Image, new: &mut Whole, effort: Effort) -> Made {
    let old_image = old.image().clone();
    let units: Vec<Range<u64>> = image.layout.units().collect();
    let Some(old) = old.whole_mut().filter(|old| old.len() <= IMAGE_BYTES_MAX) else {
        return Made::default();
    };
    let mut found = find_all(image, &new.bytes);
    found.retain(|executable| changed(executable, &units, new));
    if found.is_empty() {
        return Made::default();
    }
    let placed = |found: Found| OldExecutable { start: found.start, space: found.space };
    let old_executables: Vec<OldExecutable> =
        find_all(&old_image, old).into_iter().map(placed).collect();
    if old_executables.is_empty() {
        return Made::default();
    }
    let old_executables = Arc::new(old_executables);
    let groups = make(old, &old_executables, &mut new.bytes, &found, &units, effort);
    Made { old: old_executables, groups }
}

/// Whether an executable is not all as it was.
fn changed(executable: &Found, units: &[Range<u64>], new: &Whole) -> bool {
    let range = executable.range();
    let first = units.partition_point(|unit| unit.end <= range.start);
    let over = units[first..].iter().take_while(|unit| unit.start < range.end).count();
    let mut digests = new.digests[first..first + over].iter().flatten();
    digests.any(|part| part.old_file.is_none())
}

fn make(
    old: &mut [u8],
    old_executables: &Arc<Vec<OldExecutable>>,
    new: &mut [u8],
    found: &[Found],
    units: &[Range<u64>],
    effort: Effort,
) -> Vec<Group> {
    let old_ranges = old_executables.iter().map(|executable| (executable.start, &executable.space));
    let new_ranges = found.iter().map(|executable| (executable.start, &executable.space));
    let old_saved = normal::zero(old, old_ranges);
    let new_saved = normal::zero(new, new_ranges);
    let index = index(old, old_executables, effort);
    let copies: Vec<Vec<Copy>> =
        found.par_iter().map(|executable| align(old, new, executable, &index, effort)).collect();
    drop(index);
    normal::restore(old, old_saved);
    normal::restore(new, new_saved);
    let (old, new) = (&*old, &*new);
    found
        .par_iter()
        .zip(copies)
        .map(|(executable, copies)| {
            let bytes = &new[executable.start as usize..executable.range().end as usize];
            let copies = tables::align(old, old_executables, bytes, executable, copies);
            let instructions = instructions(executable, &copies);
            let space = executable.space.clone();
            let parts = copy_parts(&instructions.list);
            let mut relocator = Relocator::new(old_executables.clone(), space.clone(), parts);
            let told = tell::tell(&mut relocator, old, bytes, &instructions);
            let residue = residue::residue(&instructions, &relocator, old, bytes, units);
            let executable = NewExecutable { space, told }.encode();
            Group::executable(executable, instructions, bytes, residue)
        })
        .collect()
}

/// The anchors of all that is not a table.
fn index(old: &[u8], executables: &[OldExecutable], effort: Effort) -> AnchorIndex {
    let mut ranges = Vec::new();
    for executable in executables {
        for region in executable.space.regions.iter().filter(|region| !region.kind.is_table()) {
            let start = executable.start as usize + region.start as usize;
            ranges.push(start..start + region.length as usize);
        }
    }
    AnchorIndex::of(old, &ranges, effort.sampling)
}

/// Aligns all of an executable but its tables. Copies count from its start in new.
fn align(
    old: &[u8],
    new: &[u8],
    executable: &Found,
    index: &AnchorIndex,
    effort: Effort,
) -> Vec<Copy> {
    let bytes = &new[executable.start as usize..executable.range().end as usize];
    let options = FindOptions { scoring: Scoring { mismatch: 3, drop: 48 }, score_min: 32 };
    let between = RefineOptions { scoring: Scoring { mismatch: 3, drop: 32 }, score_min: 18 };
    let mut pieces = Vec::new();
    for region in executable.space.regions.iter().filter(|region| !region.kind.is_table()) {
        let (mut start, end) = (region.start as usize, region.end() as usize);
        while start < end {
            let next = end.min(start + ALIGN_BYTES);
            pieces.push(start..next);
            start = next;
        }
    }
    let aligned: Vec<Vec<Copy>> = pieces
        .into_par_iter()
        .map(|range| {
            let mut copies = Vec::new();
            find(bytes, range.clone(), old, index, &options, None, &mut copies);
            match effort.refine {
                true => refine(bytes, range, old, &copies, &between),
                false => copies,
            }
        })
        .collect();
    let mut copies = Vec::new();
    aligned.into_iter().flatten().for_each(|copy| join(&mut copies, copy));
    copies
}

/// Copies, and literals between them.
fn instructions(executable: &Found, copies: &[Copy]) -> GroupInstructions {
    let mut list = Vec::with_capacity(2 * copies.len() + 1);
    let mut position = 0;
    let literal = |position: u32, to: u32, list: &mut Vec<Instruction>| {
        if position < to {
            list.push(Instruction::Literal { length: u64::from(to - position) });
        }
    };
    for copy in copies {
        literal(position, copy.new, &mut list);
        list.push(Instruction::Copy { old: copy.old.into(), length: copy.length.into() });
        position = copy.new_end();
    }
    literal(position, executable.space.length(), &mut list);
    GroupInstructions { start: executable.start, list }
}
