//! References in executables, predicted through the alignment of old and new.
//!
//! When code moves, everything that points to it or out of it changes, though nobody wrote a
//! different program. What is copied from an old executable is therefore corrected: each reference
//! in it is followed to where its target has moved to. Only references for which that is not what
//! the new executable says stand in the patch.
//!
//! Nothing rests on the recognition of references being right: [`Relocator::relocate`] is the same
//! for encoder and decoder, and sees nothing but the bytes of the copy and the tables in the patch.

mod arm64;
mod functions;
pub(crate) mod map;
pub(crate) mod reference;
pub(crate) mod scan;
pub(crate) mod space;
mod x86;

use std::ops::Range;
use std::sync::Arc;

use map::{Alignment, SpotMap};
use reference::{Field, Origin, Reference};
use scan::scan;
use space::{OldExecutable, Region, RegionKind, Space, cut_image_near};

use crate::format::Instruction;

/// References whose targets are asked for ahead of time.
const AHEAD: usize = 8;

/// Corrects what is copied from old executables into one new one.
#[derive(Debug)]
pub(crate) struct Relocator {
    old: Arc<Vec<OldExecutable>>,
    new: Space,
    map: SpotMap,
}

/// A copy of a new executable, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopyPart {
    /// Where its bytes are in the old image.
    pub(crate) old: u64,
    /// Where they go in the new executable.
    pub(crate) new: u32,
    pub(crate) length: u32,
}

/// The copies among the instructions that make an executable, which is shorter than 4 GiB.
pub(crate) fn copy_parts<'a>(
    list: impl IntoIterator<Item = &'a Instruction>,
) -> impl Iterator<Item = CopyPart> {
    let mut position = 0u32;
    list.into_iter().filter_map(move |instruction| {
        let (new, length) = (position, instruction.length() as u32);
        position += length;
        let Instruction::Copy { old, .. } = *instruction else { return None };
        Some(CopyPart { old, new, length })
    })
}

impl CopyPart {
    /// The parts of it that come from old executables.
    pub(crate) fn alignments(self, old: &[OldExecutable]) -> impl Iterator<Item = Alignment> {
        self.alignments_near(old, &mut 0)
    }

    /// The same where it probably comes from the executable of a number, which is kept up.
    fn alignments_near<'a>(
        self,
        old: &'a [OldExecutable],
        near: &mut usize,
    ) -> impl Iterator<Item = Alignment> + use<'a> {
        let CopyPart { old: start, new, length } = self;
        let range = start..start + u64::from(length);
        cut_image_near(old, range, near).map(move |(space, range)| {
            let place = old[space as usize].start + u64::from(range.start);
            let new = new + (place - start) as u32;
            Alignment { space, old: range.start, new, length: range.end - range.start }
        })
    }
}

/// What correcting one part leaves for the next one.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    references: Vec<Reference>,
    /// Where the last part came from and went to: most parts are near.
    executable: usize,
    old_region: usize,
    new_region: usize,
}

impl Relocator {
    /// What corrects copies into `new`, of which these are all.
    pub(crate) fn new(
        old: Arc<Vec<OldExecutable>>,
        new: Space,
        copies: impl Iterator<Item = CopyPart>,
    ) -> Relocator {
        let mut near = 0;
        let alignments = copies.flat_map(|copy| copy.alignments_near(&old, &mut near));
        let map = SpotMap::new(&old, &new, alignments);
        Relocator { old, new, map }
    }

    /// The spot that the map predicts for an old one, as far as anything is known of it.
    pub(crate) fn predict(&self, space: u32, target: u32) -> u32 {
        self.map.follow(space, target).unwrap_or(target)
    }

    /// Tells how far the new spot of a target is from the predicted one.
    pub(crate) fn tell(&mut self, space: u32, target: u32, change: i64) {
        let place = i64::from(self.predict(space, target)).wrapping_add(change);
        self.map.tell(space, target, place as u32);
    }

    /// Corrects the references in `bytes`, the old bytes of a part. `value` gets what each one is
    /// predicted to be, in order, and gives what it really is.
    pub(crate) fn relocate(
        &self,
        part: CopyPart,
        bytes: &mut [u8],
        scratch: &mut Scratch,
        mut value: impl FnMut(&Predicted) -> u64,
    ) {
        let Scratch { references, executable, old_region, new_region } = scratch;
        for alignment in part.alignments_near(&self.old, executable) {
            let Alignment { space, old, new, length } = alignment;
            let from = &self.old[space as usize];
            let known = self.map.of(space);
            let start = (from.start + u64::from(old) - part.old) as usize;
            for (region, range) in from.space.cut_near(old..old + length, old_region) {
                let place = new + (range.start - old);
                let number = self.new.region_near(place, new_region);
                let Some(to) = self.new.regions.get(number) else { continue };
                let inside = start + (range.start - old) as usize;
                let bytes = &mut bytes[inside..inside + range.len()];
                references.clear();
                let offset = range.start - region.start;
                scan(&from.space, region, offset, bytes, |reference| references.push(reference));
                // Where the first byte was, and where it goes.
                let (from_spot, to_spot) = (region.spot + offset, to.spot + (place - to.start));
                let itself = shift(from_spot, to_spot);
                let moved = Moved([
                    from.space.base.wrapping_sub(self.new.base) as i64,
                    itself,
                    itself,
                    shift(region.spot, to.spot),
                    self.names_moved(&from.space, region, to),
                    0,
                ]);
                for (number, reference) in references.iter().enumerate() {
                    if let (Some(known), Some(ahead)) = (known, references.get(number + AHEAD)) {
                        known.prepare(ahead.target);
                    }
                    let Reference { at, field, target, origin } = *reference;
                    let backwards = origin == Origin::Behind;
                    // What stays together moves along, whatever else was copied from there.
                    let along = target.wrapping_sub(from_spot) < range.len() as u32;
                    let new_target = match along {
                        true => (i64::from(target) + itself) as u32,
                        false => known.and_then(|known| known.follow(target)).unwrap_or(target),
                    };
                    let predicted = Predicted {
                        at: inside + at,
                        field,
                        spot: to_spot.wrapping_add(at as u32),
                        space,
                        target,
                        along,
                        backwards,
                        value: moved.predict(
                            reference,
                            field.read(bytes, at, from_spot.wrapping_add(at as u32)),
                            new_target,
                        ),
                    };
                    let real = value(&predicted);
                    field.write(bytes, at, predicted.spot, real);
                }
            }
        }
    }

    /// Rewrites the references in literals for `place`, so that the same is said in the same way.
    pub(crate) fn make_alike(&self, place: u32, bytes: &mut [u8]) {
        self.each_literal(place, bytes, scan::make_alike);
    }

    /// Undoes [`Relocator::make_alike`].
    pub(crate) fn make_different(&self, place: u32, bytes: &mut [u8]) {
        self.each_literal(place, bytes, scan::make_different);
    }

    fn each_literal(
        &self,
        place: u32,
        bytes: &mut [u8],
        change: fn(&Space, &Region, u32, &mut [u8]),
    ) {
        for (region, range) in self.new.cut(place..place + bytes.len() as u32) {
            let inside = (range.start - place) as usize..(range.end - place) as usize;
            change(&self.new, region, range.start - region.start, &mut bytes[inside]);
        }
    }

    /// The stretches of a part, as they lie in it, whose bytes are told as they are where they
    /// differ.
    pub(crate) fn told_as_they_are(&self, part: CopyPart) -> impl Iterator<Item = Range<usize>> {
        part.alignments(&self.old).flat_map(move |alignment| {
            let Alignment { space, old, length, .. } = alignment;
            let from = &self.old[space as usize];
            let start = (from.start + u64::from(old) - part.old) as usize;
            let strings = |(region, _): &(&Region, _)| region.kind == RegionKind::Strings;
            from.space.cut(old..old + length).filter(strings).map(move |(_, range)| {
                let inside = start + (range.start - old) as usize;
                inside..inside + range.len()
            })
        })
    }

    fn names_moved(&self, from: &Space, region: &Region, to: &Region) -> i64 {
        let old = from.regions.get(region.link as usize);
        let new = self.new.regions.get(to.link as usize);
        old.zip(new).map_or(0, |(old, new)| shift(old.spot, new.spot))
    }
}

/// A reference, and what it was predicted to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Predicted {
    /// Where it is in the part.
    pub(crate) at: usize,
    pub(crate) field: Field,
    /// The spot that it gets.
    spot: u32,
    /// The old executable and the spot in it that it refers to.
    pub(crate) space: u32,
    pub(crate) target: u32,
    /// Whether the target is in the same part and moves along: nothing that is told changes that.
    pub(crate) along: bool,
    /// Whether its value grows as its target goes back.
    pub(crate) backwards: bool,
    pub(crate) value: u64,
}

impl Predicted {
    /// The value in its place in `bytes`, which are those of the part.
    #[inline]
    pub(crate) fn real(&self, bytes: &[u8]) -> u64 {
        self.field.read(bytes, self.at, self.spot)
    }

    /// How far `real` is from what was predicted.
    pub(crate) fn miss(&self, real: u64) -> i64 {
        let miss = real.wrapping_sub(self.value) as i64;
        if self.field.is_word() { i64::from(miss as i32) } else { miss }
    }
}

fn shift(from: u32, to: u32) -> i64 {
    i64::from(to) - i64::from(from)
}

/// How far the origins of references moved, in the order of [`Origin`].
struct Moved([i64; 6]);

impl Moved {
    fn predict(&self, reference: &Reference, value: u64, new_target: u32) -> u64 {
        let target = shift(reference.target, new_target);
        let change = target.wrapping_sub(self.0[reference.origin as usize]);
        let change = match reference.origin {
            Origin::Behind => change.wrapping_neg(),
            _ => change,
        };
        let value = value.wrapping_add(change as u64);
        match reference.field.is_word() {
            true => value & 0xffff_ffff,
            false => value,
        }
    }
}
