//! The second look, where more than little is left: it is looked up in all of the old tree, and what is
//! left even then is searched for short agreements with any of the old bytes.

use std::ops::Range;
use std::sync::Arc;

use inflight::Buffer;

use super::super::DiffReport;
use super::super::drafts::{Draft, Kept, Room};
use super::super::effort::Effort;
use super::super::known::Known;
use super::super::left::{self, Amount, Best, Hits, Left, LeftIndex};
use super::super::patchwork::{Found, Patchwork};
use super::super::plan::Plan;
use super::completion::Completion;
use crate::align::anchor::Sampling;
use crate::error::Result;
use crate::image::Image;
use crate::job::Job;
use crate::pump::pump;

/// The old units are looked through in so many parts, each of which is spread over all of them, and first
/// one, then two of them, four, and all.
const PARTS: usize = 8;
/// That goes on where the rest would find one byte in so many of what is left, if it found as much as
/// the parts looked through last.
const FOUND: u64 = 32;

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
    let is_much = |drafts: &[Draft]| {
        let left = drafts.iter().map(Draft::literal_bytes).sum();
        left::is_much(left, old.layout.bytes)
    };
    let Some(sampling) = effort.far.filter(|_| is_much(&drafts)) else {
        return Ok((drafts, completion));
    };
    let drafts = look_up(job, drafts, &completion, plan).await?;
    let (mut found, mut memory) = (Vec::new(), None);
    if is_much(&drafts) {
        // Half of what holds old units is for the search.
        let (first, units) = plan.old_units;
        known.image.hold_at_most((first / 2, units / 2));
        let pool = job.handle.pool();
        if let Some(reserved) = pool.try_reserve(plan.search_bytes) {
            found = search(job, &old, completion.image(), &drafts, sampling, plan, report).await?;
            drop(reserved);
            memory = pool.try_reserve((found.len() * size_of::<Found>()) as u64);
        }
        known.image.hold_at_most(plan.old_units);
    }
    Ok((drafts, completion.with_found(found, memory)))
}

/// Matches what is left of drafts again that have not seen all of the old tree, and copies that are short.
async fn look_up(
    job: &Job,
    drafts: Vec<Draft>,
    completion: &Completion,
    plan: &Plan,
) -> Result<Vec<Draft>> {
    let new = completion.image();
    let (mut room, mut again) = (Room::new(job, plan), Vec::with_capacity(drafts.len()));
    let start = async |draft: Draft| {
        job.check()?;
        let stretches = if draft.saw_all { Vec::new() } else { draft.patchworks() };
        let buffer = match stretches.iter().map(Patchwork::length).sum::<u64>() {
            0 => None,
            bytes => Some(job.handle.buffer(bytes as usize).await),
        };
        let (new, matcher, hand) = (new.clone(), completion.matcher().clone(), job.crew.hand());
        Ok(job.handle.spawn(async move {
            let Draft { digests, kept, saw_all: _ } = draft;
            let kept = match (kept, buffer) {
                (Some(Kept { matched, reserved }), Some(buffer)) => {
                    let bytes = read_stretches(&new, &stretches, buffer).await?;
                    let again = hand.run(move || matcher.match_again(matched, &bytes)).await?;
                    Some(Kept { matched: again, reserved })
                }
                (kept, _) => kept,
            };
            Ok(Draft { digests, kept, saw_all: true })
        }))
    };
    let finish = async |Draft { digests, kept, saw_all }: Draft| {
        let matched = kept.map(|Kept { matched, reserved: _ }| matched);
        let kept = matched.and_then(|matched| room.keep(matched));
        again.push(Draft { digests, kept, saw_all });
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

/// Reads stretches of literals and short copies, as many as can be indexed with the memory for that.
async fn gather(
    job: &Job,
    new: &Image,
    drafts: &[Draft],
    plan: &Plan,
    sampling: Sampling,
) -> Result<Left> {
    let mut taken = Amount::default();
    let fitting = |draft: &Draft| {
        let mut stretches = draft.patchworks();
        left::fit(&mut stretches, &mut taken, sampling, plan.search_bytes);
        (!stretches.is_empty()).then_some(stretches)
    };
    let units: Vec<Vec<Patchwork>> = drafts.iter().filter_map(fitting).collect();
    let mut left = Left::with_capacity(taken);
    let start = async |stretches: Vec<Patchwork>| {
        job.check()?;
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

/// Looks through the old image for what is left: through some of it first, and through the rest as long
/// as that finds something. Where much is alike, what is in one part is in another as well.
async fn search(
    job: &Job,
    old: &Image,
    new: &Image,
    drafts: &[Draft],
    sampling: Sampling,
    plan: &Plan,
    report: &mut DiffReport,
) -> Result<Vec<Found>> {
    let amounts = drafts.iter().map(|draft| Amount::of(&draft.patchworks()));
    let amount = amounts.fold(Amount::default(), Amount::and);
    let sampling = amount.sampling(sampling, plan.search_bytes);
    report.note_search(job, plan, amount.memory(sampling));
    let left = gather(job, new, drafts, plan, sampling).await?;
    let index = Arc::new(job.crew.hand().run(move || LeftIndex::of(left, sampling)).await);
    if index.is_empty() {
        return Ok(Vec::new());
    }
    let mut best = index.nothing();
    let (mut found, mut gain, mut looked) = (Vec::new(), 0, 0);
    while looked < PARTS {
        let parts = looked..(2 * looked).max(1);
        let units = old.layout.units().enumerate();
        let units = units.filter(|(number, _)| parts.contains(&(number % PARTS)));
        look_through(job, old, units.map(|(_, unit)| unit), &index, &mut best, plan).await?;
        (found, best) = self::found(job, &index, best).await;
        // Longer agreements may leave out what shorter ones had.
        let gained = index.gain(&found).saturating_sub(gain);
        (gain, looked) = (gain + gained, parts.end);
        let expected = gained * (PARTS - parts.end) as u64 / parts.len() as u64;
        if expected * FOUND <= index.literal_bytes() - gain {
            break;
        }
    }
    Ok(found)
}

/// What was found so far; gives `best` back.
async fn found(job: &Job, index: &Arc<LeftIndex>, best: Best) -> (Vec<Found>, Best) {
    let index = index.clone();
    job.crew.hand().run(move || (index.found(&best), best)).await
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
        job.check()?;
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
