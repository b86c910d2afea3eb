//! Both trees in memory: read once, one after the other, and then worked on as a whole.

use std::ops::Range;
use std::sync::Arc;

use inflight::{Arena, ArenaBytes, Buffer, Pool};
use rayon::prelude::*;

use super::DiffReport;
use super::digests::Gathering;
use super::effort::Effort;
use super::executables;
use super::far::FarIndex;
use super::group::Group;
use super::index::Signature;
use super::known::{Known, PartDigest, Signed, Whole};
use super::left::{self, Found, Hits, Left, LeftIndex};
use super::matching::signatures;
use super::old::OldImage;
use super::output::Output;
use super::patchwork::Patchwork;
use super::plan::Plan;
use super::unit::{Given, Matched, UnitMatcher};
use crate::align::anchor::Sampling;
use crate::error::{Error, Result};
use crate::format::{FileDigest, PatchWriter};
use crate::image::Image;
use crate::job::{Job, Phase};
use crate::layout::UNIT_BYTES;
use crate::pump::{pump, pump_image};
use crate::transform::references::space::{OldExecutable, cut_image};

/// Units of the old image whose chunks are cut before they are put into the index.
const UNITS_INDEXED_AT_ONCE: usize = 64;
/// What is left is indexed, and not the old image, where that is so many times as long.
const SIDES: u64 = 4;

/// Reads both trees and writes the groups that make the new one.
pub(super) async fn run(
    job: &Job,
    old: Image,
    new: Image,
    effort: Effort,
    plan: &Plan,
    output: Output,
    report: &mut DiffReport,
) -> Result<PatchWriter> {
    let known = Arc::new(read_old(job, old, plan).await?);
    let mut whole = read_new(job, &new, known.clone()).await?;
    let mut known = Arc::into_inner(known).expect("the pass that shared it has ended");
    let (image, pool) = (new.clone(), job.handle.pool().clone());
    let work = move || {
        let made = executables::run(&pool, &mut known.image, &image, &mut whole, effort);
        // What is not made from old executables is looked for in their chunks.
        let executables = if made.groups.is_empty() { Arc::default() } else { made.old };
        index(&known, &executables);
        let (known, ranges) = (Arc::new(known), executables::ranges(&made.groups));
        let matcher = UnitMatcher::new(image, known.clone(), ranges, effort);
        (Work { known, executables, whole: Arc::new(whole), matcher }, made.groups)
    };
    let (work, made) = job.crew.hand().run(work).await;
    let (units, digests) = match_all(job, &new, &work, plan).await?;
    let (pool, search) = (job.handle.pool().clone(), work.clone());
    let search = move || search.search(&pool, units, effort);
    let (units, found) = job.crew.hand().run(search).await?;
    write(job, work, (units, found), made, digests, plan, output, report).await
}

/// Both trees as they were read, and what matches them. Cheap to clone.
#[derive(Clone)]
struct Work {
    known: Arc<Known>,
    /// Old executables that new ones are made from.
    executables: Arc<Vec<OldExecutable>>,
    whole: Arc<Whole>,
    matcher: UnitMatcher,
}

/// Reads the old tree once, all of it into memory.
async fn read_old(job: &Job, image: Image, plan: &Plan) -> Result<Known> {
    job.progress.enter(Phase::ReadOld);
    let mut arena = arena(job, &image)?;
    let place = image.clone();
    let mut all = Vec::new();
    let work = move |range, buffer: Buffer| {
        Ok((Signed::of(&place, &range, &buffer, None), buffer.len() as u64))
    };
    let finish = async |(signed, bytes): (Signed, u64)| {
        all.push(signed);
        job.progress.advance(bytes);
        Ok(())
    };
    pump_image(job, &image, plan.depth, Some(&mut arena), work, finish).await?;
    let known = Known::new(OldImage::whole(image, finished(arena)), plan);
    all.iter().for_each(|signed| signed.set_digests(&known.units));
    Ok(known)
}

/// Puts the chunks of an old image in memory into the index, but for those of executables that new
/// ones are made from. Work for the crew, on all of its threads.
fn index(known: &Known, executables: &[OldExecutable]) {
    let layout = &known.image.image().layout;
    let Some(bytes) = known.image.whole_bytes() else { return };
    let units: Vec<Range<u64>> = layout.units().collect();
    for units in units.chunks(UNITS_INDEXED_AT_ONCE) {
        let found: Vec<Vec<Signature>> = units
            .par_iter()
            .map(|unit| {
                let mut found = Vec::new();
                for part in layout.parts(unit) {
                    let start = unit.start + part.inside.start as u64;
                    let end = unit.start + part.inside.end as u64;
                    if cut_image(executables, start..end).next().is_none() {
                        let bytes = &bytes[start as usize..end as usize];
                        signatures(bytes, start, known.sizes, &mut found);
                    }
                }
                found
            })
            .collect();
        found.iter().for_each(|found| known.index.insert(found));
    }
}

/// Memory for a whole image.
fn arena(job: &Job, image: &Image) -> Result<Arena> {
    let pool = job.handle.pool();
    let bytes = image.layout.bytes;
    pool.try_arena(bytes as usize).ok_or_else(|| Error::Memory {
        needed_mib: (pool.budget().used() + bytes).div_ceil(1 << 20),
        given_mib: pool.budget().limit() >> 20,
    })
}

fn finished(arena: Arena) -> ArenaBytes {
    arena.finish().expect("a pass that has ended holds no buffers")
}

/// Reads the new tree once, all of it into memory; what is as it was is not hashed again.
async fn read_new(job: &Job, image: &Image, known: Arc<Known>) -> Result<Whole> {
    job.progress.enter(Phase::ReadNew);
    let mut arena = arena(job, image)?;
    let mut digests = Vec::new();
    let place = image.clone();
    let work = move |range: Range<u64>, buffer: Buffer| {
        let mut digests = Vec::new();
        for part in place.layout.parts(&range) {
            digests.push(known.part_digest(&place, &part, &buffer[part.inside.clone()])?);
        }
        Ok((digests, buffer.len() as u64))
    };
    let finish = async |(found, bytes): (Vec<PartDigest>, u64)| {
        digests.push(found);
        job.progress.advance(bytes);
        Ok(())
    };
    pump_image(job, image, job.depth(), Some(&mut arena), work, finish).await?;
    Ok(Whole { bytes: finished(arena), digests })
}

impl Work {
    /// Matches a unit; long literals are left out.
    fn unit(&self, matcher: &UnitMatcher, number: usize, range: Range<u64>) -> Result<Matched> {
        let bytes = &self.whole.bytes[range.start as usize..range.end as usize];
        let given = Given { digests: Some(&self.whole.digests[number]), horizon: u64::MAX };
        Ok(matcher.unit(range, bytes, given)?.without_literals())
    }

    /// Looks through all of the old image for what is left of the units, if that is much: whichever
    /// is less is indexed, what is left or the old image. Gives units that may be made of more copies,
    /// or what was found for them. Work for the crew, on all of its threads.
    fn search(
        &self,
        pool: &Pool,
        units: Vec<Matched>,
        effort: Effort,
    ) -> Result<(Vec<Matched>, Vec<Found>)> {
        let literal_bytes = units.iter().map(Matched::literal_bytes).sum();
        let (Some(sampling), Some(old)) = (effort.far, self.known.image.whole_bytes()) else {
            return Ok((units, Vec::new()));
        };
        if !left::is_much(literal_bytes, old.len() as u64) {
            return Ok((units, Vec::new()));
        }
        let stretches: Vec<Patchwork> = units.iter().flat_map(Matched::patchworks).collect();
        let bytes = stretches.iter().map(Patchwork::length).sum::<u64>();
        if bytes * SIDES <= old.len() as u64 {
            return Ok((units, self.search_left(pool, old, &stretches, sampling)));
        }
        let Some(far) = FarIndex::of(pool, old, &self.executables, sampling) else {
            return Ok((units, Vec::new()));
        };
        let matcher = self.matcher.clone().with_far(far);
        let ranges: Vec<Range<u64>> = self.matcher.image().layout.units().collect();
        let again =
            |((number, range), unit): ((usize, Range<u64>), Matched)| match unit.literal_bytes() {
                0 => Ok(unit),
                _ => self.unit(&matcher, number, range),
            };
        let units = ranges.into_par_iter().enumerate().zip(units).map(again);
        Ok((units.collect::<Result<_>>()?, Vec::new()))
    }

    /// Looks through the old image for stretches of the new one.
    fn search_left(
        &self,
        pool: &Pool,
        old: &[u8],
        stretches: &[Patchwork],
        sampling: Sampling,
    ) -> Vec<Found> {
        let bytes = stretches.iter().map(Patchwork::length).sum();
        let sampling = Left::sampling(bytes, sampling);
        let Some(_reserved) = pool.try_reserve(Left::index_bytes(bytes, sampling)) else {
            return Vec::new();
        };
        let mut left = Left::default();
        for stretch in stretches {
            let range = stretch.range.start as usize..stretch.range.end as usize;
            left.add(stretch.range.start, &stretch.literals, &self.whole.bytes[range]);
        }
        let index = LeftIndex::of(left, sampling);
        let units = old.par_chunks(UNIT_BYTES as usize).enumerate();
        let look =
            |(number, bytes): (usize, &[u8])| index.agreements(bytes, number as u64 * UNIT_BYTES);
        let hits: Vec<Hits> = units.map(look).collect();
        let mut best = index.nothing();
        hits.into_iter().for_each(|hits| best.add(hits));
        index.found(&best)
    }
}

/// Matches the new tree unit by unit; gives what is made of the units, and the digests of files.
async fn match_all(
    job: &Job,
    image: &Image,
    work: &Work,
    plan: &Plan,
) -> Result<(Vec<Matched>, Vec<FileDigest>)> {
    job.progress.enter(Phase::Match);
    let (mut units, mut digests) = (Vec::new(), Gathering::default());
    let finish = async |matched: Matched| {
        digests.add(&work.known, image, &matched.digests);
        job.progress.advance(matched.bytes);
        units.push(matched);
        Ok(())
    };
    let start = async |(number, range): (usize, Range<u64>)| {
        job.progress.check()?;
        let work = work.clone();
        Ok(job.crew.hand().run(move || work.unit(&work.matcher, number, range)))
    };
    pump(image.layout.units().enumerate(), plan.depth, start, finish).await?;
    Ok((units, digests.finish()))
}

/// Writes the groups that make the units, in order: those of executables are `made` already.
#[allow(clippy::too_many_arguments, reason = "all that was made, and where it goes")]
async fn write(
    job: &Job,
    work: Work,
    (units, found): (Vec<Matched>, Vec<Found>),
    made: Vec<Vec<Group>>,
    digests: Vec<FileDigest>,
    plan: &Plan,
    mut output: Output,
    report: &mut DiffReport,
) -> Result<PatchWriter> {
    let (mut made, found) = (made.into_iter(), Arc::new(found));
    let start = async |mut unit: Matched| {
        job.progress.check()?;
        let (whole, found) = (work.whole.clone(), found.clone());
        Ok(job.crew.hand().run(move || {
            unit.put_back(|range| &whole.bytes[range.start as usize..range.end as usize]);
            Ok(unit.with_found(&found))
        }))
    };
    let finish = async |unit: Matched| output.add_unit(&unit.pieces, &mut made, report).await;
    pump(units, plan.depth, start, finish).await?;
    output.finish((&work.known.digests(), &digests), report).await
}
