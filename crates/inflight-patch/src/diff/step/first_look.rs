//! The first look: both trees are read in step, and the new one is matched with what is known of the
//! old one by then.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use inflight::Buffer;
use inflight::stream::Ordered;

use super::super::counterparts::Counterparts;
use super::super::drafts::{Draft, Room};
use super::super::effort::Effort;
use super::super::known::{Known, Signed};
use super::super::pairs::{Sightings, holds_executable};
use super::super::plan::Plan;
use super::super::unit::{Given, Matched, UnitMatcher};
use crate::crew::Work;
use crate::error::Result;
use crate::image::Image;
use crate::job::{Job, Phase};
use crate::pump::pump;

/// How many units of the old image are known, at least, behind the counterpart of a new unit that is
/// matched.
const UNITS_AHEAD: usize = 8;

/// A unit of one of the trees, in the order in which they are read.
enum Item {
    Old { number: usize, range: Range<u64> },
    New { range: Range<u64>, horizon: u64 },
}

/// The same once it was read, and whether an executable starts in it, where that is asked for.
enum Read {
    Old { range: Range<u64>, number: usize, buffer: Buffer, signed: Signed, holds: bool },
    New { range: Range<u64>, horizon: u64, buffer: Buffer, holds: bool },
}

/// The units of both trees, each new one behind the old ones that it is matched with.
fn items(old: &Image, new: &Image, counterparts: &Counterparts) -> Vec<Item> {
    let old_units: Vec<Range<u64>> = old.layout.units().collect();
    let (mut items, mut next) = (Vec::new(), 0);
    let old_item = |number: usize| Item::Old { number, range: old_units[number].clone() };
    for range in new.layout.units() {
        let mut counterpart = 0;
        for part in new.layout.parts(&range) {
            if let Some(file) = counterparts.of(part.file) {
                let span = &old.layout.files[file as usize].image;
                let end = span.start + part.offset + part.inside.len() as u64;
                counterpart = counterpart.max(end.min(span.end));
            }
        }
        let needed = old_units.partition_point(|unit| unit.end < counterpart);
        let needed = (needed + UNITS_AHEAD).min(old_units.len());
        while next < needed {
            items.push(old_item(next));
            next += 1;
        }
        let horizon = next.checked_sub(1).map_or(0, |last| old_units[last].end);
        items.push(Item::New { range, horizon });
    }
    items.extend((next..old_units.len()).map(old_item));
    items
}

/// Who matches units of the new tree on their first look.
struct Matchers<'a> {
    sightings: &'a Sightings,
    plain: UnitMatcher,
    /// Leaves files of pairs alone.
    predicting: UnitMatcher,
    /// Where the new files of all pairs are.
    files: Vec<Range<u64>>,
}

impl<'a> Matchers<'a> {
    fn new(
        new: &Image,
        known: &Arc<Known>,
        sightings: &'a Sightings,
        effort: Effort,
    ) -> Matchers<'a> {
        let span = |file: u32| new.layout.files[file as usize].image.clone();
        let files: Vec<Range<u64>> = sightings.all().iter().map(|pair| span(pair.new)).collect();
        let plain = UnitMatcher::new(new.clone(), known.clone(), Vec::new(), effort);
        let predicting = UnitMatcher::new(new.clone(), known.clone(), files.clone(), effort);
        Matchers { sightings, plain, predicting, files }
    }

    /// Who matches a unit. What is known by now to be predicted is left alone; what turns out to be
    /// later has a draft that is dropped.
    fn of(&self, unit: &Range<u64>) -> &UnitMatcher {
        let first = self.files.partition_point(|file| file.end <= unit.start);
        let is_in = |file: &&Range<u64>| file.start < unit.end;
        let pair = self.files.get(first).filter(is_in).map(|_| &self.sightings.all()[first]);
        match pair.is_some_and(|pair| self.sightings.hold_some(pair)) {
            true => &self.predicting,
            false => &self.plain,
        }
    }
}

/// Reads both trees in step and matches the new one with what is known of the old one.
pub(super) async fn first_look(
    job: &Job,
    new: &Image,
    known: &Arc<Known>,
    sightings: &Sightings,
    effort: Effort,
    plan: &Plan,
) -> Result<Vec<Draft>> {
    job.enter(Phase::ReadBoth);
    let old = known.image.image().clone();
    let matchers = Matchers::new(new, known, sightings, effort);
    let mut matching: Ordered<Work<Result<Matched>>> = Ordered::new(job.crew.threads() + 1);
    let (mut room, mut drafts) = (Room::new(job, plan), Vec::new());
    let mut keep = |mut matched: Matched| {
        let digests = std::mem::take(&mut matched.digests);
        drafts.push(Draft { digests, kept: room.keep(matched) });
    };
    let start = async |item: Item| {
        job.check()?;
        let (image, range, tar) = match &item {
            Item::Old { range, .. } => (&old, range, sightings.of_old(&old.layout, range)),
            Item::New { range, .. } => (new, range, sightings.of_new(&new.layout, range)),
        };
        let (image, range, is_watched) = (image.clone(), range.clone(), tar.is_some());
        let buffer = job.handle.buffer((range.end - range.start) as usize).await;
        let (hand, sizes) = (job.crew.hand(), plan.sizes);
        Ok(job.handle.spawn(async move {
            let buffer = image.read(range.clone(), buffer).await?;
            let look = move |buffer: &Buffer| is_watched && holds_executable(buffer);
            let read = match item {
                Item::New { horizon, .. } if !is_watched => {
                    return Ok(Read::New { range, horizon, buffer, holds: false });
                }
                Item::New { horizon, .. } => hand.run(move || {
                    let holds = look(&buffer);
                    Read::New { range, horizon, buffer, holds }
                }),
                Item::Old { number, .. } => hand.run(move || {
                    let holds = look(&buffer);
                    let signed = Signed::of(&image, &range, &buffer, Some(sizes));
                    Read::Old { range, number, buffer, signed, holds }
                }),
            };
            Ok(read.await)
        }))
    };
    let finish = async |read: Read| {
        match read {
            Read::Old { range, number, buffer, signed, holds } => {
                if let Some(seen) = sightings.of_old(&old.layout, &range).filter(|_| holds) {
                    seen.store(true, Relaxed);
                }
                job.progress.advance(buffer.len() as u64);
                known.index.insert(&signed.signatures);
                signed.set_digests(&known.units);
                known.image.hold(number, buffer);
            }
            Read::New { range, horizon, buffer, holds } => {
                if let Some(seen) = sightings.of_new(&new.layout, &range).filter(|_| holds) {
                    seen.store(true, Relaxed);
                }
                job.progress.advance(buffer.len() as u64);
                if !matching.has_room()
                    && let Some(matched) = matching.next().await
                {
                    keep(matched?);
                }
                let (matcher, given) =
                    (matchers.of(&range).clone(), Given { digests: None, horizon });
                matching.push(job.crew.hand().run(move || matcher.unit(range, &buffer, given)));
            }
        }
        Ok(())
    };
    let read = pump(items(&old, new, &known.counterparts), plan.depth, start, finish).await;
    while let Some(matched) = matching.next().await {
        if read.is_ok() {
            keep(matched?);
        }
    }
    read.map(|()| drafts)
}
