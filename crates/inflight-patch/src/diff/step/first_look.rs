//! The first look: both trees are read in step, and the new one is matched with what is known of the
//! old one by then. What has nothing to be in step with waits until all of the old one is known.

use std::collections::VecDeque;
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
use crate::layout::FilePart;
use crate::pump::pump;

/// How many units of the old image are known, at least, behind the counterpart of a new unit that is
/// matched.
const UNITS_AHEAD: usize = 8;
/// In so many parts new units are matched in step with old ones, of so many units at least.
const PARTS: usize = 32;
const PART_UNITS_MIN: usize = 8;
/// Where in so many parts in a row more than half was not found by then, things probably moved, and all
/// other units wait. If they are new instead, the old tree is read again for those that had not moved.
const PARTS_OF_DISORDER: usize = 2;

/// A unit of one of the trees, in the order in which they are read.
enum Item {
    Old { number: usize, range: Range<u64> },
    New { number: usize, range: Range<u64>, horizon: u64 },
}

/// The same once it was read, and whether an executable starts in it, where that is asked for.
enum Read {
    Old { number: usize, range: Range<u64>, buffer: Buffer, signed: Signed, holds: bool },
    New { number: usize, range: Range<u64>, horizon: u64, buffer: Buffer, holds: bool },
}

/// The units of both trees, as far as they were not given out.
struct Units {
    old: Vec<Range<u64>>,
    new: Vec<Range<u64>>,
    /// The first old one that was not given out.
    next_old: usize,
    /// New ones that are like old ones around the same place: their numbers, and how many old ones are
    /// known by then.
    in_step: Vec<(usize, usize)>,
    /// New ones that wait until all of the old ones are known.
    waiting: Vec<usize>,
}

impl Units {
    fn new(old: &Image, new: &Image, counterparts: &Counterparts) -> Units {
        let mut units = Units {
            old: old.layout.units().collect(),
            new: new.layout.units().collect(),
            next_old: 0,
            in_step: Vec::new(),
            waiting: Vec::new(),
        };
        for (number, range) in units.new.iter().enumerate() {
            let end = |part: FilePart| {
                let file = counterparts.of(part.file)?;
                let span = &old.layout.files[file as usize].image;
                Some((span.start + part.offset + part.inside.len() as u64).min(span.end))
            };
            match new.layout.parts(range).filter_map(end).max() {
                Some(end) => {
                    let known = units.old.partition_point(|unit| unit.end < end);
                    let known = (known + UNITS_AHEAD).min(units.old.len());
                    units.in_step.push((number, known));
                }
                None => units.waiting.push(number),
            }
        }
        units
    }

    /// Old units that were not given out, up to one.
    fn old_until(&mut self, known: usize) -> impl Iterator<Item = Item> + use<> {
        let first = self.next_old;
        self.next_old = known.max(first);
        let units = self.old[first..self.next_old].to_vec();
        let item = move |(at, range)| Item::Old { number: first + at, range };
        units.into_iter().enumerate().map(item)
    }

    /// The next part of what is in step: new units, each behind the old ones that it is matched with.
    fn part(&mut self) -> Vec<Item> {
        let length = self.new.len().div_ceil(PARTS).max(PART_UNITS_MIN).min(self.in_step.len());
        let mut items = Vec::new();
        for (number, known) in self.in_step.drain(..length).collect::<Vec<_>>() {
            items.extend(self.old_until(known));
            let horizon = self.next_old.checked_sub(1).map_or(0, |last| self.old[last].end);
            items.push(Item::New { number, range: self.new[number].clone(), horizon });
        }
        items
    }

    /// Whether most of the new units have nothing to be in step with.
    fn most_wait(&self) -> bool {
        2 * self.waiting.len() > self.new.len()
    }

    /// The old units that are left.
    fn rest_of_old(&mut self) -> Vec<Item> {
        self.old_until(self.old.len()).collect()
    }

    /// The new ones that are left, for when all old ones are known.
    fn rest_of_new(self) -> impl Iterator<Item = Item> {
        let in_step = self.in_step.into_iter().map(|(number, _)| number);
        let mut numbers: Vec<usize> = in_step.chain(self.waiting).collect();
        numbers.sort_unstable();
        let new = self.new;
        numbers.into_iter().map(move |number| Item::New {
            number,
            range: new[number].clone(),
            horizon: u64::MAX,
        })
    }
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

/// Reads both trees and matches the new one with what is known of the old one.
pub(super) async fn first_look(
    job: &Job,
    new: &Image,
    known: &Arc<Known>,
    sightings: &Sightings,
    effort: Effort,
    plan: &Plan,
) -> Result<Vec<Draft>> {
    job.enter(Phase::ReadBoth);
    let mut units = Units::new(known.image.image(), new, &known.counterparts);
    let mut look = FirstLook {
        job,
        new,
        known,
        matchers: Matchers::new(new, known, sightings, effort),
        plan,
        room: Room::new(job, plan),
        drafts: units.new.iter().map(|_| None).collect(),
    };
    if units.most_wait() {
        known.image.expect_disorder();
    }
    let mut disorder = 0;
    while !units.in_step.is_empty() && disorder < PARTS_OF_DISORDER {
        let seen = look.at(units.part()).await?;
        disorder = if seen.left * 2 > seen.bytes { disorder + 1 } else { 0 };
    }
    if !units.in_step.is_empty() {
        known.image.expect_disorder();
    }
    look.at(units.rest_of_old()).await?;
    look.at(units.rest_of_new()).await?;
    Ok(look.drafts.into_iter().map(|draft| draft.expect("each was read")).collect())
}

struct FirstLook<'a> {
    job: &'a Job,
    new: &'a Image,
    known: &'a Arc<Known>,
    matchers: Matchers<'a>,
    plan: &'a Plan,
    room: Room,
    /// Of all new units that were matched.
    drafts: Vec<Option<Draft>>,
}

/// What was seen of new units: how many bytes they have, and how many of those were not found.
#[derive(Default)]
struct Seen {
    bytes: u64,
    left: u64,
}

/// A new unit that is being matched.
type Matching = Work<Result<Matched>>;

impl FirstLook<'_> {
    /// Reads units in order, and matches the new ones.
    async fn at(&mut self, items: impl IntoIterator<Item = Item>) -> Result<Seen> {
        let (job, plan, matchers) = (self.job, self.plan, &self.matchers);
        let (new, known) = (self.new, self.known);
        let old = known.image.image().clone();
        let sightings = matchers.sightings;
        let mut matching: Ordered<Matching> = Ordered::new(job.crew.threads() + 1);
        // Numbers and horizons of those.
        let mut numbers = VecDeque::new();
        let mut seen = Seen::default();
        let mut keep = |(number, horizon): (usize, u64), mut matched: Matched| {
            seen.bytes += matched.bytes;
            seen.left += matched.literal_bytes();
            let digests = std::mem::take(&mut matched.digests);
            let saw_all = horizon >= old.layout.bytes;
            let kept = self.room.keep(matched);
            self.drafts[number] = Some(Draft { digests, kept, saw_all });
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
                    Item::New { number, horizon, .. } if !is_watched => {
                        return Ok(Read::New { number, range, horizon, buffer, holds: false });
                    }
                    Item::New { number, horizon, .. } => hand.run(move || {
                        let holds = look(&buffer);
                        Read::New { number, range, horizon, buffer, holds }
                    }),
                    Item::Old { number, .. } => hand.run(move || {
                        let holds = look(&buffer);
                        let signed = Signed::of(&image, &range, &buffer, Some(sizes));
                        Read::Old { number, range, buffer, signed, holds }
                    }),
                };
                Ok(read.await)
            }))
        };
        let finish = async |read: Read| {
            match read {
                Read::Old { number, range, buffer, signed, holds } => {
                    if let Some(seen) = sightings.of_old(&old.layout, &range).filter(|_| holds) {
                        seen.store(true, Relaxed);
                    }
                    job.progress.advance(buffer.len() as u64);
                    known.index.insert(&signed.signatures);
                    signed.set_digests(&known.units);
                    known.image.hold(number, buffer);
                }
                Read::New { number, range, horizon, buffer, holds } => {
                    if let Some(seen) = sightings.of_new(&new.layout, &range).filter(|_| holds) {
                        seen.store(true, Relaxed);
                    }
                    job.progress.advance(buffer.len() as u64);
                    if !matching.has_room()
                        && let Some(matched) = matching.next().await
                    {
                        keep(numbers.pop_front().expect("one for each"), matched?);
                    }
                    let (matcher, given) =
                        (matchers.of(&range).clone(), Given { digests: None, horizon });
                    numbers.push_back((number, horizon));
                    matching.push(job.crew.hand().run(move || matcher.unit(range, &buffer, given)));
                }
            }
            Ok(())
        };
        let read = pump(items, plan.depth, start, finish).await;
        while let Some(matched) = matching.next().await {
            if read.is_ok() {
                keep(numbers.pop_front().expect("one for each"), matched?);
            }
        }
        read.map(|()| seen)
    }
}
