//! Writing the patch once both trees were read: drafts are made whole, and executables are made pair
//! by pair.

use std::ops::Range;
use std::sync::Arc;

use inflight::{ArenaBytes, Buffer};

use super::super::DiffReport;
use super::super::digests::{Digested, Gathering};
use super::super::drafts::Draft;
use super::super::effort::Effort;
use super::super::executables::{self, FileBytes};
use super::super::group::Group;
use super::super::known::Known;
use super::super::output::Output;
use super::super::pairs::Pair;
use super::super::piece::{Part, Piece};
use super::super::plan::Plan;
use super::super::unit::{Given, Matched, MatchedPiece, UnitMatcher};
use super::completion::{Completed, Completion};
use crate::error::Result;
use crate::format::PatchWriter;
use crate::image::Image;
use crate::job::Job;
use crate::pump::{pump, units_of_request};

/// Units of one file read at once.
const FILE_DEPTH: usize = 2;

/// What writes the patch once both trees were read.
pub(super) struct Step<'a> {
    pub(super) job: &'a Job,
    pub(super) new: Image,
    pub(super) known: Arc<Known>,
    pub(super) effort: Effort,
    pub(super) plan: &'a Plan,
    pub(super) output: Output,
    pub(super) report: &'a mut DiffReport,
}

impl Step<'_> {
    pub(super) async fn write(
        mut self,
        drafts: Vec<Draft>,
        pairs: Vec<Pair>,
        completion: Completion,
    ) -> Result<PatchWriter> {
        let (job, new) = (self.job, self.new.clone());
        let mut digests = Gathering::default();
        drafts.iter().for_each(|draft| digests.add(&new, &draft.digests));
        let (known, digests) = (self.known.clone(), digests.finish());
        let digested = Digested::new((known.image.image(), &known.digests()), (&new, &digests));
        self.output.add_manifests(known.image.image(), &new, &digested).await?;
        let from = taken_over_from(&new, &drafts);
        let start = async |(range, draft): (Range<u64>, Draft)| {
            job.check()?;
            Ok(completion.start(job, range, draft).await)
        };
        let (mut pairs, depth) = (pairs.into_iter(), self.plan.depth);
        let finish = async |completed: Completed| {
            for piece in &completed.matched.pieces {
                match piece {
                    MatchedPiece::Plain { piece, .. } => {
                        self.output.add(piece, self.report).await?
                    }
                    MatchedPiece::Executable { starts: true } => {
                        let pair = pairs.next().expect("one for each");
                        let is_as_it_was = from[pair.new as usize] == Some(pair.old);
                        self.write_pair(pair, is_as_it_was).await?;
                    }
                    MatchedPiece::Executable { starts: false } => {}
                }
            }
            Ok(())
        };
        let units: Vec<Range<u64>> = new.layout.units().collect();
        pump(units.into_iter().zip(drafts), depth, start, finish).await?;
        self.output.finish(&digested, self.report).await
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
            job.check()?;
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

/// For each new file, the old one that all of it was taken over from.
fn taken_over_from(new: &Image, drafts: &[Draft]) -> Vec<Option<u32>> {
    let mut from: Vec<Option<Option<u32>>> = vec![None; new.layout.files.len()];
    for part in drafts.iter().flat_map(|draft| &draft.digests) {
        let file = &mut from[part.file as usize];
        *file = match *file {
            None => Some(part.old_file),
            Some(other) => Some(other.filter(|old| part.old_file == Some(*old))),
        };
    }
    from.into_iter().map(Option::flatten).collect()
}
