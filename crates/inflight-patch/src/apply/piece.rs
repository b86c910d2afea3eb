//! Putting together what one group makes of one unit of the new image.

use std::ops::Range;
use std::sync::Arc;

use inflight::Buffer;

use crate::damage::Damage;
use crate::format::Places;
use crate::transform::references::{CopyPart, Relocator, Scratch};

/// What the pieces of a group share.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Where its first block is in the patch, for messages.
    pub(super) at: u64,
    pub(super) literals: Vec<u8>,
    pub(super) mismatches: Vec<u8>,
    pub(super) differences: Vec<u8>,
    pub(super) misses: Vec<u8>,
    pub(super) corrections: Vec<u8>,
    /// What corrects its copies, if it makes an executable or a part of one.
    pub(super) relocation: Option<Relocation>,
}

/// What corrects the copies of an executable, whose groups share it.
#[derive(Debug, Clone)]
pub(super) struct Relocation {
    /// Where the executable starts in the new image.
    pub(super) start: u64,
    pub(super) relocator: Arc<Relocator>,
}

impl Relocation {
    /// Where a place of the new image is in the executable.
    fn place(&self, place: u64) -> u32 {
        (place - self.start) as u32
    }
}

/// What a stretch of the new image is made from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A range of the old image.
    Copy(Range<u64>),
    /// A range of the group's literals.
    Literal(Range<usize>),
    /// One byte, so many times.
    Run(u8, usize),
}

impl Source {
    /// Bytes that come from the old image.
    pub(super) fn copied_bytes(&self) -> u64 {
        match self {
            Source::Copy(old) => old.end - old.start,
            _ => 0,
        }
    }
}

/// What one group makes of one unit.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) group: Arc<Group>,
    /// Where it starts in the new image.
    pub(super) start: u64,
    pub(super) sources: Vec<Source>,
    /// What of the group's streams is the piece's.
    pub(super) gaps: Range<usize>,
    pub(super) differences: Range<usize>,
    pub(super) miss_gaps: Range<usize>,
    pub(super) corrections: Vec<i64>,
}

impl Piece {
    /// Whether it is nothing but bytes of the old image, as they are.
    pub(super) fn is_plain_copy(&self) -> bool {
        let copies = self.sources.iter().all(|source| matches!(source, Source::Copy(_)));
        copies && self.gaps.is_empty() && self.group.relocation.is_none()
    }

    /// Appends its bytes to `out`. `copy` appends a range of the old image. Work for the crew.
    pub(super) fn assemble(
        &self,
        out: &mut Buffer,
        mut copy: impl FnMut(Range<u64>, &mut Buffer),
    ) -> Result<(), Damage> {
        let group = &*self.group;
        let start = out.len();
        let mut places = Places::new(&group.mismatches[self.gaps.clone()]);
        let mut differences = group.differences[self.differences.clone()].iter();
        let mut misses = Misses {
            places: Places::new(&group.misses[self.miss_gaps.clone()]),
            corrections: self.corrections.iter(),
            seen: 0,
        };
        let mut scratch = Scratch::default();
        let mut copied = 0u64;
        for source in &self.sources {
            match source {
                Source::Copy(old) => {
                    let at = out.len();
                    copy(old.clone(), out);
                    let length = out.len() - at;
                    let bytes = &mut out.as_mut_slice()[at..];
                    let relocated = group.relocation.as_ref().map(|relocation| {
                        let new = relocation.place(self.start + (at - start) as u64);
                        let part = CopyPart { old: old.start, new, length: length as u32 };
                        (&relocation.relocator, part)
                    });
                    if let Some((relocator, part)) = relocated {
                        relocator.relocate(part, bytes, &mut scratch, |predicted| {
                            predicted.value.wrapping_add(misses.next() as u64)
                        });
                    }
                    let end = copied + length as u64;
                    let mut as_they_are = relocated
                        .into_iter()
                        .flat_map(|(relocator, part)| relocator.told_as_they_are(part))
                        .peekable();
                    while let Some(place) = places.take_below(end) {
                        let difference = differences.next().copied().unwrap_or(0);
                        let at = (place - copied) as usize;
                        while as_they_are.next_if(|range: &Range<usize>| range.end <= at).is_some()
                        {
                        }
                        let as_it_is = as_they_are.peek().is_some_and(|range| range.contains(&at));
                        let base = if as_it_is { 0 } else { bytes[at] };
                        bytes[at] = base.wrapping_add(difference);
                    }
                    copied = end;
                }
                Source::Literal(range) => {
                    let at = out.len();
                    out.extend_from_slice(&group.literals[range.clone()]);
                    if let Some(relocation) = &group.relocation {
                        let place = relocation.place(self.start + (at - start) as u64);
                        let literals = &mut out.as_mut_slice()[at..];
                        relocation.relocator.make_different(place, literals);
                    }
                }
                Source::Run(byte, count) => out.extend_fill(*byte, *count),
            }
        }
        match places.is_done() && misses.places.is_done() {
            true => Ok(()),
            false => Err(Damage::new(group.at, "a place lies behind its piece")),
        }
    }
}

/// Hands out how far references are from what was predicted.
struct Misses<'a> {
    places: Places<'a>,
    corrections: std::slice::Iter<'a, i64>,
    /// References seen so far.
    seen: u64,
}

impl Misses<'_> {
    fn next(&mut self) -> i64 {
        let missed = self.places.take(self.seen);
        self.seen += 1;
        match missed {
            // One correction for each place: that was counted before.
            true => self.corrections.next().copied().unwrap_or(0),
            false => 0,
        }
    }
}
