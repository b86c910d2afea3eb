//! The second look, where more than little is left: it is looked up in all of the old tree, and what is
//! left even then is searched for short agreements with any of the old bytes.

use std::ops::Range;
use std::sync::Arc;

use inflight::Buffer;

use super::super::DiffReport;
use super::super::effort::Effort;
use super::super::known::{Known, PartDigest};
use super::super::left::{self, Best, Found, Hits, Left, LeftIndex};
use super::super::patchwork::Patchwork;
use super::super::plan::{Plan, WINDOW_BYTES_MAX};
use super::super::unit::Matched;
use super::drafts::{Completion, Draft, Kept, Room};
use crate::align::anchor::Sampling;
use crate::error::Result;
use crate::image::Image;
use crate::job::Job;
use crate::layout::UNIT_BYTES;
use crate::pump::pump;

/// One old unit in so many is looked through first.
const SAMPLED_UNITS: usize = 8;
/// The others are where one byte of what is left in so many was found there.
const FOUND: u64 = 16;

/// Looks again at drafts, if it may pay; what was found by then, `completion` makes use of.
pub(super) async fn second_look(
    job: &Job,
    known: &Arc<Known>,
    drafts: Vec<Draft>,
    completion: Completion,
    effort: Effort,
    plan: &Plan,
    report: &mut DiffReport,
) -> Result<(Vec<Draft>, Completion)> {
    let old = known.image.image().clone();
    let Some(sampling) =
        effort.far.filter(|_| left::is_much(literal_bytes(&drafts), old.layout.bytes))
    else {
        return Ok((drafts, completion));
    };
    let drafts = look_up(job, drafts, &completion, plan).await?;
    let mut found = Vec::new();
    if left::is_much(literal_bytes(&drafts), old.layout.bytes) {
        // Half of what holds old units is for the index.
        let (first, units) = plan.old_units;
        known.image.hold_at_most((first / 2, units / 2));
        let memory = (units - units / 2) as u64 * UNIT_BYTES;
        if let Some(_reserved) = job.handle.pool().try_reserve(memory) {
            let bytes = drafts.iter().map(Draft::patchwork_bytes).sum();
            let sampling = Left::sampling(bytes, sampling);
            let needed = Left::index_bytes(bytes, sampling);
            if (memory + 1..WINDOW_BYTES_MAX / 2).contains(&needed) {
                // Of further memory a third holds old units, and half of that is for the index.
                let more =
                    6 * (needed - memory + UNIT_BYTES) + plan.waiting_bytes + plan.growth_bytes;
                let better = job.handle.pool().budget().limit() + more;
                report.better_memory_bytes = report.better_memory_bytes.max(better);
            }
            let left = gather(job, completion.image(), &drafts, sampling, plan, memory).await?;
            let index = job.crew.hand().run(move || LeftIndex::of(left, sampling)).await;
            found = search(job, &old, &Arc::new(index), plan).await?;
        }
        known.image.hold_at_most(plan.old_units);
    }
    Ok((drafts, completion.with_found(found)))
}

fn literal_bytes(drafts: &[Draft]) -> u64 {
    drafts.iter().flat_map(|draft| &draft.kept).map(Kept::literal_bytes).sum()
}

/// Matches what is left of drafts again, and copies that are short.
async fn look_up(
    job: &Job,
    drafts: Vec<Draft>,
    completion: &Completion,
    plan: &Plan,
) -> Result<Vec<Draft>> {
    let new = completion.image();
    let (mut room, mut again) = (Room::new(job, plan), Vec::with_capacity(drafts.len()));
    let start = async |Draft { digests, kept }: Draft| {
        job.progress.check()?;
        let stretches = kept.as_ref().map_or(Vec::new(), |kept| kept.patchworks());
        let buffer = match stretches.iter().map(Patchwork::length).sum::<u64>() {
            0 => None,
            bytes => Some(job.handle.buffer(bytes as usize).await),
        };
        let (new, matcher, hand) = (new.clone(), completion.matcher().clone(), job.crew.hand());
        Ok(job.handle.spawn(async move {
            let mut matched = kept.map(|kept| kept.matched);
            if let (Some(buffer), Some(before)) =
                (buffer, matched.take_if(|_| !stretches.is_empty()))
            {
                let bytes = read_stretches(&new, &stretches, buffer).await?;
                let again = move || matcher.match_again(before, &bytes);
                matched = Some(hand.run(again).await?);
            }
            Ok((digests, matched))
        }))
    };
    let finish = async |(digests, matched): (Vec<PartDigest>, Option<Matched>)| {
        again.push(Draft { digests, kept: matched.and_then(|matched| room.keep(matched)) });
        Ok(())
    };
    pump(drafts, plan.depth, start, finish).await?;
    Ok(again)
}

/// Appends stretches of the new image to `buffer`, one behind the other.
async fn read_stretches(new: &Image, stretches: &[Patchwork], buffer: Buffer) -> Result<Buffer> {
    let ranges: Vec<Range<u64>> = stretches.iter().map(|stretch| stretch.range.clone()).collect();
    new.read_ranges(&ranges, buffer).await
}

/// Reads the stretches of literals and short copies, as many as can be searched for in so much
/// memory.
async fn gather(
    job: &Job,
    new: &Image,
    drafts: &[Draft],
    sampling: Sampling,
    plan: &Plan,
    memory: u64,
) -> Result<Left> {
    let mut left = Left::default();
    let most = Left::fitting(memory, sampling);
    let mut planned = 0;
    let units = drafts.iter().filter_map(|draft| {
        let mut stretches = draft.kept.as_ref()?.patchworks();
        stretches.retain(|stretch| {
            let fits = planned + stretch.length() <= most;
            planned += if fits { stretch.length() } else { 0 };
            fits
        });
        (!stretches.is_empty()).then_some(stretches)
    });
    let start = async |stretches: Vec<Patchwork>| {
        job.progress.check()?;
        let bytes: u64 = stretches.iter().map(Patchwork::length).sum();
        let (new, buffer) = (new.clone(), job.handle.buffer(bytes as usize).await);
        Ok(job.handle.spawn(async move {
            let bytes = read_stretches(&new, &stretches, buffer).await?;
            Ok((stretches, bytes))
        }))
    };
    let finish = async |(stretches, bytes): (Vec<Patchwork>, Buffer)| {
        let mut rest = &bytes[..];
        for stretch in stretches {
            let (bytes, behind) = rest.split_at(stretch.length() as usize);
            left.add(stretch.range.start, &stretch.literals, bytes);
            rest = behind;
        }
        Ok(())
    };
    pump(units, plan.depth, start, finish).await?;
    Ok(left)
}

/// Looks through the old image for what is left: through some of it first, and through the rest if
/// something was found there.
async fn search(job: &Job, old: &Image, index: &Arc<LeftIndex>, plan: &Plan) -> Result<Vec<Found>> {
    let mut best = index.nothing();
    let all = || old.layout.units().enumerate();
    let sample = all().filter(|(number, _)| number % SAMPLED_UNITS == 0);
    look_through(job, old, sample.map(|(_, unit)| unit), index, &mut best, plan).await?;
    let found = index.found(&best);
    if index.gain(&found) * FOUND < index.literal_bytes() {
        return Ok(found);
    }
    let rest = all().filter(|(number, _)| number % SAMPLED_UNITS != 0);
    look_through(job, old, rest.map(|(_, unit)| unit), index, &mut best, plan).await?;
    Ok(index.found(&best))
}

async fn look_through(
    job: &Job,
    old: &Image,
    units: impl Iterator<Item = Range<u64>>,
    index: &Arc<LeftIndex>,
    best: &mut Best,
    plan: &Plan,
) -> Result<()> {
    let start = async |unit: Range<u64>| {
        job.progress.check()?;
        let buffer = job.handle.buffer((unit.end - unit.start) as usize).await;
        let (old, hand, index) = (old.clone(), job.crew.hand(), index.clone());
        Ok(job.handle.spawn(async move {
            let base = unit.start;
            let bytes = old.read(unit, buffer).await?;
            Ok(hand.run(move || index.agreements(&bytes, base)).await)
        }))
    };
    let finish = async |hits: Hits| {
        best.add(hits);
        Ok(())
    };
    pump(units, plan.depth, start, finish).await
}
