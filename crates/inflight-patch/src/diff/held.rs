//! Both trees in memory: read once, one after the other, and then worked on as a whole.

use std::ops::Range;
use std::sync::Arc;

use inflight::{Arena, ArenaBytes, Buffer, Pool};
use rayon::prelude::*;

use super::DiffReport;
use super::digests::{Digested, Gathering};
use super::drafts::{Draft, Kept, Room};
use super::effort::Effort;
use super::executables;
use super::far::FarIndex;
use super::group::Group;
use super::index::Signature;
use super::known::{Known, PartDigest, Signed, Whole};
use super::left::{self, Amount, Hits, Left, LeftIndex};
use super::matching::signatures;
use super::old::OldImage;
use super::output::Output;
use super::patchwork::{Found, Patchwork};
use super::plan::Plan;
use super::unit::{Given, Matched, UnitMatcher};
use crate::align::anchor::Sampling;
use crate::error::{Error, Result};
use crate::format::PatchWriter;
use crate::image::Image;
use crate::job::{Job, Phase};
use crate::layout::UNIT_BYTES;
use crate::manifest::Digest;
use crate::pump::{pump, pump_image};
use crate::transform::references::space::{OldExecutable, cut_image};

/// Units of the old image whose chunks are cut before they are put into the index.
const UNITS_INDEXED_AT_ONCE: usize = 64;
/// Units of the old image looked through before what was found is taken note of.
const UNITS_SEARCHED_AT_ONCE: usize = 16;
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
    let known = Arc::new(read_old(job, old, &new, plan).await?);
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
        let (whole, is_matched_again, found) = (Arc::new(whole), false, Arc::default());
        (Work { known, executables, whole, matcher, is_matched_again, found }, made.groups)
    };
    let (work, made) = job.crew.hand().run(work).await;
    let (drafts, digests) = match_all(job, &new, &work, plan).await?;
    let search = work.search(job, &drafts, effort, plan, report);
    let work = match search {
        Search::None => work,
        other => {
            let (pool, work) = (job.handle.pool().clone(), work);
            job.crew.hand().run(move || work.after(other, &pool)).await
        }
    };
    write(job, work, drafts, made, digests, plan, output, report).await
}

/// Both trees as they were read, and what matches them. Cheap to clone.
#[derive(Clone)]
struct Work {
    known: Arc<Known>,
    /// Old executables that new ones are made from.
    executables: Arc<Vec<OldExecutable>>,
    whole: Arc<Whole>,
    matcher: UnitMatcher,
    /// Whether the matcher has learned more since units were matched.
    is_matched_again: bool,
    /// What was found of what was left.
    found: Arc<[Found]>,
}

/// Reads the old tree once, all of it into memory.
async fn read_old(job: &Job, image: Image, new: &Image, plan: &Plan) -> Result<Known> {
    job.enter(Phase::ReadOld);
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
    let known = Known::new(OldImage::whole(image, finished(arena)), new, plan);
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
    job.enter(Phase::ReadNew);
    let mut arena = arena(job, image)?;
    let mut digests = Vec::new();
    let place = image.clone();
    let work = move |range: Range<u64>, buffer: Buffer| {
        let mut digests = Vec::new();
        for part in place.layout.parts(&range) {
            digests.push(known.part_digest(&part, &buffer[part.inside.clone()])?);
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

/// How what is left is looked for in all of the old image.
enum Search {
    /// There is little of it.
    None,
    /// These stretches of the new image are indexed, and looked for in the old one.
    Left(Vec<Patchwork>, Sampling),
    /// The old image is indexed, and what is left looked up in that.
    Far(Sampling),
}

impl Work {
    /// Matches a unit.
    fn unit(&self, number: usize, range: Range<u64>) -> Result<Matched> {
        let bytes = &self.whole.bytes[range.start as usize..range.end as usize];
        let given = Given { digests: Some(&self.whole.digests[number]), horizon: u64::MAX };
        self.matcher.unit(range, bytes, given)
    }

    /// Whichever is less is indexed: what is left, or the old image.
    fn search(
        &self,
        job: &Job,
        drafts: &[Draft],
        effort: Effort,
        plan: &Plan,
        report: &mut DiffReport,
    ) -> Search {
        let old = self.known.image.bytes();
        let literal_bytes = drafts.iter().map(Draft::literal_bytes).sum();
        let Some(sampling) = effort.far.filter(|_| left::is_much(literal_bytes, old)) else {
            return Search::None;
        };
        let mut stretches: Vec<Patchwork> = drafts.iter().flat_map(Draft::patchworks).collect();
        let bytes = stretches.iter().map(Patchwork::length).sum::<u64>();
        let amount = Amount::of(&stretches);
        if bytes * SIDES > old {
            report.note_search(job, plan, FarIndex::bytes(old, sampling));
            return Search::Far(sampling);
        }
        let sampling = amount.sampling(sampling, plan.search_bytes);
        report.note_search(job, plan, amount.memory(sampling));
        left::fit(&mut stretches, &mut Amount::default(), sampling, plan.search_bytes);
        Search::Left(stretches, sampling)
    }

    /// Searches. Work for the crew, on all of its threads.
    fn after(mut self, search: Search, pool: &Pool) -> Work {
        let Some(old) = self.known.image.whole_bytes() else { return self };
        match search {
            Search::None => {}
            Search::Left(stretches, sampling) => {
                self.found = self.search_left(pool, old, &stretches, sampling).into();
            }
            Search::Far(sampling) => {
                if let Some(far) = FarIndex::of(pool, old, &self.executables, sampling) {
                    self.matcher = self.matcher.clone().with_far(far);
                    self.is_matched_again = true;
                }
            }
        }
        self
    }

    /// Looks through the old image for stretches of the new one.
    fn search_left(
        &self,
        pool: &Pool,
        old: &[u8],
        stretches: &[Patchwork],
        sampling: Sampling,
    ) -> Vec<Found> {
        let amount = Amount::of(stretches);
        let Some(_reserved) = pool.try_reserve(amount.memory(sampling)) else {
            return Vec::new();
        };
        let mut left = Left::with_capacity(amount);
        for stretch in stretches {
            let range = stretch.range.start as usize..stretch.range.end as usize;
            left.add(stretch.range.start, &stretch.literals, &self.whole.bytes[range]);
        }
        let index = LeftIndex::of(left, sampling);
        let mut best = index.nothing();
        let units: Vec<&[u8]> = old.chunks(UNIT_BYTES as usize).collect();
        for (number, units) in units.chunks(UNITS_SEARCHED_AT_ONCE).enumerate() {
            let first = number * UNITS_SEARCHED_AT_ONCE;
            let look = |(number, bytes): (usize, &&[u8])| {
                index.agreements(bytes, (first + number) as u64 * UNIT_BYTES)
            };
            let hits: Vec<Hits> = units.par_iter().enumerate().map(look).collect();
            hits.into_iter().for_each(|hits| best.add(hits));
        }
        index.found(&best)
    }

    /// What is made of a unit in the end.
    fn completed(&self, number: usize, range: Range<u64>, draft: Draft) -> Result<Matched> {
        let is_final = |kept: &Kept| !self.is_matched_again || kept.matched.literal_bytes() == 0;
        let Some(kept) = draft.kept.filter(is_final) else {
            return Ok(self.unit(number, range)?.with_found(&self.found));
        };
        let mut matched = kept.matched;
        matched.put_back(|range| &self.whole.bytes[range.start as usize..range.end as usize]);
        Ok(matched.with_found(&self.found))
    }
}

/// Matches the new tree unit by unit; gives what is made of the units, and the digests of files.
async fn match_all(
    job: &Job,
    image: &Image,
    work: &Work,
    plan: &Plan,
) -> Result<(Vec<Draft>, Vec<Digest>)> {
    job.enter(Phase::Match);
    let (mut room, mut drafts) = (Room::new(job, plan), Vec::new());
    let mut digests = Gathering::default();
    let finish = async |matched: Matched| {
        digests.add(image, &matched.digests);
        job.progress.advance(matched.bytes);
        let kept = room.keep(matched);
        drafts.push(Draft { digests: Vec::new(), kept, saw_all: true });
        Ok(())
    };
    let start = async |(number, range): (usize, Range<u64>)| {
        job.check()?;
        let work = work.clone();
        Ok(job.crew.hand().run(move || work.unit(number, range)))
    };
    pump(image.layout.units().enumerate(), plan.depth, start, finish).await?;
    Ok((drafts, digests.finish()))
}

/// Writes the groups that make the units, in order: those of executables are `made` already.
#[allow(clippy::too_many_arguments, reason = "all that was made, and where it goes")]
async fn write(
    job: &Job,
    work: Work,
    drafts: Vec<Draft>,
    made: Vec<Vec<Group>>,
    digests: Vec<Digest>,
    plan: &Plan,
    mut output: Output,
    report: &mut DiffReport,
) -> Result<PatchWriter> {
    let (old, new) = (work.known.image.image(), work.matcher.image());
    let digested = Digested::new((old, &work.known.digests()), (new, &digests));
    output.add_manifests(old, new, &digested).await?;
    let mut made = made.into_iter();
    let start = async |((number, range), draft): ((usize, Range<u64>), Draft)| {
        job.check()?;
        let work = work.clone();
        Ok(job.crew.hand().run(move || work.completed(number, range, draft)))
    };
    let finish = async |unit: Matched| output.add_unit(&unit.pieces, &mut made, report).await;
    let units = work.matcher.image().layout.units().enumerate();
    pump(units.zip(drafts), plan.depth, start, finish).await?;
    output.finish(&digested, report).await
}
