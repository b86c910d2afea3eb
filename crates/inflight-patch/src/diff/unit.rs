//! Matching one unit of the new image: the coarse grain, then the fine one in what it leaves.

use std::ops::Range;
use std::sync::Arc;

use super::effort::Effort;
use super::far::FarIndex;
use super::gaps::refined;
use super::known::{Known, PartDigest};
use super::matching::{Stretch, append, is_copy_of, match_stretch};
use super::near::{Agreement, NearIndex};
use super::old::OldView;
use super::patchwork::{Found, Patchwork, cheaper, cover, patchworks, with_each_patchwork};
use super::piece::Piece;
use crate::error::Result;
use crate::format::Instruction;
use crate::image::Image;
use crate::layout::{FilePart, UNIT_BYTES};

/// A literal so long is looked for near its counterpart.
const NEAR_BYTES_MIN: u64 = 32;
/// Of a longer one of a large file so much is looked for first, and twice as much as long as one byte
/// in so many is found: it may be no edit of what stood there.
const NEAR_BYTES_FIRST: u64 = 16 << 10;
const NEAR_BYTES_FOUND: u64 = 8;
/// How far around the neighbours of a literal in a large file.
const NEAR_BYTES_AROUND: u64 = 4 << 10;

/// What is made of a unit of the new image.
#[derive(Debug, Default)]
pub(super) struct Matched {
    pub(super) bytes: u64,
    pub(super) pieces: Vec<MatchedPiece>,
    pub(super) digests: Vec<PartDigest>,
}

/// What makes a piece of the new image.
#[derive(Debug)]
pub(super) enum MatchedPiece {
    /// What is matched, and where in the new image it starts.
    Plain { place: u64, piece: Piece },
    /// The start of an executable that has groups of its own, or more of it.
    Executable { starts: bool },
}

/// Matches units. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct UnitMatcher {
    image: Image,
    known: Arc<Known>,
    /// Where in the new image executables are that have groups of their own.
    executables: Arc<[Range<u64>]>,
    far: Option<Arc<FarIndex>>,
    effort: Effort,
}

impl Matched {
    fn plain(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.pieces.iter().filter_map(|piece| match piece {
            MatchedPiece::Plain { place, piece } => Some((*place, piece)),
            MatchedPiece::Executable { .. } => None,
        })
    }

    /// The same with what `work` makes of each plain piece, of which it gets the place as well.
    fn with_each_plain(self, mut work: impl FnMut(u64, Piece) -> Result<Piece>) -> Result<Matched> {
        let each = |piece| match piece {
            MatchedPiece::Plain { place, piece } => {
                Ok(MatchedPiece::Plain { place, piece: work(place, piece)? })
            }
            other => Ok(other),
        };
        Ok(Matched { pieces: self.pieces.into_iter().map(each).collect::<Result<_>>()?, ..self })
    }

    /// Bytes of literals.
    pub(super) fn literal_bytes(&self) -> u64 {
        self.plain().map(|(_, piece)| piece.literal_bytes()).sum()
    }

    /// Memory that it takes, about.
    pub(super) fn footprint(&self) -> u64 {
        self.plain().map(|(_, piece)| piece.footprint()).sum()
    }

    /// Whether a second look may find more of it.
    pub(super) fn is_worth_a_look(&self) -> bool {
        self.plain().any(|(_, piece)| piece.is_worth_a_look())
    }

    /// The same without the bytes of long literals.
    pub(super) fn without_literals(mut self) -> Matched {
        for piece in &mut self.pieces {
            if let MatchedPiece::Plain { piece, .. } = piece {
                piece.leave_literals_out();
            }
        }
        self
    }

    /// Where in the new image the bytes are that were left out.
    pub(super) fn left_out(&self) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        for (place, piece) in self.plain() {
            piece.each_left_out(place, |place, length| ranges.push(place..place + length as u64));
        }
        ranges
    }

    /// Puts back what was left out: `read` gives the bytes of ranges of the new image, in order.
    pub(super) fn put_back<'a>(&mut self, mut read: impl FnMut(Range<u64>) -> &'a [u8]) {
        for piece in &mut self.pieces {
            if let MatchedPiece::Plain { place, piece } = piece {
                piece.put_back(*place, &mut read);
            }
        }
    }

    /// The stretches of literals and short copies.
    pub(super) fn patchworks(&self) -> Vec<Patchwork> {
        self.plain().flat_map(|(place, piece)| patchworks(piece, place)).collect()
    }

    /// The same with such stretches made of what was found.
    pub(super) fn with_found(self, found: &[Found]) -> Matched {
        if found.is_empty() {
            return self;
        }
        let with_found = |place, piece| {
            with_each_patchwork(piece, place, |patchwork, parts, anew| {
                cover(&patchwork, parts, found, anew);
                Ok(())
            })
        };
        self.with_each_plain(with_found).expect("covering does not fail")
    }
}

/// What is given about a unit besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    /// The digests of its parts, where they are known already.
    pub(super) digests: Option<&'a [PartDigest]>,
    /// Up to where old bytes are known.
    pub(super) horizon: u64,
}

impl UnitMatcher {
    pub(super) fn new(
        image: Image,
        known: Arc<Known>,
        executables: Vec<Range<u64>>,
        effort: Effort,
    ) -> UnitMatcher {
        UnitMatcher { image, known, executables: executables.into(), far: None, effort }
    }

    /// The same, which looks through all of the old image for what is left.
    pub(super) fn with_far(self, far: FarIndex) -> UnitMatcher {
        UnitMatcher { far: Some(Arc::new(far)), ..self }
    }

    pub(super) fn image(&self) -> &Image {
        &self.image
    }

    /// Matches a unit. Work for the crew.
    pub(super) fn unit(
        &self,
        range: Range<u64>,
        bytes: &[u8],
        given: Given<'_>,
    ) -> Result<Matched> {
        let mut matched = Matched { bytes: range.end - range.start, ..Matched::default() };
        let (mut plain, mut place) = (Piece::default(), range.start);
        for (number, part) in self.image.layout.parts(&range).enumerate() {
            let known = given.digests.map(|digests| digests[number]);
            let mut list = Vec::new();
            let mut is_all_plain = true;
            for stretch in self.stretches(&part, range.start) {
                match stretch {
                    Cut::Executable { starts } => {
                        is_all_plain = false;
                        if !plain.is_empty() {
                            let piece = std::mem::take(&mut plain);
                            matched.pieces.push(MatchedPiece::Plain { place, piece });
                        }
                        matched.pieces.push(MatchedPiece::Executable { starts });
                    }
                    Cut::Plain(inside) => {
                        if plain.is_empty() {
                            place = range.start + inside.start as u64;
                        }
                        list.clear();
                        let horizon = given.horizon;
                        self.stretch(&part, inside, bytes, known, horizon, &mut list, &mut plain)?;
                    }
                }
            }
            let bytes = &bytes[part.inside.clone()];
            let copied = match is_all_plain {
                true => self.take_over_digest(&list, &part, given.horizon),
                false => None,
            };
            let digest = match copied.or(known) {
                Some(digest) => digest,
                // Executables are not matched here, but may be as they were.
                None if !is_all_plain => self.known.part_digest(&part, bytes)?,
                None => PartDigest::of(&part, bytes),
            };
            matched.digests.push(digest);
        }
        if !plain.is_empty() {
            matched.pieces.push(MatchedPiece::Plain { place, piece: plain });
        }
        Ok(matched)
    }

    /// Looks up again what stayed unmatched while the old tree was not known as a whole. Work for
    /// the crew.
    pub(super) fn look_again(&self, matched: Matched) -> Result<Matched> {
        matched.with_each_plain(|_, piece| {
            let mut view = self.known.image.view();
            piece.look_again(|bytes| self.look_up(bytes, &mut view))
        })
    }

    /// Matches the stretches of literals and short copies again, which have these bytes; nothing is
    /// left out afterwards. Work for the crew.
    pub(super) fn match_again(&self, matched: Matched, mut bytes: &[u8]) -> Result<Matched> {
        matched.with_each_plain(|place, piece| {
            let mut view = self.known.image.view();
            with_each_patchwork(piece, place, |patchwork, parts, anew| {
                let (stretch, rest) = bytes.split_at(patchwork.length() as usize);
                bytes = rest;
                let mut again = Piece::default();
                again.add(&self.look_up(stretch, &mut view)?, stretch);
                let mut chosen = cheaper(parts, again);
                let start = patchwork.range.start;
                chosen.put_back(start, |range| {
                    &stretch[(range.start - start) as usize..(range.end - start) as usize]
                });
                anew.parts.extend(chosen.parts);
                Ok(())
            })
        })
    }

    /// Matches bytes with all of the old image.
    fn look_up(&self, bytes: &[u8], view: &mut OldView) -> Result<Vec<Instruction>> {
        let mut list = Vec::new();
        let stretch = Stretch { bytes, guess: None };
        match_stretch(&stretch, self.known.lookup(u64::MAX), view, &mut list)?;
        match self.effort.near && list.len() > 1 {
            true => near_neighbours(&list, bytes, None, view),
            false => Ok(list),
        }
    }

    /// What is made of a range that lies wholly in an executable.
    pub(super) fn executable_at(&self, range: &Range<u64>) -> Option<Matched> {
        let first = self.executables.partition_point(|other| other.end <= range.start);
        let executable = self.executables.get(first)?;
        if executable.start > range.start || executable.end < range.end {
            return None;
        }
        let starts = executable.start == range.start;
        let pieces = vec![MatchedPiece::Executable { starts }];
        Some(Matched { bytes: range.end - range.start, pieces, digests: Vec::new() })
    }

    /// Cuts a part of a file into executables and the rest.
    fn stretches(&self, part: &FilePart, unit_start: u64) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let end = part.inside.end;
        let mut position = part.inside.start;
        let place = |position: usize| unit_start + position as u64;
        let first = self.executables.partition_point(|range| range.end <= place(position));
        for range in &self.executables[first..] {
            if range.start >= place(end) {
                break;
            }
            let from = range.start.saturating_sub(unit_start).max(position as u64) as usize;
            if position < from {
                cuts.push(Cut::Plain(position..from));
            }
            cuts.push(Cut::Executable { starts: range.start >= place(part.inside.start) });
            position = (range.end - unit_start).min(end as u64) as usize;
        }
        if position < end {
            cuts.push(Cut::Plain(position..end));
        }
        cuts
    }

    #[allow(clippy::too_many_arguments, reason = "a stretch, all that is known of it, and results")]
    fn stretch(
        &self,
        part: &FilePart,
        inside: Range<usize>,
        bytes: &[u8],
        digest: Option<PartDigest>,
        horizon: u64,
        list: &mut Vec<Instruction>,
        piece: &mut Piece,
    ) -> Result<()> {
        let known = &self.known;
        let offset = (inside.start - part.inside.start) as u64;
        let counterpart = known.guess(part);
        let guess = counterpart.map(|(_, place)| place + offset);
        let bytes = &bytes[inside];
        let mut view = known.image.view();
        let taken_over = digest.and_then(|digest| digest.old_file);
        match (taken_over, counterpart, guess) {
            // Compared when it was read.
            (Some(file), Some((same, _)), Some(old)) if file == same => {
                list.push(Instruction::Copy { old, length: bytes.len() as u64 });
            }
            _ => {
                let guess = guess.filter(|place| *place < known.image.bytes());
                let stretch = Stretch { bytes, guess };
                match_stretch(&stretch, known.lookup(horizon), &mut view, list)?;
            }
        }
        if part.length <= UNIT_BYTES {
            if let Some(range) = self.related(list, guess) {
                *list = view.with_bytes(range.clone(), |old| {
                    let index = NearIndex::new(old);
                    let mut out = Vec::with_capacity(list.len());
                    each_literal(list, &mut out, |at, length, out| {
                        let new = &bytes[at..at + length];
                        add_agreements(&index.agreements(new), length, range.start, out);
                    });
                    out
                })?;
            }
        } else if self.effort.near {
            *list = near_neighbours(list, bytes, guess, &mut view)?;
        }
        if let Some(far) = &self.far
            && let Some(old) = known.image.whole_bytes()
        {
            let mut out = Vec::with_capacity(list.len());
            each_literal(list, &mut out, |at, length, out| {
                add_agreements(&far.agreements(&bytes[at..at + length], old), length, 0, out);
            });
            *list = out;
        }
        refined(list, bytes, &mut view, piece)
    }

    /// The old file to look in for what is left of a small file: that of the same path, or the one
    /// that its first copy comes from.
    fn related(&self, list: &[Instruction], guess: Option<u64>) -> Option<Range<u64>> {
        if !list.iter().any(is_left) {
            return None;
        }
        let copied = list.iter().find_map(|instruction| match instruction {
            Instruction::Copy { old, .. } => Some(*old),
            _ => None,
        });
        let place = guess.or(copied)?;
        let (_, span) = self.known.image.image().layout.files_in(place..place + 1).next()?;
        let start = place.saturating_sub(UNIT_BYTES).max(span.image.start);
        Some(start..span.image.end.min(place + UNIT_BYTES))
    }

    /// A part that is a copy of the same part of an old file has the digest that was computed there.
    fn take_over_digest(
        &self,
        list: &[Instruction],
        part: &FilePart,
        horizon: u64,
    ) -> Option<PartDigest> {
        let [Instruction::Copy { old, length }] = list else { return None };
        let old_image = self.known.image.image();
        let (file, span) = old_image.layout.files_in(*old..*old + 1).next()?;
        let from = span.image.start + part.offset;
        let whole = is_copy_of(list, &(from..from + part.inside.len() as u64));
        // What lies behind the horizon may be known by now, but need not.
        if !whole || *old != from || *old + *length > horizon {
            return None;
        }
        self.known.taken(part, file)
    }
}

/// Whether an instruction is a literal that is worth to be looked for in detail.
fn is_left(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Literal { length } if *length >= NEAR_BYTES_MIN)
}

/// Appends `list` to `out`, but for long literals, which `each` gets: place, length and `out`.
fn each_literal(
    list: &[Instruction],
    out: &mut Vec<Instruction>,
    mut each: impl FnMut(usize, usize, &mut Vec<Instruction>),
) {
    let mut position = 0;
    for instruction in list {
        let length = instruction.length() as usize;
        match is_left(instruction) {
            true => each(position, length, out),
            false => append(out, *instruction),
        }
        position += length;
    }
}

/// Appends instructions that make `length` bytes: what agrees with old bytes, which start at `base`,
/// and the rest as literals.
fn add_agreements(found: &[Agreement], length: usize, base: u64, out: &mut Vec<Instruction>) {
    let mut done = 0;
    let literal = |from: usize, to: usize, out: &mut Vec<Instruction>| {
        if from < to {
            append(out, Instruction::Literal { length: (to - from) as u64 });
        }
    };
    for found in found {
        literal(done, found.new, out);
        let (old, length) = (base + found.old as u64, found.length as u64);
        append(out, Instruction::Copy { old, length });
        done = found.new + found.length;
    }
    literal(done, length, out);
}

/// The same instructions, with what agrees with old bytes between the neighbouring copies in place
/// of literals; where no copy is before one, with those around its counterpart.
fn near_neighbours(
    list: &[Instruction],
    new: &[u8],
    guess: Option<u64>,
    view: &mut OldView,
) -> Result<Vec<Instruction>> {
    let mut out = Vec::with_capacity(list.len());
    let mut position = 0;
    for (number, instruction) in list.iter().enumerate() {
        let length = instruction.length();
        let bytes = &new[position..position + length as usize];
        let counterpart = guess.map(|guess| guess + position as u64);
        position += length as usize;
        let before = match number.checked_sub(1).map(|before| list[before]) {
            Some(Instruction::Copy { old, length }) => Some(old + length),
            _ => counterpart.filter(|place| *place < view.length()),
        };
        let Some(before) = before.filter(|_| is_left(instruction)) else {
            append(&mut out, *instruction);
            continue;
        };
        // Up to the next copy, if it goes on near by.
        let behind = match list.get(number + 1) {
            Some(Instruction::Copy { old, .. })
                if (before..=before + 2 * length + NEAR_BYTES_AROUND).contains(old) =>
            {
                *old
            }
            _ => before + length,
        };
        let end = (behind + NEAR_BYTES_AROUND).min(view.length());
        near_literal(bytes, before..end, view, &mut out)?;
    }
    Ok(out)
}

/// Appends what makes a literal whose counterpart is about a range of the old image: what agrees with
/// that, and the rest.
fn near_literal(
    mut bytes: &[u8],
    counterpart: Range<u64>,
    view: &mut OldView,
    out: &mut Vec<Instruction>,
) -> Result<()> {
    let mut place = counterpart.start;
    let mut now = NEAR_BYTES_FIRST;
    while !bytes.is_empty() && place < counterpart.end {
        let (slice, rest) = bytes.split_at(bytes.len().min(now as usize));
        let end = match rest.is_empty() {
            true => counterpart.end,
            false => counterpart.end.min(place + now + NEAR_BYTES_AROUND),
        };
        let range = place.saturating_sub(NEAR_BYTES_AROUND)..end;
        let found: u64 = view.with_bytes(range.clone(), |old| {
            let found = NearIndex::new(old).agreements(slice);
            add_agreements(&found, slice.len(), range.start, out);
            found.iter().map(|found| found.length as u64).sum()
        })?;
        bytes = rest;
        if found * NEAR_BYTES_FOUND < slice.len() as u64 {
            break;
        }
        place += now;
        now *= 2;
    }
    if !bytes.is_empty() {
        append(out, Instruction::Literal { length: bytes.len() as u64 });
    }
    Ok(())
}

/// A part of a file, by who makes it.
enum Cut {
    Plain(Range<usize>),
    Executable { starts: bool },
}
