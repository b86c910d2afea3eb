//! Both trees in memory: read once, one after the other, and then worked on as a whole.

use std::ops::Range;
use std::sync::Arc;

use inflight::{Arena, ArenaBytes, Buffer};
use rayon::prelude::*;

use super::DiffReport;
use super::digests::Gathering;
use super::effort::Effort;
use super::executables;
use super::far::FarIndex;
use super::group::Group;
use super::index::Signature;
use super::known::{Known, PartDigest, Signed, Whole};
use super::matching::signatures;
use super::old::OldImage;
use super::output::Output;
use super::plan::Plan;
use super::unit::{Given, Matched, UnitMatcher};
use crate::error::{Error, Result};
use crate::format::PatchWriter;
use crate::image::Image;
use crate::job::{Job, Phase};
use crate::pump::{pump, pump_image};
use crate::transform::references::space::{OldExecutable, cut_image};

/// Units of the old image whose chunks are cut before they are put into the index.
const UNITS_INDEXED_AT_ONCE: usize = 64;
/// One changed unit in so many is looked at to see how much is left.
const SAMPLED_UNITS: usize = 8;
/// What is left is looked for everywhere where it is more than one byte in so many.
const LEFT: u64 = 100;

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
    let work = move || -> Result<(Work, Vec<Vec<Group>>)> {
        let made = executables::run(&pool, &mut known.image, &image, &mut whole, effort);
        // What is not made from old executables is looked for in their chunks.
        let old_executables = if made.groups.is_empty() { &[] } else { &made.old[..] };
        index(&known, old_executables);
        let (known, ranges) = (Arc::new(known), executables::ranges(&made.groups));
        let mut matcher = UnitMatcher::new(image.clone(), known.clone(), ranges, effort);
        if let (Some(sampling), Some(old)) = (effort.far, known.image.whole_bytes())
            && is_much_left(&matcher, &image, &whole)?
            && let Some(far) = FarIndex::of(&pool, old, old_executables, sampling)
        {
            matcher = matcher.with_far(far);
        }
        Ok((Work { known, whole: Arc::new(whole), matcher }, made.groups))
    };
    let (work, made) = job.crew.hand().run(work).await?;
    match_all(job, new, work, made, plan, output, report).await
}

/// Both trees as they were read, and what matches them.
struct Work {
    known: Arc<Known>,
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

/// Whether much of the new image stays unmatched, by a sample of the units that changed.
fn is_much_left(matcher: &UnitMatcher, image: &Image, new: &Whole) -> Result<bool> {
    let units: Vec<(usize, Range<u64>)> = image.layout.units().enumerate().collect();
    let changed = |(number, range): &&(usize, Range<u64>)| {
        new.digests[*number].iter().any(|part| part.old_file.is_none())
            && matcher.executable_at(range).is_none()
    };
    let sample: Vec<_> = units.iter().filter(changed).step_by(SAMPLED_UNITS).collect();
    let looked = sample.into_par_iter().map(|(number, range)| -> Result<(u64, u64)> {
        let bytes = &new.bytes[range.start as usize..range.end as usize];
        let given = Given { digests: Some(&new.digests[*number]), horizon: u64::MAX };
        let matched = matcher.unit(range.clone(), bytes, given)?;
        Ok((matched.literal_bytes(), matched.bytes))
    });
    let sum = |a: (u64, u64), b: (u64, u64)| Ok((a.0 + b.0, a.1 + b.1));
    let (left, all) = looked.try_reduce(Default::default, sum)?;
    Ok(left * LEFT > all)
}

/// Matches the new tree unit by unit and writes the groups that make it, in order: those of
/// executables are `made` already.
async fn match_all(
    job: &Job,
    image: Image,
    work: Work,
    made: Vec<Vec<Group>>,
    plan: &Plan,
    mut output: Output,
    report: &mut DiffReport,
) -> Result<PatchWriter> {
    job.progress.enter(Phase::Match);
    let Work { known, whole, matcher } = work;
    let mut made = made.into_iter();
    let mut digests = Gathering::default();
    let finish = async |matched: Matched| {
        output.add_unit(&matched.pieces, &mut made, report).await?;
        digests.add(&known, &image, &matched.digests);
        job.progress.advance(matched.bytes);
        Ok(())
    };
    let start = async |(number, range): (usize, Range<u64>)| {
        job.progress.check()?;
        let (whole, matcher) = (whole.clone(), matcher.clone());
        Ok(job.crew.hand().run(move || {
            let bytes = &whole.bytes[range.start as usize..range.end as usize];
            let given = Given { digests: Some(&whole.digests[number]), horizon: u64::MAX };
            matcher.unit(range.clone(), bytes, given)
        }))
    };
    pump(image.layout.units().enumerate(), plan.depth, start, finish).await?;
    output.finish((&known.digests(), &digests.finish()), report).await
}
