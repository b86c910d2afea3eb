//! New executables, made from old ones.
//!
//! ```text
//! find ─► normalise ─► index ─► align ─┬► tables ─► residue
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
mod seen;
mod tables;
mod tell;

use std::ops::Range;
use std::sync::Arc;

use inflight::Pool;
use rayon::prelude::*;

use find::{find_all, find_in};

use super::effort::Effort;
use super::group::{self, Group};
use super::known::Whole;
use super::matching::append;
use super::old::{IMAGE_BYTES_MAX, OldImage};
use crate::align::anchor::{AnchorIndex, Sampling};
use crate::align::extend::Scoring;
use crate::align::find::FindOptions;
use crate::align::refine::join;
use crate::align::{Copy, Options, align};
use crate::format::{
    Executable, GROUP_INSTRUCTIONS_MAX, GroupInstructions, Instruction, OLD_EXECUTABLES_MAX,
};
use crate::image::Image;
use crate::transform::references::space::{OldExecutable, Region, RegionKind, Space, cut_image};
use crate::transform::references::{Relocator, copy_parts};

/// Bytes of new code aligned as one piece of work.
const ALIGN_BYTES: usize = 1 << 20;

/// A group ends with the unit that makes so many bytes of literals, so many instructions, or so many
/// bytes in all (of each there may be a few bytes of residue).
const GROUP_LITERALS: u64 = 16 << 20;
const GROUP_INSTRUCTIONS: usize = GROUP_INSTRUCTIONS_MAX / 4;
const GROUP_BYTES: u64 = 256 << 20;

/// Bytes copied from an old executable for which it is worth to list one of its regions.
const LISTED_BYTES: u32 = 256;

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

/// What was made of the executables of two images.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// The old ones.
    pub(super) old: Arc<Vec<OldExecutable>>,
    /// The groups of each new one, in order.
    pub(super) groups: Vec<Vec<Group>>,
}

/// Makes all new executables that changed. Both images are in memory, and are as they were when
/// this returns. Work for the crew, on all of its threads.
pub(super) fn run(
    pool: &Pool,
    old: &mut OldImage,
    image: &Image,
    new: &mut Whole,
    effort: Effort,
) -> Made {
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
    let old_executables = placed(find_all(&old_image, old));
    let maker = Maker { pool, old_executables, found, units, effort, base: Base::default() };
    let groups = maker.make(old, &mut new.bytes);
    Made { old: maker.old_executables, groups }
}

/// A file in memory, and where it starts in its image.
#[derive(Debug)]
pub(super) struct FileBytes<'a> {
    pub(super) start: u64,
    pub(super) bytes: &'a mut [u8],
}

/// Makes the executables of one new file from those of one old file. Both are as they were when this
/// returns. Work for the crew, on all of its threads.
pub(super) fn run_pair(
    pool: &Pool,
    old: FileBytes<'_>,
    new: FileBytes<'_>,
    units: &[Range<u64>],
    effort: Effort,
) -> Vec<Vec<Group>> {
    if old.bytes.len() > IMAGE_BYTES_MAX || new.bytes.len() > IMAGE_BYTES_MAX {
        return Vec::new();
    }
    let found = find_in(new.bytes, 0..new.bytes.len() as u64);
    let old_executables = placed(find_in(old.bytes, 0..old.bytes.len() as u64));
    let range = new.start..new.start + new.bytes.len() as u64;
    let units = residue::cut(units, range).map(|u| u.start - new.start..u.end - new.start);
    let base = Base { old: old.start, new: new.start };
    let units = units.collect();
    Maker { pool, old_executables, found, units, effort, base }.make(old.bytes, new.bytes)
}

/// Where in the new image executables are that have these groups.
pub(super) fn ranges(made: &[Vec<Group>]) -> Vec<Range<u64>> {
    let range = |groups: &Vec<Group>| groups[0].range().start..groups[groups.len() - 1].range().end;
    made.iter().map(range).collect()
}

fn placed(found: Vec<Found>) -> Arc<Vec<OldExecutable>> {
    let placed = |found: Found| OldExecutable { start: found.start, space: found.space };
    Arc::new(found.into_iter().map(placed).collect())
}

/// Whether an executable is not all as it was.
fn changed(executable: &Found, units: &[Range<u64>], new: &Whole) -> bool {
    let range = executable.range();
    let first = units.partition_point(|unit| unit.end <= range.start);
    let over = units[first..].iter().take_while(|unit| unit.start < range.end).count();
    let mut digests = new.digests[first..first + over].iter().flatten();
    digests.any(|part| part.old_file.is_none())
}

/// Where the bytes at hand start in their images.
#[derive(Debug, Clone, Copy, Default)]
struct Base {
    old: u64,
    new: u64,
}

/// What is to be made, and from what. Places count from where the bytes at hand start.
struct Maker<'a> {
    pool: &'a Pool,
    old_executables: Arc<Vec<OldExecutable>>,
    found: Vec<Found>,
    units: Vec<Range<u64>>,
    effort: Effort,
    base: Base,
}

impl Maker<'_> {
    fn make(&self, old: &mut [u8], new: &mut [u8]) -> Vec<Vec<Group>> {
        let old_executables = &self.old_executables;
        if old_executables.is_empty() || old_executables.len() > OLD_EXECUTABLES_MAX {
            return Vec::new();
        }
        let old_ranges =
            old_executables.iter().map(|executable| (executable.start, &executable.space));
        let new_ranges = self.found.iter().map(|executable| (executable.start, &executable.space));
        let old_saved = normal::zero(old, old_ranges);
        let new_saved = normal::zero(new, new_ranges);
        let aligned = self.align(old, new);
        normal::restore(old, old_saved);
        normal::restore(new, new_saved);
        // Without memory for an index, there are no groups for executables.
        let Some(aligned) = aligned else { return Vec::new() };
        let pairs = self.found.par_iter().zip(aligned);
        pairs.map(|(found, copies)| self.groups(found, copies, old, new)).collect()
    }

    /// Aligns all of the executables but their tables, code and data each with an index of its own, so
    /// that one of the two takes memory at a time. Copies count from an executable's start in new.
    fn align(&self, old: &[u8], new: &[u8]) -> Option<Vec<Vec<Copy>>> {
        let mut aligned: Vec<Vec<Copy>> = vec![Vec::new(); self.found.len()];
        for grain in [Grain::code(self.effort), Grain::data(self.effort)] {
            let ranges = grain.ranges(&self.old_executables);
            let index = AnchorIndex::of(self.pool, old, &ranges, grain.sampling)?;
            self.found.par_iter().zip(&mut aligned).for_each(|(found, aligned)| {
                let bytes = &new[found.start as usize..found.range().end as usize];
                aligned.extend(grain.align(old, bytes, &found.space, &index, self.effort));
            });
        }
        aligned.par_iter_mut().for_each(|aligned| {
            aligned.sort_by_key(|copy| copy.new);
            let apart = std::mem::take(aligned);
            apart.into_iter().for_each(|copy| join(aligned, copy));
        });
        Some(aligned)
    }

    /// The groups of one executable.
    fn groups(&self, found: &Found, copies: Vec<Copy>, old: &[u8], new: &[u8]) -> Vec<Group> {
        let bytes = &new[found.start as usize..found.range().end as usize];
        let copies = tables::align(
            self.pool,
            old,
            &self.old_executables,
            bytes,
            found,
            copies,
            self.effort.tables,
        );
        let mut used = used(&self.old_executables, &copies);
        let cut = instructions(found, &copies, &self.units);
        let space = found.space.clone();
        let parts = copy_parts(cut.iter().flat_map(|group| &group.list));
        let relocator = Relocator::new(Arc::new(used.clone()), space.clone(), parts);
        let (rests, told) = residue::rests(&cut, &relocator, old, bytes, &self.units);
        used.iter_mut().for_each(|old| old.start += self.base.old);
        let executable = Executable { old: used, space, told }.encode();
        let mut starts = Some(group::Executable::Starts(executable));
        let groups = cut.into_iter().zip(rests).map(|(mut instructions, rest)| {
            instructions.start += self.base.new;
            for instruction in &mut instructions.list {
                if let Instruction::Copy { old, .. } = instruction {
                    *old += self.base.old;
                }
            }
            let executable = starts.take().unwrap_or(group::Executable::GoesOn);
            Group::executable(executable, instructions, rest.literals, rest.residue)
        });
        groups.collect()
    }
}

/// The old executables that copies come from, those aside that too little comes from to be worth
/// listing: what comes from them is copied as it is.
fn used(old: &[OldExecutable], copies: &[Copy]) -> Vec<OldExecutable> {
    let mut bytes = vec![0u32; old.len()];
    for copy in copies {
        let range = u64::from(copy.old)..u64::from(copy.old_end());
        for (number, range) in cut_image(old, range) {
            bytes[number as usize] += range.end - range.start;
        }
    }
    let least = |executable: &OldExecutable| LISTED_BYTES * executable.space.regions.len() as u32;
    let listed = old.iter().zip(bytes).filter(|(old, bytes)| *bytes >= least(old));
    listed.map(|(old, _)| old.clone()).collect()
}

/// How regions of one sort are aligned: code, where agreements are long and places many, or data that
/// is not a table, where they are short.
struct Grain {
    is_wanted: fn(RegionKind) -> bool,
    sampling: Sampling,
    score_min: i32,
}

impl Grain {
    fn code(effort: Effort) -> Grain {
        let is_wanted = RegionKind::is_code;
        Grain { is_wanted, sampling: effort.code, score_min: 32 }
    }

    fn data(effort: Effort) -> Grain {
        let is_wanted = |kind: RegionKind| !kind.is_code() && !kind.is_table();
        Grain { is_wanted, sampling: effort.data, score_min: 24 }
    }

    /// Where such regions of old executables are.
    fn ranges(&self, executables: &[OldExecutable]) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        for executable in executables {
            for region in executable.space.regions.iter().filter(|r| (self.is_wanted)(r.kind)) {
                let start = executable.start as usize + region.start as usize;
                ranges.push(start..start + region.length as usize);
            }
        }
        ranges
    }

    /// Aligns such regions of an executable that consists of these bytes.
    fn align(
        &self,
        old: &[u8],
        bytes: &[u8],
        space: &Space,
        index: &AnchorIndex,
        effort: Effort,
    ) -> Vec<Copy> {
        let scoring = Scoring { mismatch: 2, drop: 32 };
        let find = FindOptions { scoring, score_min: self.score_min };
        let options = Options { find, refine: effort.refine };
        let regions: Vec<&Region> =
            space.regions.iter().filter(|region| (self.is_wanted)(region.kind)).collect();
        let aligned = regions.into_par_iter().flat_map_iter(|region| {
            let range = region.start as usize..region.end() as usize;
            align(bytes, range, ALIGN_BYTES, old, index, &options)
        });
        aligned.collect()
    }
}

/// Copies, and literals between them, in groups that end where units do.
fn instructions(
    executable: &Found,
    copies: &[Copy],
    units: &[Range<u64>],
) -> Vec<GroupInstructions> {
    let mut all = Vec::with_capacity(2 * copies.len() + 1);
    let mut position = 0;
    let literal = |from: u32, to: u32, all: &mut Vec<Instruction>| {
        if from < to {
            all.push(Instruction::Literal { length: u64::from(to - from) });
        }
    };
    for copy in copies {
        literal(position, copy.new, &mut all);
        all.push(Instruction::Copy { old: copy.old.into(), length: copy.length.into() });
        position = copy.new_end();
    }
    literal(position, executable.space.length(), &mut all);
    let mut all = all.into_iter();
    let mut open: Option<Instruction> = None;
    let mut groups = Vec::new();
    let mut group = GroupInstructions { start: executable.start, list: Vec::new() };
    let (mut literals, mut made) = (0, 0);
    for piece in residue::cut(units, executable.range()) {
        let (mut missing, before) = (piece.end - piece.start, group.list.len());
        while missing > 0 {
            let next = open.take().or_else(|| all.next()).expect("they make the whole executable");
            let (now, rest) = next.split(missing);
            missing -= now.length();
            if let Instruction::Literal { length } = now {
                literals += length;
            }
            // What the last piece's end cut goes on.
            match group.list.len() == before {
                true => append(&mut group.list, now),
                false => group.list.push(now),
            }
            open = rest;
        }
        made += piece.end - piece.start;
        let is_full = literals >= GROUP_LITERALS
            || group.list.len() >= GROUP_INSTRUCTIONS
            || made >= GROUP_BYTES;
        if is_full {
            let next = GroupInstructions { start: piece.end, list: Vec::new() };
            groups.push(std::mem::replace(&mut group, next));
            (literals, made) = (0, 0);
        }
    }
    if !group.list.is_empty() {
        groups.push(group);
    }
    groups
}
