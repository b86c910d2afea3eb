//! Finding the new image in the old one: the coarse grain.
//!
//! Most of a new build is the old build, moved. So the diagonal of the last match comes first: the
//! old file of the same path, then wherever the last match led. Only where that breaks are bytes
//! cut into chunks and looked up; a hit is confirmed by comparing, extended both ways as far as
//! bytes agree, and becomes the next diagonal. What stays unmatched is literal: the place where a
//! finer grain and transforms will look.
//!
//! The result depends on the two images and the settings alone, not on threads or request sizes.

use std::ops::Range;

use super::chunk::{ChunkSizes, hash, run_length};
use super::index::{Index, Signature};
use super::old::OldView;
use crate::error::Result;
use crate::format::Instruction;

/// The shortest copy worth its instruction.
const COPY_BYTES_MIN: usize = 24;
/// The shortest run worth its instruction.
const RUN_BYTES_MIN: usize = 128;
/// How far behind a break the last diagonal is tried again.
const RESUME_BYTES: usize = 512;
/// From how many chunks before the end of a match cuts are looked for, to find those of the old image.
const SPAN_CHUNKS: usize = 4;
/// The shortest agreement behind a break that resumes a diagonal.
const RESUME_EQUAL_BYTES: usize = 24;

/// A stretch of the new image to be matched: part of one file.
#[derive(Debug)]
pub(crate) struct Stretch<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where its counterpart in the file of the same path starts in the old image.
    pub(crate) guess: Option<u64>,
}

/// Where chunks are looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub(crate) index: &'a Index,
    pub(crate) sizes: ChunkSizes,
    /// Old bytes from here on are not found.
    pub(crate) horizon: u64,
}

/// Cuts a file's bytes into chunks and lists their hashes. `place` is where they start.
pub(crate) fn signatures(bytes: &[u8], place: u64, sizes: ChunkSizes, out: &mut Vec<Signature>) {
    let mut position = 0;
    while position < bytes.len() {
        let run = run_length(&bytes[position..]);
        if run >= RUN_BYTES_MIN {
            // Matched as a run wherever it stands in the new tree: no need to find it here.
            position += run;
            continue;
        }
        let length = sizes.cut(&bytes[position..]);
        let chunk = &bytes[position..position + length];
        out.push(Signature { hash: hash(chunk), place: place + position as u64 });
        position += length;
    }
}

/// Matches one stretch; appends instructions that make it, and nothing else, to `out`.
pub(crate) fn match_stretch(
    stretch: &Stretch<'_>,
    index: Lookup<'_>,
    old: &mut OldView,
    out: &mut Vec<Instruction>,
) -> Result<()> {
    let new = stretch.bytes;
    let matcher = Matcher { new, index, old, out, matched: 0, diagonal: stretch.guess };
    matcher.run()
}

struct Matcher<'a> {
    new: &'a [u8],
    index: Lookup<'a>,
    old: &'a mut OldView,
    out: &'a mut Vec<Instruction>,
    /// Up to here instructions were made.
    matched: usize,
    /// Where in the old image the byte at `matched` would be, if the last match went on.
    diagonal: Option<u64>,
}

impl Matcher<'_> {
    fn run(mut self) -> Result<()> {
        if let Some(guess) = self.diagonal {
            self.follow(0, guess)?;
        }
        let mut position = self.matched;
        while position < self.new.len() {
            position = self.step(position)?;
        }
        self.literal_until(self.new.len());
        Ok(())
    }

    /// Deals with the bytes at `position`; says where to go on.
    fn step(&mut self, position: usize) -> Result<usize> {
        let rest = &self.new[position..];
        let run = run_length(rest);
        if run >= RUN_BYTES_MIN {
            self.literal_until(position);
            let (byte, length) = (rest[0], run as u64);
            self.push(Instruction::Run { byte, length });
            self.advance(position + run);
            return Ok(self.matched);
        }
        if position == self.matched
            && let Some(place) = self.diagonal
            && let Some(ahead) = self.resume(position, place)?
        {
            return Ok(ahead);
        }
        let is_behind_copy =
            position == self.matched && matches!(self.out.last(), Some(Instruction::Copy { .. }));
        if is_behind_copy && self.follow_spanning(position)? {
            return Ok(self.matched);
        }
        let chunk = &rest[..self.index.sizes.cut(rest)];
        let behind = position + chunk.len();
        let Some(place) = self.index.index.find(hash(chunk), self.index.horizon) else {
            return Ok(behind);
        };
        if self.old.equal_ahead(chunk, place)? < chunk.len() {
            return Ok(behind);
        }
        self.follow(position, place)?;
        Ok(self.matched.max(behind))
    }

    /// The last diagonal broke at `position`. Where it goes on shortly behind, a few bytes were
    /// replaced in place: takes it up there.
    fn resume(&mut self, position: usize, place: u64) -> Result<Option<usize>> {
        let window = RESUME_BYTES.min(self.new.len() - position) as u64;
        let new = &self.new[position..];
        let goes_on = |old: &[u8]| {
            let mut equal = 0;
            new.iter().zip(old).position(|(a, b)| {
                equal = if a == b { equal + 1 } else { 0 };
                equal == RESUME_EQUAL_BYTES
            })
        };
        let end = (place + window).min(self.old.length());
        if place < end
            && let Some(last) = self.old.with_bytes(place..end, goes_on)?
        {
            let start = last + 1 - RESUME_EQUAL_BYTES;
            self.follow(position + start, place + start as u64)?;
            return Ok(Some(self.matched));
        }
        // Tried once; look-ups find the next one.
        self.diagonal = None;
        Ok(None)
    }

    /// A match ended at `position`. Where its bytes stand in many places, what follows them here
    /// follows them in few: looks up the chunk that reaches over the end, and takes up the match that
    /// goes on.
    fn follow_spanning(&mut self, position: usize) -> Result<bool> {
        let sizes = self.index.sizes;
        let mut start = position.saturating_sub(SPAN_CHUNKS * sizes.target());
        let chunk = loop {
            let chunk = &self.new[start..start + sizes.cut(&self.new[start..])];
            match start + chunk.len() > position {
                true => break chunk,
                false => start += chunk.len(),
            }
        };
        if start == position {
            return Ok(false);
        }
        let Some(place) = self.index.index.find(hash(chunk), self.index.horizon) else {
            return Ok(false);
        };
        let place = place + (position - start) as u64;
        let rest = &chunk[position - start..];
        if rest.len() < COPY_BYTES_MIN || self.old.equal_ahead(rest, place)? < rest.len() {
            return Ok(false);
        }
        self.follow(position, place)?;
        Ok(self.matched > position)
    }

    /// Bytes at `position` agree with the old image at `place`: makes a copy of all around that
    /// agrees, unless it is too short to be worth it.
    fn follow(&mut self, position: usize, place: u64) -> Result<()> {
        let behind = self.old.equal_behind(&self.new[self.matched..position], place)?;
        let ahead = self.old.equal_ahead(&self.new[position..], place)?;
        let length = behind + ahead;
        if length < COPY_BYTES_MIN.min(self.new.len()) || length == 0 {
            return Ok(());
        }
        let start = position - behind;
        self.literal_until(start);
        let old = place - behind as u64;
        self.push(Instruction::Copy { old, length: length as u64 });
        self.advance(start + length);
        self.diagonal = Some(old + length as u64);
        Ok(())
    }

    fn literal_until(&mut self, position: usize) {
        if position > self.matched {
            self.push(Instruction::Literal { length: (position - self.matched) as u64 });
            self.advance(position);
        }
    }

    /// Moves on; the diagonal moves along.
    fn advance(&mut self, to: usize) {
        let step = (to - self.matched) as u64;
        self.diagonal = self.diagonal.map(|place| place + step);
        self.matched = to;
    }

    fn push(&mut self, instruction: Instruction) {
        append(self.out, instruction);
    }
}

/// Appends an instruction, merged with the last one where the two are one.
pub(crate) fn append(list: &mut Vec<Instruction>, next: Instruction) {
    if let Some(last) = list.last_mut() {
        match (last, next) {
            (
                Instruction::Copy { old, length },
                Instruction::Copy { old: next_old, length: more },
            ) if *old + *length == next_old => {
                *length += more;
                return;
            }
            (Instruction::Literal { length }, Instruction::Literal { length: more }) => {
                *length += more;
                return;
            }
            (
                Instruction::Run { byte, length },
                Instruction::Run { byte: next_byte, length: more },
            ) if *byte == next_byte => {
                *length += more;
                return;
            }
            _ => {}
        }
    }
    list.push(next);
}

/// Whether instructions make exactly one copy of a whole range of the old image.
pub(crate) fn is_copy_of(list: &[Instruction], range: &Range<u64>) -> bool {
    let length = range.end - range.start;
    matches!(list, [Instruction::Copy { old, length: copied }]
        if *old == range.start && *copied == length)
}
