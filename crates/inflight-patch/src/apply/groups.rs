//! The groups of a patch, decoded ahead, and cut to the units of the new image.

use std::ops::Range;
use std::sync::Arc;

use inflight::stream::Ordered;

use super::outline::{Decoded, Outline};
use super::packs::{Opened, Outlines, Packs};
use super::piece::{Group, Piece, Source};
use crate::crew::Work;
use crate::damage::Damage;
use crate::error::Result;
use crate::format::{Corrections, GapLists, Instruction, PatchFile, Payloads};
use crate::job::Job;

/// Groups decoded ahead.
const GROUPS_AHEAD: usize = 2;

/// Hands out the pieces of the new image front to back.
pub(super) struct Pieces<'a> {
    job: &'a Job,
    patch: &'a PatchFile,
    packs: Packs<'a>,
    /// The first group of the pack under way, if it is decoded already and not yet used.
    first: Option<Result<Decoded, Damage>>,
    /// Groups of that pack that nobody decodes yet.
    waiting: std::vec::IntoIter<Outline>,
    ahead: Ordered<Work<Result<Decoded, Damage>>>,
    /// What all of its groups have besides, once it is there.
    streams: Streams,
    current: Current,
}

/// The streams of the groups of a pack.
enum Streams {
    Coming(Work<Result<Vec<Payloads>>>),
    There(std::vec::IntoIter<Payloads>),
}

/// The group under way.
#[derive(Default)]
struct Current {
    group: Arc<Group>,
    list: std::vec::IntoIter<Instruction>,
    /// What is left of an instruction that a unit cut.
    open: Option<Instruction>,
    literals_used: usize,
    /// Bytes of `mismatches`, of `differences` and of `misses` used so far.
    used: [usize; 3],
    corrections: Corrections,
    /// Where the group goes on, and where it ends, in the new image.
    position: u64,
    end: u64,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(job: &'a Job, patch: &'a PatchFile) -> Pieces<'a> {
        let ahead = Ordered::new(GROUPS_AHEAD);
        let (packs, waiting) = (Packs::new(job, patch), Vec::new().into_iter());
        let streams = Streams::There(Vec::new().into_iter());
        let current = Current::default();
        Pieces { job, patch, packs, first: None, waiting, ahead, streams, current }
    }

    /// Lets the crew decode the next groups of the pack under way.
    fn decode_ahead(&mut self) {
        while self.ahead.has_room()
            && let Some(outline) = self.waiting.next()
        {
            let image_bytes = self.patch.image_bytes();
            self.ahead.push(self.job.crew.hand().run(move || outline.decode(image_bytes)));
        }
    }

    /// Goes to the next group; says whether there is one.
    async fn next_group(&mut self) -> Result<bool> {
        if self.first.is_none() && self.ahead.is_empty() {
            let Some(Opened { outlines: Outlines { first, others }, streams }) =
                self.packs.next().await?
            else {
                return Ok(false);
            };
            self.first = first;
            self.waiting = others.into_iter();
            self.streams = Streams::Coming(streams);
            self.decode_ahead();
        }
        // A block that does not decode is told before a group that does not agree with it.
        let payloads = self.streams.next().await?;
        let decoded = match self.first.take() {
            Some(decoded) => decoded,
            None => self.ahead.next().await.expect("a pack has groups"),
        };
        let decoded = decoded.map_err(|damage| self.patch.damaged(damage))?;
        self.decode_ahead();
        self.current.finish().map_err(|damage| self.damaged(damage))?;
        let Decoded { at, instructions, relocation, goes_on } = decoded;
        let relocation = match goes_on {
            true => self.current.group.relocation.clone(),
            false => relocation,
        };
        let [_, _, literals, mismatches, differences, misses, corrections] = payloads;
        let group =
            Group { at, literals, mismatches, differences, misses, corrections, relocation };
        let (start, end) = (self.current.end, instructions.start + instructions.length());
        if instructions.start != start {
            let what = format!("a group starts at {} in place of {start}", instructions.start);
            return Err(self.patch.damaged(Damage::new(group.at, what)));
        }
        let corrections = Corrections::of(&group.corrections);
        let corrections =
            corrections.map_err(|damage| self.patch.damaged(damage.inside(group.at)))?;
        let (list, group) = (instructions.list.into_iter(), Arc::new(group));
        let position = start;
        self.current = Current { group, list, position, end, corrections, ..Current::default() };
        Ok(true)
    }

    fn damaged(&self, damage: Damage) -> crate::error::Error {
        self.patch.damaged(damage.inside(self.current.group.at))
    }

    /// What the next `length` bytes of the new image, a unit, are made from.
    pub(super) async fn take(&mut self, length: u64) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut missing = length;
        while missing > 0 {
            if self.current.position == self.current.end {
                if !self.next_group().await? {
                    let what = "the instructions end before the new tree does";
                    return Err(self.damaged(Damage::new(0, what)));
                }
                continue;
            }
            let now = missing.min(self.current.end - self.current.position);
            let piece = self.current.piece(now).map_err(|damage| self.damaged(damage))?;
            pieces.push(piece);
            missing -= now;
        }
        Ok(pieces)
    }

    /// Nothing may be left once the new image is made.
    pub(super) async fn finish(mut self) -> Result<()> {
        if self.current.position < self.current.end || self.next_group().await? {
            let what = "the instructions go on behind the new tree";
            return Err(self.damaged(Damage::new(0, what)));
        }
        self.current.finish().map_err(|damage| self.damaged(damage))
    }
}

impl Streams {
    /// Those of the next group.
    async fn next(&mut self) -> Result<Payloads> {
        if let Streams::Coming(work) = self {
            *self = Streams::There(work.await?.into_iter());
        }
        match self {
            Streams::There(payloads) => Ok(payloads.next().expect("each group has some")),
            Streams::Coming(_) => unreachable!("they are there now"),
        }
    }
}

impl Current {
    /// The next `length` bytes, which are of this group.
    fn piece(&mut self, length: u64) -> Result<Piece, Damage> {
        let mut sources = Vec::new();
        let start = self.position;
        let mut missing = length;
        while missing > 0 {
            let instruction = match self.open.take() {
                Some(open) => open,
                None => self.list.next().expect("lengths add up to that of the group"),
            };
            let now = instruction.length().min(missing);
            sources.push(self.source(instruction, now));
            missing -= now;
            self.position += now;
        }
        let group = &self.group;
        let mut mismatches = GapLists::behind(&group.mismatches, self.used[0]);
        let (differing, gaps) = mismatches.next()?;
        let gaps = place_in(&group.mismatches, gaps);
        let differences = self.used[1]..self.used[1] + differing;
        let mut misses = GapLists::behind(&group.misses, self.used[2]);
        let (missed, miss_gaps) = misses.next()?;
        let miss_gaps = place_in(&group.misses, miss_gaps);
        let copied = sources.iter().map(Source::copied_bytes).sum::<u64>();
        if differing as u64 > copied || missed as u64 > copied {
            return Err(Damage::new(0, "a piece has more mismatches than copied bytes"));
        }
        if differences.end > group.differences.len() {
            return Err(Damage::new(0, "there are fewer differences than mismatches"));
        }
        self.used = [
            group.mismatches.len() - mismatches.left(),
            differences.end,
            group.misses.len() - misses.left(),
        ];
        let corrections = self.corrections.take(&group.corrections, missed)?;
        let group = group.clone();
        Ok(Piece { group, start, sources, gaps, differences, miss_gaps, corrections })
    }

    /// The first `now` bytes of an instruction; the rest stays open.
    fn source(&mut self, instruction: Instruction, now: u64) -> Source {
        let rest = instruction.length() - now;
        let (source, open) = match instruction {
            Instruction::Copy { old, .. } => {
                (Source::Copy(old..old + now), Instruction::Copy { old: old + now, length: rest })
            }
            Instruction::Literal { .. } => {
                let from = self.literals_used;
                self.literals_used += now as usize;
                let source = Source::Literal(from..self.literals_used);
                (source, Instruction::Literal { length: rest })
            }
            Instruction::Run { byte, .. } => {
                (Source::Run(byte, now as usize), Instruction::Run { byte, length: rest })
            }
        };
        self.open = (rest > 0).then_some(open);
        source
    }

    /// Whether everything of the group was used.
    fn finish(&self) -> Result<(), Damage> {
        let group = &self.group;
        let all = [group.mismatches.len(), group.differences.len(), group.misses.len()];
        match self.used == all && self.corrections.is_done(&group.corrections) {
            true => Ok(()),
            false => Err(Damage::new(0, "a group's residue is not used up")),
        }
    }
}

/// Where a part of `whole` lies in it.
fn place_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = match part.is_empty() {
        true => 0,
        false => part.as_ptr() as usize - whole.as_ptr() as usize,
    };
    start..start + part.len()
}
