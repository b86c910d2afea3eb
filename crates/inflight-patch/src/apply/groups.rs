//! The groups of a patch, fetched and decoded ahead, and cut to the units of the new image.

use std::ops::Range;
use std::sync::Arc;

use inflight::Task;
use inflight::stream::Ordered;

use super::piece::{Group, Piece, Source};
use crate::damage::Damage;
use crate::error::Result;
use crate::format::{
    BlockEntry, BlockKind, GapLists, GroupInstructions, Instruction, NewExecutable, PatchFile,
};
use crate::job::Job;
use crate::transform::references::space::OldExecutable;
use crate::transform::references::{Relocator, copy_parts};

/// Groups fetched and decoded ahead.
const GROUPS_AHEAD: usize = 2;

/// The most memory that decoded groups take.
pub(super) fn bytes_at_once(patch: &PatchFile) -> u64 {
    let blocks = patch.blocks().iter();
    let mut largest = 0;
    let (mut group, mut before) = (0, None);
    for block in blocks {
        match block.kind {
            BlockKind::Executable => group = 0,
            BlockKind::Instructions if before != Some(BlockKind::Executable) => group = 0,
            _ => {}
        }
        before = Some(block.kind);
        if block.kind.is_of_group() {
            group += u64::from(block.raw_bytes);
            largest = largest.max(group);
        }
    }
    // Stored and decoded, and instructions as they are worked with.
    (GROUPS_AHEAD as u64 + 2) * (2 * largest) + (24 << 20)
}

/// Hands out the pieces of the new image front to back.
pub(super) struct Pieces<'a> {
    job: &'a Job,
    patch: &'a PatchFile,
    old: Arc<Vec<OldExecutable>>,
    /// The blocks of groups not yet fetched.
    waiting: std::vec::IntoIter<Vec<BlockEntry>>,
    ahead: Ordered<Task<Result<Decoded>>>,
    current: Current,
}

/// A group that was decoded, and its instructions.
struct Decoded {
    group: Group,
    instructions: GroupInstructions,
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
    pub(super) fn new(
        job: &'a Job,
        patch: &'a PatchFile,
        old: Arc<Vec<OldExecutable>>,
    ) -> Pieces<'a> {
        let mut groups: Vec<Vec<BlockEntry>> = Vec::new();
        for block in patch.blocks() {
            match block.kind {
                BlockKind::Executable => groups.push(vec![*block]),
                BlockKind::Instructions => match groups.last_mut() {
                    Some(group) if matches!(&group[..], [only] if only.kind == BlockKind::Executable) =>
                    {
                        group.push(*block);
                    }
                    _ => groups.push(vec![*block]),
                },
                BlockKind::Literals
                | BlockKind::Mismatches
                | BlockKind::Differences
                | BlockKind::Misses
                | BlockKind::Corrections => {
                    groups.last_mut().into_iter().for_each(|g| g.push(*block))
                }
                _ => {}
            }
        }
        let ahead = Ordered::new(GROUPS_AHEAD);
        let (waiting, current) = (groups.into_iter(), Current::default());
        Pieces { job, patch, old, waiting, ahead, current }
    }

    fn fetch_ahead(&mut self) {
        while self.ahead.has_room()
            && let Some(blocks) = self.waiting.next()
        {
            let (patch, hand) = (self.patch.clone(), self.job.crew.hand());
            let old = self.old.clone();
            self.ahead.push(self.job.handle.spawn(async move {
                let mut sealed = Vec::with_capacity(blocks.len());
                for block in blocks {
                    sealed.push((block, patch.fetch(&block).await?));
                }
                hand.run(move || {
                    let mut raw = Vec::with_capacity(sealed.len());
                    for (block, sealed) in sealed {
                        raw.push((block.kind, patch.decode(&block, &sealed)?, block.offset));
                    }
                    let at = raw[0].2;
                    decode(raw, &old, patch.image_bytes())
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
        let Decoded { group, instructions } = decoded?;
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

/// Puts a group together from its raw blocks. Work for the crew.
fn decode(
    blocks: Vec<(BlockKind, Vec<u8>, u64)>,
    old: &Arc<Vec<OldExecutable>>,
    (old_bytes, new_bytes): (u64, u64),
) -> Result<Decoded, Damage> {
    let mut group = Group { at: blocks[0].2, ..Group::default() };
    let mut executable = None;
    let mut instructions = GroupInstructions::default();
    for (kind, raw, _) in blocks {
        match kind {
            BlockKind::Executable => executable = Some(NewExecutable::decode(&raw, old.len())?),
            BlockKind::Instructions => {
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
    group.start = instructions.start;
    if instructions.literal_bytes() != group.literals.len() as u64 {
        return Err(Damage::new(0, "a group's instructions do not use up its literals"));
    }
    if executable.is_none() && !group.misses.is_empty() {
        return Err(Damage::new(0, "misses in a group that is no executable"));
    }
    if let Some(NewExecutable { space, told }) = executable {
        if u64::from(space.length()) != instructions.length() {
            return Err(Damage::new(0, "an executable is not as long as its instructions say"));
        }
        let copies = copy_parts(&instructions.list);
        let mut relocator = Relocator::new(old.clone(), space, copies);
        for told in told {
            relocator.tell(told.space, told.target, told.change);
        }
        group.relocator = Some(relocator);
    }
    Ok(Decoded { group, instructions })
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
