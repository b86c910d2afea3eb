//! The first look: both trees are read in step, and the new one is matched with what is known of the
//! old one by then.

use std::ops::Range;
use std::sync::Arc;

use inflight::Buffer;
use inflight::stream::Ordered;

use super::super::effort::Effort;
use super::super::known::{Known, Signed};
use super::super::pairs::Sightings;
use super::super::plan::Plan;
use super::super::unit::{Given, Matched, UnitMatcher};
use super::drafts::{Draft, Room};
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

/// The same once it was read.
enum Read {
    Old { number: usize, buffer: Buffer, signed: Signed },
    New { range: Range<u64>, horizon: u64, buffer: Buffer },
}

/// The units of both trees, each new one behind the old ones that it is matched with.
fn items(old: &Image, new: &Image) -> Vec<Item> {
    let old_units: Vec<Range<u64>> = old.layout.units().collect();
    let (mut items, mut next) = (Vec::new(), 0);
    let old_item = |number: usize| Item::Old { number, range: old_units[number].clone() };
    for range in new.layout.units() {
        let mut counterpart = 0;
        for part in new.layout.parts(&range) {
            if let Some(file) = old.file_at(&new.entry(part.file).path) {
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

/// Matches units of the new tree on their first look.
#[derive(Clone)]
struct FirstMatcher {
    sightings: Arc<Sightings>,
    plain: UnitMatcher,
    /// Leaves files of pairs alone.
    predicting: UnitMatcher,
    /// Where the new files of all pairs are.
    files: Arc<[Range<u64>]>,
}

impl FirstMatcher {
    fn new(
        new: &Image,
        known: &Arc<Known>,
        sightings: Arc<Sightings>,
        effort: Effort,
    ) -> FirstMatcher {
        let span = |file: u32| new.layout.files[file as usize].image.clone();
        let files: Vec<Range<u64>> = sightings.all().iter().map(|pair| span(pair.new)).collect();
        let plain = UnitMatcher::new(new.clone(), known.clone(), Vec::new(), effort);
        let predicting = UnitMatcher::new(new.clone(), known.clone(), files.clone(), effort);
        FirstMatcher { sightings, plain, predicting, files: files.into() }
    }

    /// Matches a unit. What is known by now to be predicted is not; what turns out to be later has
    /// a draft that is not used. Work for the crew.
    fn unit(&self, range: Range<u64>, bytes: &[u8], horizon: u64) -> Result<Matched> {
        let first = self.files.partition_point(|file| file.end <= range.start);
        let is_in = |file: &&Range<u64>| file.start < range.end;
        let pair = self.files.get(first).filter(is_in).map(|_| &self.sightings.all()[first]);
        let matcher = match pair.is_some_and(|pair| self.sightings.hold_some(pair)) {
            true => &self.predicting,
            false => &self.plain,
        };
        matcher.unit(range, bytes, Given { digests: None, horizon })
    }
}

/// Reads both trees in step and matches the new one with what is known of the old one.
pub(super) async fn first_look(
    job: &Job,
    new: &Image,
    known: &Arc<Known>,
    sightings: &Arc<Sightings>,
    effort: Effort,
    plan: &Plan,
) -> Result<Vec<Draft>> {
    job.progress.enter(Phase::ReadBoth);
    let old = known.image.image().clone();
    let matcher = FirstMatcher::new(new, known, sightings.clone(), effort);
    let mut matching: Ordered<Work<Result<Matched>>> = Ordered::new(job.crew.threads() + 1);
    let (mut room, mut drafts) = (Room::new(job, plan), Vec::new());
    let mut keep = |mut matched: Matched| {
        let digests = std::mem::take(&mut matched.digests);
        drafts.push(Draft { digests, kept: room.keep(matched) });
    };
    let start = async |item: Item| {
        job.progress.check()?;
        let (image, range) = match &item {
            Item::Old { range, .. } => (old.clone(), range.clone()),
            Item::New { range, .. } => (new.clone(), range.clone()),
        };
        let buffer = job.handle.buffer((range.end - range.start) as usize).await;
        let (hand, sizes, sightings) = (job.crew.hand(), plan.sizes, sightings.clone());
        Ok(job.handle.spawn(async move {
            let buffer = image.read(range.clone(), buffer).await?;
            let Item::Old { number, .. } = item else {
                let Item::New { horizon, .. } = item else { unreachable!("one of the two") };
                return Ok(Read::New { range, horizon, buffer });
            };
            let sign = move || {
                sightings.look_at_old(&image.layout, &range, &buffer);
                let signed = Signed::of(&image, &range, &buffer, Some(sizes));
                Read::Old { number, buffer, signed }
            };
            Ok(hand.run(sign).await)
        }))
    };
    let finish = async |read: Read| {
        match read {
            Read::Old { number, buffer, signed } => {
                job.progress.advance(buffer.len() as u64);
                known.index.insert(&signed.signatures);
                signed.set_digests(&known.units);
                known.image.hold(number, buffer);
            }
            Read::New { range, horizon, buffer } => {
                job.progress.advance(buffer.len() as u64);
                if !matching.has_room()
                    && let Some(matched) = matching.next().await
                {
                    keep(matched?);
                }
                let (matcher, layout) = (matcher.clone(), new.layout.clone());
                matching.push(job.crew.hand().run(move || {
                    matcher.sightings.look_at_new(&layout, &range, &buffer);
                    matcher.unit(range, &buffer, horizon)
                }));
            }
        }
        Ok(())
    };
    let read = pump(items(&old, new), plan.depth, start, finish).await;
    while let Some(matched) = matching.next().await {
        if read.is_ok() {
            keep(matched?);
        }
    }
    read.map(|()| drafts)
}
