//! Both trees read in step, for trees that are not held in memory.
//!
//! ```text
//! old units ─► chunks, digests ─► index, units held ─┐
//! new units, a little behind ─► matching ◄───────────┘─► drafts ─► second look ─► groups
//! ```
//!
//! Most of a new tree stands near where it stood in the old one. So a unit of the new tree is matched
//! while the old bytes around its counterpart are in memory; what is found nowhere in the old tree
//! so far is kept, and looked up again once all of the old tree was read. So each byte is read once,
//! but for drafts that do not fit into memory, which are matched a second time from the file, and for
//! executables: each that changed is loaded together with its counterpart, as long as both fit.

use std::ops::Range;
use std::sync::Arc;

use inflight::stream::Ordered;
use inflight::{ArenaBytes, Buffer, Reservation};

use super::DiffReport;
use super::digests::Gathering;
use super::effort::Effort;
use super::executables::{self, FileBytes};
use super::group::Group;
use super::known::{Known, PartDigest, Signed};
use super::old::OldImage;
use super::output::Output;
use super::pairs::{Pair, pairs};
use super::piece::{Part, Piece};
use super::plan::Plan;
use super::unit::{Given, Matched, MatchedPiece, UnitMatcher};
use crate::crew::Work;
use crate::error::Result;
use crate::format::PatchWriter;
use crate::image::Image;
use crate::job::{Job, Phase};
use crate::pump::{pump, units_of_request};

/// How many units of the old image are known, at least, behind the counterpart of a new unit that is
/// matched.
const UNITS_AHEAD: usize = 8;

/// Units of one file read at once.
const FILE_DEPTH: usize = 2;

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
    let pairs = pairs(&old, &new).await?;
    let (first, most) = plan.old_units;
    let held = OldImage::in_units(old, job.handle.clone(), first, most);
    let known = Arc::new(Known::new(held, plan));
    let drafts = first_look(job, &new, &known, &pairs, effort, plan).await?;
    let step = Step { job, new, known, effort, plan, output, report };
    step.write(drafts, pairs).await
}

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

/// What was made of a unit of the new tree, and the memory for it; nothing where that did not
/// suffice.
struct Draft {
    digests: Vec<PartDigest>,
    matched: Option<(Matched, Reservation)>,
}

/// Reads both trees in step and matches the new one with what is known of the old one.
async fn first_look(
    job: &Job,
    new: &Image,
    known: &Arc<Known>,
    pairs: &[Pair],
    effort: Effort,
    plan: &Plan,
) -> Result<Vec<Draft>> {
    job.progress.enter(Phase::ReadBoth);
    let old = known.image.image().clone();
    // Their bytes are not matched now: they are predicted.
    let files = pairs.iter().map(|pair| new.layout.files[pair.new as usize].image.clone());
    let matcher = UnitMatcher::new(new.clone(), known.clone(), files.collect(), effort);
    let mut matching: Ordered<Work<Result<Matched>>> = Ordered::new(job.crew.threads() + 1);
    let mut drafts = Drafts { job, plan, used: 0, list: Vec::new() };
    let start = async |item: Item| {
        job.progress.check()?;
        let (image, range) = match &item {
            Item::Old { range, .. } => (old.clone(), range.clone()),
            Item::New { range, .. } => (new.clone(), range.clone()),
        };
        let buffer = job.handle.buffer((range.end - range.start) as usize).await;
        let (hand, sizes) = (job.crew.hand(), plan.sizes);
        Ok(job.handle.spawn(async move {
            let buffer = image.read(range.clone(), buffer).await?;
            let Item::Old { number, .. } = item else {
                let Item::New { horizon, .. } = item else { unreachable!("one of the two") };
                return Ok(Read::New { range, horizon, buffer });
            };
            let sign = move || {
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
                    drafts.add(matched?);
                }
                let matcher = matcher.clone();
                let given = move || matcher.unit(range, &buffer, Given { digests: None, horizon });
                matching.push(job.crew.hand().run(given));
            }
        }
        Ok(())
    };
    let read = pump(items(&old, new), plan.depth, start, finish).await;
    while let Some(matched) = matching.next().await {
        if read.is_ok() {
            drafts.add(matched?);
        }
    }
    read.map(|()| drafts.list)
}

/// What was made so far, as much as memory is planned for.
struct Drafts<'a> {
    job: &'a Job,
    plan: &'a Plan,
    used: u64,
    list: Vec<Draft>,
}

impl Drafts<'_> {
    fn add(&mut self, mut matched: Matched) {
        let digests = std::mem::take(&mut matched.digests);
        let mut bytes = matched.footprint();
        // Long literals are read again if it comes to that, before anything is matched again.
        if self.used + bytes > self.plan.drafts_bytes / 4 * 3 {
            matched = matched.without_literals();
            bytes = matched.footprint();
        }
        let fits = self.used + bytes <= self.plan.drafts_bytes;
        let reserved = fits.then(|| self.job.handle.pool().try_reserve(bytes)).flatten();
        self.used += reserved.as_ref().map_or(0, |_| bytes);
        self.list.push(Draft { digests, matched: reserved.map(|reserved| (matched, reserved)) });
    }
}

/// What writes the patch once both trees were read.
struct Step<'a> {
    job: &'a Job,
    new: Image,
    known: Arc<Known>,
    effort: Effort,
    plan: &'a Plan,
    output: Output,
    report: &'a mut DiffReport,
}

impl Step<'_> {
    async fn write(mut self, drafts: Vec<Draft>, pairs: Vec<Pair>) -> Result<PatchWriter> {
        let job = self.job;
        job.progress.enter(Phase::Match);
        let new = self.new.clone();
        let mut digests = Gathering::default();
        drafts.iter().for_each(|draft| digests.add(&self.known, &new, &draft.digests));
        let digests = digests.finish();
        let is_as_it_was = files_as_they_were(&new, &drafts);
        let files = pairs.iter().map(|pair| new.layout.files[pair.new as usize].image.clone());
        let matcher =
            UnitMatcher::new(new.clone(), self.known.clone(), files.collect(), self.effort);
        let start = async |(range, draft): (Range<u64>, Draft)| {
            job.progress.check()?;
            let (matcher, hand) = (matcher.clone(), job.crew.hand());
            let Draft { digests, matched } = draft;
            let Some((matched, reserved)) = matched else {
                let buffer = job.handle.buffer((range.end - range.start) as usize).await;
                let new = new.clone();
                return Ok(job.handle.spawn(async move {
                    let buffer = new.read(range.clone(), buffer).await?;
                    let match_all = move || {
                        let given = Given { digests: Some(&digests), horizon: u64::MAX };
                        matcher.unit(range, &buffer, given)
                    };
                    Ok((hand.run(match_all).await?, None))
                }));
            };
            let left_out = matched.left_out(range.start);
            let missing: u64 = left_out.iter().map(|range| range.end - range.start).sum();
            let buffer = match missing {
                0 => None,
                bytes => Some(job.handle.buffer(bytes as usize).await),
            };
            let new = new.clone();
            Ok(job.handle.spawn(async move {
                let mut matched = matched;
                if let Some(buffer) = buffer {
                    let bytes = new.read_ranges(&left_out, buffer).await?;
                    matched.put_back(&bytes);
                }
                let is_worth_it = |piece: &MatchedPiece| {
                    matches!(piece, MatchedPiece::Plain(piece) if piece.is_worth_a_look())
                };
                let matched = match matched.pieces.iter().any(is_worth_it) {
                    true => hand.run(move || matcher.look_again(matched)).await?,
                    false => matched,
                };
                Ok((matched, Some(reserved)))
            }))
        };
        let (mut pairs, depth) = (pairs.into_iter(), self.plan.depth);
        let finish = async |(matched, _reserved): (Matched, Option<Reservation>)| {
            for piece in &matched.pieces {
                match piece {
                    MatchedPiece::Plain(piece) => self.output.add(piece, self.report).await?,
                    MatchedPiece::Executable { starts: true } => {
                        let pair = pairs.next().expect("one for each");
                        let is_as_it_was = is_as_it_was[pair.new as usize];
                        self.write_pair(pair, is_as_it_was).await?;
                    }
                    MatchedPiece::Executable { starts: false } => {}
                }
            }
            Ok(())
        };
        let units: Vec<Range<u64>> = new.layout.units().collect();
        pump(units.into_iter().zip(drafts), depth, start, finish).await?;
        let old_digests = self.known.digests();
        self.output.finish((&old_digests, &digests), self.report).await
    }

    /// Writes what makes a file that holds executables, or may.
    async fn write_pair(&mut self, pair: Pair, is_as_it_was: bool) -> Result<()> {
        let old = self.known.image.image().clone();
        let (old_span, new_span) = (
            old.layout.files[pair.old as usize].image.clone(),
            self.new.layout.files[pair.new as usize].image.clone(),
        );
        let units: Vec<Range<u64>> = cut(self.new.layout.units(), &new_span).collect();
        if is_as_it_was {
            for unit in units {
                let old = old_span.start + (unit.start - new_span.start);
                let (length, differences) = (unit.end - unit.start, Vec::new());
                let piece = Piece { parts: vec![Part::Copy { old, length, differences }] };
                self.output.add(&piece, self.report).await?;
            }
            return Ok(());
        }
        let made = match self.load_pair(&old, &old_span, &new_span).await? {
            None => Vec::new(),
            Some((mut old_bytes, mut new_bytes)) => {
                let (pool, effort) = (self.job.handle.pool().clone(), self.effort);
                let (old_start, new_start, units) = (old_span.start, new_span.start, units.clone());
                let predict = move || {
                    let old = FileBytes { start: old_start, bytes: &mut old_bytes };
                    let new = FileBytes { start: new_start, bytes: &mut new_bytes };
                    executables::run_pair(&pool, old, new, &units, effort)
                };
                self.job.crew.hand().run(predict).await
            }
        };
        self.write_file(units, made).await
    }

    /// Both files of a pair, if there is memory for them.
    async fn load_pair(
        &mut self,
        old: &Image,
        old_span: &Range<u64>,
        new_span: &Range<u64>,
    ) -> Result<Option<(ArenaBytes, ArenaBytes)>> {
        let (old_bytes, new_bytes) = (old_span.end - old_span.start, new_span.end - new_span.start);
        let needed = old_bytes + new_bytes + self.effort.bytes(old_bytes, new_bytes);
        let budget = self.job.handle.pool().budget();
        if budget.used() + needed > budget.limit() {
            self.known.image.forget();
        }
        let better = budget.used() + needed + self.plan.growth_bytes;
        if budget.used() + needed <= budget.limit()
            && let Some(old_file) = load(self.job, old, old_span).await?
            && let Some(new_file) = load(self.job, &self.new, new_span).await?
        {
            return Ok(Some((old_file, new_file)));
        }
        self.report.better_memory_bytes = self.report.better_memory_bytes.max(better);
        Ok(None)
    }

    /// Writes a file that is these units: the groups made for what is executable in it, and the
    /// rest as it is matched.
    async fn write_file(&mut self, units: Vec<Range<u64>>, made: Vec<Vec<Group>>) -> Result<()> {
        let (job, new) = (self.job, self.new.clone());
        let matcher = UnitMatcher::new(
            new.clone(),
            self.known.clone(),
            executables::ranges(&made),
            self.effort,
        );
        let mut made = made.into_iter();
        let start = async |range: Range<u64>| {
            job.progress.check()?;
            let buffer = job.handle.buffer((range.end - range.start) as usize).await;
            let (new, matcher, hand) = (new.clone(), matcher.clone(), job.crew.hand());
            Ok(job.handle.spawn(async move {
                if let Some(executable) = matcher.executable_at(&range) {
                    return Ok(executable);
                }
                let given = Given { digests: None, horizon: u64::MAX };
                let buffer = new.read(range.clone(), buffer).await?;
                hand.run(move || matcher.unit(range, &buffer, given)).await
            }))
        };
        let finish = async |matched: Matched| {
            self.output.add_unit(&matched.pieces, &mut made, self.report).await
        };
        pump(units, FILE_DEPTH, start, finish).await
    }
}

/// Reads a file, which is a range of an image, if there is memory for it.
async fn load(job: &Job, image: &Image, span: &Range<u64>) -> Result<Option<ArenaBytes>> {
    let Some(mut arena) = job.handle.pool().try_arena((span.end - span.start) as usize) else {
        return Ok(None);
    };
    let start = async |units: Vec<Range<u64>>| {
        let buffer = |unit: &Range<u64>| arena.buffer((unit.end - unit.start) as usize);
        let (image, buffers) = (image.clone(), units.iter().map(buffer).collect());
        Ok(job.handle.spawn(async move { image.read_units(&units, buffers).await }))
    };
    let finish = async |_read: Vec<Buffer>| Ok(());
    let most = units_of_request(job, job.depth());
    let requests = image.layout.requests(most);
    let requests = requests.skip_while(|request| request[0].start < span.start);
    let requests = requests.take_while(|request| request[0].start < span.end);
    pump(requests, job.depth() / most, start, finish).await?;
    Ok(Some(arena.finish().expect("a pass that has ended holds no buffers")))
}

/// The units of a file that has units of its own.
fn cut(
    units: impl Iterator<Item = Range<u64>>,
    span: &Range<u64>,
) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = *span;
    units.skip_while(move |unit| unit.end <= start).take_while(move |unit| unit.start < end)
}

/// For each new file, whether all of it was taken over from one old file.
fn files_as_they_were(new: &Image, drafts: &[Draft]) -> Vec<bool> {
    let mut as_it_was = vec![true; new.layout.files.len()];
    for part in drafts.iter().flat_map(|draft| &draft.digests) {
        as_it_was[part.file as usize] &= part.old_file.is_some();
    }
    as_it_was
}
