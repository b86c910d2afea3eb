//! Matching the new tree unit by unit, and handing what makes it on in order.

use std::ops::Range;
use std::sync::Arc;

use inflight::Buffer;

use super::DiffReport;
use super::executables::IMAGE_BYTES_MAX;
use super::group::{Group, Piece};
use super::matching::{Stretch, is_copy_of, match_stretch};
use super::output::Output;
use super::plan::Plan;
use super::read::{Known, PartDigest, Whole};
use crate::align::Copy;
use crate::align::extend::Scoring;
use crate::align::refine::{RefineOptions, bridge, refine};
use crate::error::Result;
use crate::format::{Instruction, PatchWriter};
use crate::image::Image;
use crate::job::{Job, Phase};
use crate::layout::FilePart;
use crate::pump::{pump, pump_image};

/// What the crew makes of a unit of the new image.
struct Matched {
    bytes: u64,
    pieces: Vec<MatchedPiece>,
    digests: Vec<PartDigest>,
}

/// What makes a piece of the new image.
enum MatchedPiece {
    Plain(Piece),
    /// The start of an executable that has a group of its own, or more of it.
    Executable {
        starts: bool,
    },
}

/// Matches the new tree and writes the groups that make it: those of executables are `made`
/// already. `whole` has the new tree where it fits into memory; else it is read now.
#[allow(clippy::too_many_arguments, reason = "the whole state of a diff comes together here")]
pub(super) async fn match_all(
    job: &Job,
    image: Image,
    known: Arc<Known>,
    whole: Option<Arc<Whole>>,
    made: Vec<Vec<Group>>,
    plan: &Plan,
    mut output: Output,
    report: &mut DiffReport,
) -> Result<PatchWriter> {
    job.progress.enter(Phase::Match);
    let range = |groups: &Vec<Group>| groups[0].range().start..groups[groups.len() - 1].range().end;
    let executables: Vec<Range<u64>> = made.iter().map(range).collect();
    let matcher =
        Matcher { image: image.clone(), known: known.clone(), executables: executables.into() };
    let mut made = made.into_iter();
    // The units so far of the file under way.
    let mut open: Vec<PartDigest> = Vec::new();
    let mut digests = Vec::new();
    let finish = async |matched: Matched| {
        for piece in &matched.pieces {
            match piece {
                MatchedPiece::Plain(piece) => output.add(piece, report).await?,
                MatchedPiece::Executable { starts: true } => {
                    for group in made.next().expect("groups for each executable") {
                        output.add_group(group, report).await?;
                    }
                }
                MatchedPiece::Executable { starts: false } => {}
            }
        }
        for digest in &matched.digests {
            open.push(*digest);
            let span = &image.layout.files[digest.file as usize];
            if open.len() as u64 == span.units() {
                digests.push(known.file_digest(&open, span.bytes()));
                open.clear();
            }
        }
        job.progress.advance(matched.bytes);
        Ok(())
    };
    match whole {
        Some(whole) => {
            let start = async |(number, range): (usize, Range<u64>)| {
                job.progress.check()?;
                let (whole, matcher) = (whole.clone(), matcher.clone());
                Ok(job.crew.hand().run(move || {
                    let bytes = &whole.bytes[range.start as usize..range.end as usize];
                    matcher.unit(range.clone(), bytes, Some(&whole.digests[number]))
                }))
            };
            pump(image.layout.units().enumerate(), plan.depth, start, finish).await?;
        }
        None => {
            let work = move |range, buffer: Buffer| matcher.unit(range, &buffer, None);
            pump_image(job, &image, plan.depth, None, work, finish).await?;
        }
    }
    output.finish((&known.digests, &digests), report).await
}

/// Matches units. Cheap to clone.
#[derive(Clone)]
struct Matcher {
    image: Image,
    known: Arc<Known>,
    /// Where in the new image executables are that have groups of their own.
    executables: Arc<[Range<u64>]>,
}

impl Matcher {
    /// Matches a unit, whose digests may be known already. Work for the crew.
    fn unit(
        &self,
        range: Range<u64>,
        bytes: &[u8],
        digests: Option<&[PartDigest]>,
    ) -> Result<Matched> {
        let mut found = Vec::new();
        let mut pieces = Vec::new();
        let mut plain = Piece::default();
        for (number, part) in self.image.layout.parts(&range).enumerate() {
            let known = digests.map(|digests| digests[number]);
            let mut list = Vec::new();
            for stretch in self.stretches(&part, range.start) {
                match stretch {
                    Cut::Executable { starts } => {
                        if !plain.is_empty() {
                            pieces.push(MatchedPiece::Plain(std::mem::take(&mut plain)));
                        }
                        pieces.push(MatchedPiece::Executable { starts });
                    }
                    Cut::Plain(inside) => {
                        list.clear();
                        self.stretch(&part, inside, bytes, known, &mut list, &mut plain)?;
                    }
                }
            }
            let digest = self.take_over_digest(&list, &part).or(known);
            let of = || PartDigest::of(&part, &bytes[part.inside.clone()]);
            found.push(digest.unwrap_or_else(of));
        }
        if !plain.is_empty() {
            pieces.push(MatchedPiece::Plain(plain));
        }
        Ok(Matched { bytes: range.end - range.start, pieces, digests: found })
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

    fn stretch(
        &self,
        part: &FilePart,
        inside: Range<usize>,
        bytes: &[u8],
        digest: Option<PartDigest>,
        list: &mut Vec<Instruction>,
        piece: &mut Piece,
    ) -> Result<()> {
        let known = &self.known;
        let offset = (inside.start - part.inside.start) as u64;
        let guess = known.guess(&self.image, part).map(|(_, place)| place + offset);
        let bytes = &bytes[inside];
        match (digest.and_then(|digest| digest.old_file), guess) {
            // Compared when it was read.
            (Some(_), Some(old)) => {
                list.push(Instruction::Copy { old, length: bytes.len() as u64 });
            }
            _ => {
                let guess = guess.filter(|place| *place < known.image.bytes());
                let mut view = known.image.view();
                let stretch = Stretch { bytes, guess };
                match_stretch(&stretch, &known.index, known.sizes, &mut view, list)?;
            }
        }
        match known.image.whole_bytes() {
            Some(old) if old.len() <= IMAGE_BYTES_MAX => refined(list, bytes, old, piece),
            _ => piece.add(list, bytes),
        }
        Ok(())
    }

    /// A part that is a copy of the same part of an old file has the digest that was computed there.
    fn take_over_digest(&self, list: &[Instruction], part: &FilePart) -> Option<PartDigest> {
        let [Instruction::Copy { old, .. }] = list else { return None };
        let old_image = self.known.image.image();
        let (file, span) = old_image.layout.files_in(*old..*old + 1).next()?;
        let from = span.image.start + part.offset;
        if *old != from || !is_copy_of(list, &(from..from + part.inside.len() as u64)) {
            return None;
        }
        self.known.taken(part, file)
    }
}

/// Adds to `piece` what makes `new`, looking again through what `list` has as literals, near the
/// copies around them.
fn refined(list: &[Instruction], new: &[u8], old: &[u8], piece: &mut Piece) {
    let is_literal = |instruction: &Instruction| matches!(instruction, Instruction::Literal { .. });
    if !list.iter().any(is_literal) {
        return piece.add(list, new);
    }
    let scoring = Scoring { mismatch: 3, drop: 24 };
    let options = RefineOptions { scoring, score_min: 16, window_bytes: 256 };
    let mut position = 0;
    for list in list.chunk_by(|a, b| !is_run(a) && !is_run(b)) {
        let start = position;
        let mut copies = Vec::new();
        for instruction in list {
            let length = instruction.length() as usize;
            if let Instruction::Copy { old, .. } = instruction {
                let (new, length) = (position as u32, length as u32);
                copies.push(Copy { new, old: *old as u32, length });
            }
            position += length;
        }
        if copies.is_empty() {
            piece.add(list, &new[start..position]);
            continue;
        }
        let mut done = start;
        for copy in bridge(new, old, &refine(new, start..position, old, &copies, &options)) {
            let (from, to) = (copy.new as usize, copy.new_end() as usize);
            if done < from {
                let literal = Instruction::Literal { length: (from - done) as u64 };
                piece.add(&[literal], &new[done..from]);
            }
            let place = copy.old as usize..copy.old_end() as usize;
            piece.add_copy(copy.old.into(), &old[place], &new[from..to]);
            done = to;
        }
        if done < position {
            let literal = Instruction::Literal { length: (position - done) as u64 };
            piece.add(&[literal], &new[done..position]);
        }
    }
}

fn is_run(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Run { .. })
}

/// A part of a file, by who makes it.
enum Cut {
    Plain(Range<usize>),
    Executable { starts: bool },
}
