//! The instructions of a patch as one stream, cut to the units of the new image.

use std::ops::Range;
use std::sync::Arc;

use inflight::Task;
use inflight::stream::Ordered;

use crate::damage::Damage;
use crate::error::Result;
use crate::format::{BlockEntry, BlockKind, GroupInstructions, Instruction, PatchFile};
use crate::job::Job;

/// Groups fetched and decoded ahead.
const GROUPS_AHEAD: usize = 3;

/// What a stretch of the new image is made from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A range of the old image.
    Copy(Range<u64>),
    /// A range of a group's literals.
    Literal(Arc<Vec<u8>>, Range<usize>),
    /// One byte, so many times.
    Run(u8, usize),
}

/// The most memory that decoded groups take.
pub(super) fn bytes_at_once(patch: &PatchFile) -> u64 {
    let largest = patch.blocks().iter().map(|block| block.raw_bytes).max().unwrap_or(0);
    // Stored and decoded, and instructions as they are worked with.
    (GROUPS_AHEAD as u64 + 2) * (2 * u64::from(largest)) + (24 << 20)
}

/// Fetched and decompressed, not yet interpreted.
struct Fetched {
    at: u64,
    instructions: Vec<u8>,
    literals: Vec<u8>,
}

/// Hands out the sources of the new image front to back.
pub(super) struct Sources<'a> {
    job: &'a Job,
    patch: &'a PatchFile,
    /// Groups not yet fetched: the block of instructions, and that of literals, if any.
    waiting: std::vec::IntoIter<(BlockEntry, Option<BlockEntry>)>,
    ahead: Ordered<Task<Result<Fetched>>>,
    current: Group,
}

/// The group being handed out.
#[derive(Default)]
struct Group {
    at: u64,
    list: std::vec::IntoIter<Instruction>,
    literals: Arc<Vec<u8>>,
    literals_used: usize,
    /// What is left of the instruction under way.
    open: Option<Instruction>,
    /// Where the group ends in the new image.
    end: u64,
}

impl<'a> Sources<'a> {
    pub(super) fn new(job: &'a Job, patch: &'a PatchFile) -> Sources<'a> {
        let mut groups: Vec<(BlockEntry, Option<BlockEntry>)> = Vec::new();
        for block in patch.blocks() {
            match (block.kind, groups.last_mut()) {
                (BlockKind::Instructions, _) => groups.push((*block, None)),
                (BlockKind::Literals, Some(group)) => group.1 = Some(*block),
                _ => {}
            }
        }
        let ahead = Ordered::new(GROUPS_AHEAD);
        Sources { job, patch, waiting: groups.into_iter(), ahead, current: Group::default() }
    }

    fn fetch_ahead(&mut self) {
        while self.ahead.has_room()
            && let Some((instructions, literals)) = self.waiting.next()
        {
            let (patch, hand) = (self.patch.clone(), self.job.crew.hand());
            self.ahead.push(self.job.handle.spawn(async move {
                let sealed = patch.fetch(&instructions).await?;
                let sealed_literals = match &literals {
                    Some(block) => Some((*block, patch.fetch(block).await?)),
                    None => None,
                };
                let decode = move || {
                    let literals = match sealed_literals {
                        Some((block, sealed)) => patch.decode(&block, &sealed)?,
                        None => Vec::new(),
                    };
                    let at = instructions.offset;
                    let instructions = patch.decode(&instructions, &sealed)?;
                    Ok(Fetched { at, instructions, literals })
                };
                hand.run(decode).await
            }));
        }
    }

    /// Goes to the next group; says whether there is one.
    async fn next_group(&mut self) -> Result<bool> {
        self.fetch_ahead();
        let Some(fetched) = self.ahead.next().await else {
            return Ok(false);
        };
        let fetched = fetched?;
        self.fetch_ahead();
        let (old_bytes, new_bytes) = self.patch.image_bytes();
        let start = self.current.end;
        let damaged = |damage: Damage| self.patch.damaged(damage.inside(fetched.at));
        let group = GroupInstructions::decode(&fetched.instructions, start, old_bytes, new_bytes)
            .map_err(damaged)?;
        if group.literal_bytes() != fetched.literals.len() as u64 {
            let what = "a group's instructions do not use up its literals";
            return Err(damaged(Damage::new(0, what)));
        }
        self.current = Group {
            at: fetched.at,
            end: start + group.length(),
            list: group.list.into_iter(),
            literals: Arc::new(fetched.literals),
            literals_used: 0,
            open: None,
        };
        Ok(true)
    }

    /// What the next `length` bytes of the new image are made from.
    pub(super) async fn take(&mut self, length: u64) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        let mut missing = length;
        while missing > 0 {
            let open = self.current.open.take().or_else(|| self.current.list.next());
            let Some(instruction) = open else {
                if !self.next_group().await? {
                    let what = "the instructions end before the new tree does";
                    return Err(self.patch.damaged(Damage::new(self.current.at, what)));
                }
                continue;
            };
            let now = instruction.length().min(missing);
            sources.push(self.current.source(instruction, now));
            missing -= now;
        }
        Ok(sources)
    }

    /// Nothing may be left once the new image is made.
    pub(super) async fn finish(mut self) -> Result<()> {
        let left = self.current.open.is_some() || self.current.list.len() > 0;
        match left || self.next_group().await? {
            true => {
                let what = "the instructions go on behind the new tree";
                Err(self.patch.damaged(Damage::new(self.current.at, what)))
            }
            false => Ok(()),
        }
    }
}

impl Group {
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
                let source = Source::Literal(self.literals.clone(), from..self.literals_used);
                (source, Instruction::Literal { length: rest })
            }
            Instruction::Run { byte, .. } => {
                (Source::Run(byte, now as usize), Instruction::Run { byte, length: rest })
            }
        };
        self.open = (rest > 0).then_some(open);
        source
    }
}
