//! Reading both trees: each byte once, hashed on the way.

use std::ops::Range;
use std::sync::Arc;

use inflight::{Arena, ArenaBytes, Buffer};
use rayon::prelude::*;

use super::chunk::ChunkSizes;
use super::index::{Index, Signature};
use super::matching::signatures;
use super::old::OldImage;
use super::plan::{Held, Plan};
use crate::digest::{self, UnitDigest};
use crate::error::{Error, Result};
use crate::format::FileDigest;
use crate::image::Image;
use crate::job::{Job, Phase};
use crate::layout::{FilePart, UNIT_BYTES};
use crate::pump::pump_image;
use crate::transform::references::space::{OldExecutable, cut_image};

/// Units of the old image whose chunks are cut before they are put into the index.
const UNITS_INDEXED_AT_ONCE: usize = 64;

/// What is known about the old tree once it was read.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) image: OldImage,
    pub(super) index: Index,
    pub(super) sizes: ChunkSizes,
    /// For each file, the digests of its units.
    units: Vec<Vec<UnitDigest>>,
    /// For each file with data, its digest.
    pub(super) digests: Vec<FileDigest>,
    /// For each file, its number among those with data.
    numbers: Vec<u32>,
}

/// Reads the old tree once: bytes stay in memory if all of them fit. Chunks go into the index, but
/// for the case that both trees fit: then executables come first.
pub(super) async fn old(job: &Job, image: Image, plan: &Plan) -> Result<Known> {
    job.progress.enter(Phase::ReadOld);
    let mut arena = (plan.held != Held::Neither).then(|| arena(job, &image)).transpose()?;
    let mut index = Index::new(plan.index_chunks);
    let mut digests: Vec<Vec<UnitDigest>> = vec![Vec::new(); image.layout.files.len()];
    let sizes = plan.sizes;
    let (place, now) = (image.clone(), (plan.held != Held::Both).then_some(sizes));
    let work = move |range, buffer| Ok(sign(&place, range, buffer, now));
    let finish = async |signed: Signed| {
        index.insert(&signed.signatures);
        for (file, digest) in signed.digests {
            digests[file as usize].push(digest);
        }
        job.progress.advance(signed.bytes);
        Ok(())
    };
    pump_image(job, &image, plan.depth, arena.as_mut(), work, finish).await?;

    let (mut whole, mut numbers) = (Vec::new(), Vec::new());
    for (file, units) in image.layout.files.iter().zip(&digests) {
        numbers.push(whole.len() as u32);
        if !units.is_empty() {
            let digest = digest::whole(units, file.bytes());
            whole.push(FileDigest { digest, old: None });
        }
    }
    let image = match arena {
        Some(arena) => OldImage::whole(image, finished(arena)),
        None => OldImage::in_units(image, job.handle.clone(), plan.old_units),
    };
    Ok(Known { image, index, sizes, units: digests, digests: whole, numbers })
}

impl Known {
    /// Puts the chunks of an old image in memory into the index, but for those of executables that
    /// new ones are made from. Work for the crew, on all of its threads.
    pub(super) fn index_whole(&mut self, executables: &[OldExecutable]) {
        let image = self.image.image().clone();
        let Some(bytes) = self.image.whole_bytes() else { return };
        let units: Vec<Range<u64>> = image.layout.units().collect();
        for units in units.chunks(UNITS_INDEXED_AT_ONCE) {
            let found: Vec<Vec<Signature>> = units
                .par_iter()
                .map(|unit| {
                    let mut found = Vec::new();
                    for part in image.layout.parts(unit) {
                        let start = unit.start + part.inside.start as u64;
                        let end = unit.start + part.inside.end as u64;
                        if cut_image(executables, start..end).next().is_none() {
                            let bytes = &bytes[start as usize..end as usize];
                            signatures(bytes, start, self.sizes, &mut found);
                        }
                    }
                    found
                })
                .collect();
            found.iter().for_each(|found| self.index.insert(found));
        }
    }
}

/// Memory for a whole image.
fn arena(job: &Job, image: &Image) -> Result<Arena> {
    let pool = job.handle.pool();
    let bytes = image.layout.bytes;
    pool.try_arena(bytes as usize).ok_or_else(|| Error::Memory {
        needed_mib: (pool.budget().used() + bytes).div_ceil(1 << 20),
        given_mib: pool.budget().limit() >> 20,
    })
}

fn finished(arena: Arena) -> ArenaBytes {
    arena.finish().expect("a pass that has ended holds no buffers")
}

/// What the crew makes of a unit of the old image.
struct Signed {
    signatures: Vec<Signature>,
    digests: Vec<(u32, UnitDigest)>,
    bytes: u64,
}

fn sign(image: &Image, range: Range<u64>, buffer: Buffer, sizes: Option<ChunkSizes>) -> Signed {
    let mut found = Vec::new();
    let mut digests = Vec::new();
    for part in image.layout.parts(&range) {
        let bytes = &buffer[part.inside.clone()];
        if let Some(sizes) = sizes {
            signatures(bytes, range.start + part.inside.start as u64, sizes, &mut found);
        }
        digests.push((part.file, digest::unit(bytes, part.offset, part.length)));
    }
    Signed { signatures: found, digests, bytes: buffer.len() as u64 }
}

/// The whole new image in memory.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: ArenaBytes,
    /// For each unit, the digests of its parts.
    pub(super) digests: Vec<Vec<PartDigest>>,
}

/// A part of a new file, its digest, and the old file that it was taken over from.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartDigest {
    pub(super) file: u32,
    pub(super) digest: UnitDigest,
    pub(super) old_file: Option<u32>,
}

/// Reads the new tree once, all of it into memory; what is as it was is not hashed again.
pub(super) async fn new(job: &Job, image: &Image, known: Arc<Known>) -> Result<Whole> {
    job.progress.enter(Phase::ReadNew);
    let mut arena = arena(job, image)?;
    let mut digests = Vec::new();
    let place = image.clone();
    let work = move |range: Range<u64>, buffer: Buffer| {
        let mut digests = Vec::new();
        for part in place.layout.parts(&range) {
            digests.push(known.part_digest(&place, &part, &buffer[part.inside.clone()])?);
        }
        Ok((digests, buffer.len() as u64))
    };
    let finish = async |(found, bytes): (Vec<PartDigest>, u64)| {
        digests.push(found);
        job.progress.advance(bytes);
        Ok(())
    };
    pump_image(job, image, job.depth(), Some(&mut arena), work, finish).await?;
    Ok(Whole { bytes: finished(arena), digests })
}

impl Known {
    /// Where a part of a new file would be in the old image, if its file had not changed.
    pub(super) fn guess(&self, image: &Image, part: &FilePart) -> Option<(u32, u64)> {
        let old = self.image.image();
        let file = old.file_at(&image.entry(part.file).path)?;
        let span = &old.layout.files[file as usize];
        (part.offset < span.bytes()).then(|| (file, span.image.start + part.offset))
    }

    /// A part's digest: that of the old file of the same path, if it has not changed.
    fn part_digest(&self, image: &Image, part: &FilePart, bytes: &[u8]) -> Result<PartDigest> {
        if let Some((file, place)) = self.guess(image, part)
            && let Some(taken) = self.taken(part, file)
            && self.image.view().equal_ahead(bytes, place)? == bytes.len()
        {
            return Ok(taken);
        }
        Ok(PartDigest::of(part, bytes))
    }

    /// The digest of a part of an old file that is like a part of a new one.
    pub(super) fn taken(&self, part: &FilePart, file: u32) -> Option<PartDigest> {
        // A whole file and a part of one have different kinds of digests.
        if self.image.image().layout.files[file as usize].bytes() != part.length {
            return None;
        }
        let digest = *self.units[file as usize].get((part.offset / UNIT_BYTES) as usize)?;
        Some(PartDigest { file: part.file, digest, old_file: Some(file) })
    }

    /// The digest of a file from its units: a reference, where all came from one old file.
    pub(super) fn file_digest(&self, parts: &[PartDigest], length: u64) -> FileDigest {
        let same = |old: &u32| parts.iter().all(|part| part.old_file == Some(*old));
        match parts[0].old_file.filter(same) {
            Some(file) => {
                let number = self.numbers[file as usize];
                FileDigest { old: Some(number), ..self.digests[number as usize] }
            }
            None => {
                let units: Vec<UnitDigest> = parts.iter().map(|part| part.digest).collect();
                FileDigest { digest: digest::whole(&units, length), old: None }
            }
        }
    }
}

impl PartDigest {
    pub(super) fn of(part: &FilePart, bytes: &[u8]) -> PartDigest {
        let digest = digest::unit(bytes, part.offset, part.length);
        PartDigest { file: part.file, digest, old_file: None }
    }
}
