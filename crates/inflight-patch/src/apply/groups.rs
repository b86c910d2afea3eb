//! The groups of a patch, fetched and decoded ahead, and cut to the units of the new image.

use std::ops::Range;
use std::sync::Arc;

use inflight::stream::Ordered;
use inflight::{Buffer, Task};

use super::piece::{Group, Piece, Relocation, Source};
use crate::damage::Damage;
use crate::error::Result;
use crate::format::{
    BlockEntry, BlockKind, Executable, GapLists, GroupInstructions, Instruction, PatchFile,
};
use crate::job::Job;
use crate::transform::references::{Relocator, copy_parts};

/// Groups fetched and decoded ahead.
const GROUPS_AHEAD: usize = 2;
/// Memory for each byte of instructions of which there is a map, about: each has two or more.
const MAPPED_FOOTPRINT: u64 = 24;

/// The blocks of a group.
#[derive(Debug, Default)]
struct Waiting {
    blocks: Vec<BlockEntry>,
    /// The instructions of the groups behind it that go on with its executable.
    more: Vec<BlockEntry>,
}

/// All groups of a patch, in order.
fn waiting(patch: &PatchFile) -> Vec<Waiting> {
    let mut groups: Vec<Waiting> = Vec::new();
    let (mut starts, mut executable) = (true, 0);
    for block in patch.blocks().iter().filter(|block| block.kind.is_of_group()) {
        match block.kind {
            BlockKind::Executable => executable = groups.len(),
            BlockKind::MoreInstructions => groups[executable].more.push(*block),
            _ => {}
        }
        let begins = match block.kind {
            BlockKind::Executable | BlockKind::MoreInstructions => true,
            // Behind an executable they are of the same group.
            BlockKind::Instructions => starts,
            _ => false,
        };
        starts = block.kind != BlockKind::Executable;
        if begins {
            groups.push(Waiting::default());
        }
        groups.last_mut().into_iter().for_each(|group| group.blocks.push(*block));
    }
    groups
}

/// The most memory that decoded groups take.
pub(super) fn bytes_at_once(patch: &PatchFile) -> u64 {
    let raw = |blocks: &[BlockEntry]| blocks.iter().map(|b| u64::from(b.raw_bytes)).sum::<u64>();
    let groups = waiting(patch);
    let largest = groups.iter().map(|group| raw(&group.blocks)).max().unwrap_or(0);
    // The instructions of an executable are all needed at once, and a map of them.
    let mapped = groups.iter().map(|group| MAPPED_FOOTPRINT * raw(&group.more)).max().unwrap_or(0);
    // Stored and decoded, and instructions as they are worked with.
    (GROUPS_AHEAD as u64 + 2) * (2 * largest) + mapped + (24 << 20)
}

/// Hands out the pieces of the new image front to back.
pub(super) struct Pieces<'a> {
    job: &'a Job,
    patch: &'a PatchFile,
    /// Groups not yet fetched.
    waiting: std::vec::IntoIter<Waiting>,
    ahead: Ordered<Task<Result<Decoded>>>,
    current: Current,
}

/// A group that was decoded, and its instructions.
struct Decoded {
    group: Group,
    instructions: GroupInstructions,
    /// Whether it goes on with the executable of the group before.
    goes_on: bool,
}

/// The group under way.
#[derive(Default)]
struct Current {
    group: Arc<Group>,
    list: std::vec::IntoIter<Instruction>,
    /// What is left of an instruction that a unit cut.
    open: Option<Instruction>,
    literals_used: usize,
    /// Bytes of `mismatches`, of `differences`, of `misses` and of `corrections` used so far.
    used: [usize; 4],
    /// Where the group goes on, and where it ends, in the new image.
    position: u64,
    end: u64,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(job: &'a Job, patch: &'a PatchFile) -> Pieces<'a> {
        let ahead = Ordered::new(GROUPS_AHEAD);
        let (waiting, current) = (waiting(patch).into_iter(), Current::default());
        Pieces { job, patch, waiting, ahead, current }
    }

    fn fetch_ahead(&mut self) {
        while self.ahead.has_room()
            && let Some(Waiting { blocks, more }) = self.waiting.next()
        {
            let (patch, hand) = (self.patch.clone(), self.job.crew.hand());
            self.ahead.push(self.job.handle.spawn(async move {
                let mut sealed = Vec::with_capacity(blocks.len());
                for block in &blocks {
                    sealed.push(patch.fetch(block).await?);
                }
                let mut sealed_more = Vec::with_capacity(more.len());
                for block in &more {
                    sealed_more.push(patch.fetch(block).await?);
                }
                hand.run(move || {
                    let decode_all = |entries: &[BlockEntry], sealed: &[Buffer]| {
                        let pairs = entries.iter().zip(sealed);
                        let decode = |(block, sealed): (&BlockEntry, &Buffer)| {
                            Ok((block.kind, patch.decode(block, sealed)?))
                        };
                        pairs.map(decode).collect::<Result<Vec<(BlockKind, Vec<u8>)>>>()
                    };
                    let at = blocks[0].offset;
                    let (raw, more) =
                        (decode_all(&blocks, &sealed)?, decode_all(&more, &sealed_more)?);
                    decode(at, raw, &more, patch.image_bytes())
                        .map_err(|damage| patch.damaged(damage.inside(at)))
                })
                .await
            }));
        }
    }

    /// Goes to the next group; says whether there is one.
    async fn next_group(&mut self) -> Result<bool> {
        self.fetch_ahead();
        let Some(decoded) = self.ahead.next().await else {
            return Ok(false);
        };
        self.fetch_ahead();
        self.current.finish().map_err(|damage| self.damaged(damage))?;
        let Decoded { mut group, instructions, goes_on } = decoded?;
        if goes_on {
            group.relocation.clone_from(&self.current.group.relocation);
        }
        let (start, end) = (self.current.end, instructions.start + instructions.length());
        if instructions.start != start {
            let what = format!("a group starts at {} in place of {start}", instructions.start);
            return Err(self.patch.damaged(Damage::new(group.at, what)));
        }
        let (list, group) = (instructions.list.into_iter(), Arc::new(group));
        self.current = Current { group, list, position: start, end, ..Current::default() };
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

/// Puts a group together from its raw blocks. `more` are the instructions of the groups that go on
/// with its executable. Work for the crew.
fn decode(
    at: u64,
    blocks: Vec<(BlockKind, Vec<u8>)>,
    more: &[(BlockKind, Vec<u8>)],
    (old_bytes, new_bytes): (u64, u64),
) -> Result<Decoded, Damage> {
    let mut group = Group { at, ..Group::default() };
    let mut executable = None;
    let mut instructions = GroupInstructions::default();
    let mut goes_on = false;
    for (kind, raw) in blocks {
        match kind {
            BlockKind::Executable => executable = Some(Executable::decode(&raw, old_bytes)?),
            BlockKind::Instructions | BlockKind::MoreInstructions => {
                goes_on = kind == BlockKind::MoreInstructions;
                instructions = GroupInstructions::decode(&raw, old_bytes, new_bytes)?;
            }
            BlockKind::Literals => group.literals = raw,
            BlockKind::Mismatches => group.mismatches = raw,
            BlockKind::Differences => group.differences = raw,
            BlockKind::Misses => group.misses = raw,
            BlockKind::Corrections => group.corrections = raw,
            _ => {}
        }
    }
    if instructions.literal_bytes() != group.literals.len() as u64 {
        return Err(Damage::new(0, "a group's instructions do not use up its literals"));
    }
    if executable.is_none() && !goes_on && !group.misses.is_empty() {
        return Err(Damage::new(0, "misses in a group that is no executable"));
    }
    if let Some(executable) = executable {
        let more = more.iter().map(|(_, raw)| GroupInstructions::decode(raw, old_bytes, new_bytes));
        let more = more.collect::<Result<Vec<GroupInstructions>, Damage>>()?;
        let all = || std::iter::once(&instructions).chain(&more);
        let length = all().map(GroupInstructions::length).fold(0, u64::saturating_add);
        if u64::from(executable.space.length()) != length {
            return Err(Damage::new(0, "an executable is not as long as its instructions say"));
        }
        let copies = copy_parts(all().flat_map(|group| &group.list));
        let mut relocator = Relocator::new(Arc::new(executable.old), executable.space, copies);
        for told in executable.told {
            relocator.tell(told.space, told.target, told.change);
        }
        let (start, relocator) = (instructions.start, Arc::new(relocator));
        group.relocation = Some(Relocation { start, relocator });
    }
    Ok(Decoded { group, instructions, goes_on })
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
        let corrections = GapLists::skip(&group.corrections[self.used[3]..], missed as u64)?;
        let corrections = self.used[3]..self.used[3] + corrections;
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
            corrections.end,
        ];
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
        let all = [
            group.mismatches.len(),
            group.differences.len(),
            group.misses.len(),
            group.corrections.len(),
        ];
        match self.used == all {
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
