//! Making a patch: list both trees, read the old one into an index, read the new one against it.
//!
//! ```text
//! old tree ─► units ─► chunks, digests ─► index ──┐
//! new tree ─► units ─────────────► matching ◄─────┘─► groups ─► compression ─► patch file
//! ```
//!
//! Each pass reads its tree once, several units at once, while the crew works on earlier units and
//! finished groups are compressed and written behind. What comes out depends on the trees and the
//! settings alone.

mod chunk;
mod group;
mod index;
mod matching;
mod old;
mod plan;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use inflight::stream::{Ordered, Writer};
use inflight::{Buffer, OpenOptions, RemoveKind};

use crate::crew::Work;
use crate::digest::{self, UnitDigest};
use crate::error::Result;
use crate::format::{
    BlockKind, DigestEntry, EncodedBlock, Instruction, PatchWriter, encode_block, encode_digests,
    encode_manifest,
};
use crate::image::{Image, Mismatch};
use crate::job::{Job, Phase};
use crate::layout::{FilePart, UNIT_BYTES};
use crate::manifest::Preserve;
use crate::paths::{check_apart, check_output, check_replaceable, temporary_beside};
use crate::preset::Preset;
use crate::pump::pump_image;
use crate::tree::{Tree, scan};
use chunk::ChunkSizes;
use group::{Group, GroupBuilder};
use index::{Index, Signature};
use matching::{Stretch, append, is_copy_of, match_stretch, signatures};
use old::OldImage;
use plan::{Plan, WRITE_BYTES, WRITE_DEPTH};

/// Digests of old files in one block.
const DIGESTS_PER_BLOCK: usize = 1 << 17;

/// What a diff may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiffOptions {
    /// Time against size.
    pub preset: Preset,
    /// What to keep of each entry besides contents, kind, name and permissions.
    pub preserve: Preserve,
}

/// What a diff did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DiffReport {
    /// Entries in the old tree and in the new one.
    pub entries: (u64, u64),
    /// Bytes of data in the old tree and in the new one.
    pub bytes: (u64, u64),
    /// Bytes of the new tree that the patch copies from the old one.
    pub copied_bytes: u64,
    /// Bytes of the new tree that are in the patch, before compression.
    pub literal_bytes: u64,
    /// Bytes of the patch.
    pub patch_bytes: u64,
    /// Bytes around which chunks of the old tree were cut: more than 1 KiB when memory was short,
    /// and then more memory makes a smaller patch.
    pub chunk_bytes: u64,
    /// What was left out, a sentence each.
    pub warnings: Vec<String>,
}

/// Makes the patch that turns the tree at `old` into the tree at `new`, and gives it the name
/// `patch` once it is whole. Both may be single files.
///
/// # Errors
/// See [`crate::Error`]; then nothing has the name `patch` that had not before.
pub async fn diff(
    job: &Job,
    old: &Path,
    new: &Path,
    patch: &Path,
    options: DiffOptions,
) -> Result<DiffReport> {
    let handle = &job.handle;
    job.progress.enter(Phase::Scan);
    let (old_tree, new_tree) = (Tree::open(handle, old).await?, Tree::open(handle, new).await?);
    check_apart((&old_tree, old), (&new_tree, new)).await?;
    check_output(handle, patch, &old_tree, old).await?;
    check_output(handle, patch, &new_tree, new).await?;
    check_replaceable(handle, patch).await?;
    let old = scan(old_tree, options.preserve).await?;
    let new = scan(new_tree, options.preserve).await?;
    let mut report = DiffReport {
        entries: (old.manifest.entries.len() as u64, new.manifest.entries.len() as u64),
        warnings: [old.warnings, new.warnings].concat(),
        ..DiffReport::default()
    };
    let old = Image::new(old.tree, Arc::new(old.manifest), Mismatch::Changed);
    let new = Image::new(new.tree, Arc::new(new.manifest), Mismatch::Changed);
    report.bytes = (old.layout.bytes, new.layout.bytes);
    job.progress.expect(old.layout.bytes + new.layout.bytes);

    let unfinished = temporary_beside(patch);
    let made = make(job, old, new, (&unfinished, patch), options, &mut report).await;
    let named = match made {
        Ok(()) => handle.rename(&unfinished, patch, true).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    if named.is_err() {
        // The first error is the one to tell; without a file there is nothing to remove.
        let _ = handle.remove(&unfinished, RemoveKind::File).await;
    }
    named.map(|()| report)
}

/// Writes the whole patch to `path`, which must not exist, and which will become `target`.
async fn make(
    job: &Job,
    old: Image,
    new: Image,
    (path, target): (&Path, &Path),
    options: DiffOptions,
    report: &mut DiffReport,
) -> Result<()> {
    let plan = Plan::new(job, &old, &new, options.preset)?;
    report.chunk_bytes = plan.sizes.target() as u64;
    let file = job.handle.open(path, OpenOptions::creating(0o666)).await?;
    let writer = Writer::new(file, None, WRITE_BYTES, WRITE_DEPTH).await?;
    let mut patch = PatchWriter::start(writer, old.layout.bytes, new.layout.bytes).await?;
    let level = options.preset.level();
    patch.write_split(BlockKind::NewManifest, &encode_manifest(&new.manifest), level).await?;
    patch.write_split(BlockKind::OldManifest, &encode_manifest(&old.manifest), level).await?;

    let known = read_old(job, old, &plan).await?;
    for digests in known.digests.chunks(DIGESTS_PER_BLOCK) {
        let block = encode_block(BlockKind::OldDigests, &encode_digests(digests), level);
        patch.write(block).await?;
    }
    let output = Output {
        patch,
        encoding: Ordered::new(plan.groups),
        builder: GroupBuilder::new(options.preset.literal_bytes()),
        level,
        hand: job.crew.hand(),
    };
    let patch = match_new(job, new, Arc::new(known), &plan, output, report).await?;
    job.progress.enter(Phase::Finish);
    // What it replaces must not be lost to a power failure.
    let replaces = job.handle.metadata(target, true).await.is_ok();
    report.patch_bytes = patch.finish(replaces).await?;
    Ok(())
}

/// What is known about the old tree once it was read.
#[derive(Debug)]
struct Known {
    image: OldImage,
    index: Index,
    sizes: ChunkSizes,
    /// For each file, the digests of its units.
    units: Vec<Vec<UnitDigest>>,
    /// For each file with data, its digest.
    digests: Vec<DigestEntry>,
    /// For each file, its number among those with data.
    numbers: Vec<u32>,
}

/// Reads the old tree once: chunks go into the index, bytes stay in memory if they all fit.
async fn read_old(job: &Job, image: Image, plan: &Plan) -> Result<Known> {
    job.progress.enter(Phase::ReadOld);
    let old = OldImage::new(image.clone(), job.handle.clone(), plan.old_units);
    let mut index = Index::new(plan.index_chunks);
    let mut digests: Vec<Vec<UnitDigest>> = vec![Vec::new(); image.layout.files.len()];
    let sizes = plan.sizes;
    let place = image.clone();
    let work = move |range, buffer| Ok(sign(&place, range, buffer, sizes));
    let mut unit = 0;
    let finish = async |signed: Signed| {
        index.insert(&signed.signatures);
        for (file, digest) in signed.digests {
            digests[file as usize].push(digest);
        }
        job.progress.advance(signed.buffer.len() as u64);
        old.keep(unit, signed.buffer);
        unit += 1;
        Ok(())
    };
    pump_image(job, &image, plan.depth, work, finish).await?;

    let (mut whole, mut numbers) = (Vec::new(), Vec::new());
    for (file, units) in image.layout.files.iter().zip(&digests) {
        numbers.push(whole.len() as u32);
        if !units.is_empty() {
            whole.push(DigestEntry::Here(digest::whole(units, file.bytes())));
        }
    }
    Ok(Known { image: old, index, sizes, units: digests, digests: whole, numbers })
}

/// What the crew makes of a unit of the old image.
struct Signed {
    signatures: Vec<Signature>,
    digests: Vec<(u32, UnitDigest)>,
    buffer: Buffer,
}

fn sign(image: &Image, range: Range<u64>, buffer: Buffer, sizes: ChunkSizes) -> Signed {
    let mut found = Vec::with_capacity(buffer.len() / sizes.target() + 1);
    let mut digests = Vec::new();
    for part in image.layout.parts(&range) {
        let bytes = &buffer[part.inside.clone()];
        signatures(bytes, range.start + part.inside.start as u64, sizes, &mut found);
        digests.push((part.file, digest::unit(bytes, part.offset, part.length)));
    }
    Signed { signatures: found, digests, buffer }
}

/// Where matched units go: into groups, which are compressed by the crew and written in order.
struct Output {
    patch: PatchWriter,
    encoding: Ordered<Work<Vec<EncodedBlock>>>,
    builder: GroupBuilder,
    level: i32,
    hand: crate::crew::Hand,
}

impl Output {
    async fn add(&mut self, matched: &Matched, report: &mut DiffReport) -> Result<()> {
        let mut full = Vec::new();
        self.builder.add(&matched.instructions, &matched.buffer, |group| full.push(group));
        for group in full {
            self.encode(group, report).await?;
        }
        Ok(())
    }

    async fn encode(&mut self, group: Group, report: &mut DiffReport) -> Result<()> {
        if !self.encoding.has_room() {
            self.write_oldest().await?;
        }
        report.literal_bytes += group.literal_bytes();
        let level = self.level;
        self.encoding.push(self.hand.run(move || group.encode(level)));
        Ok(())
    }

    async fn write_oldest(&mut self) -> Result<bool> {
        let Some(blocks) = self.encoding.next().await else {
            return Ok(false);
        };
        for block in blocks {
            self.patch.write(block).await?;
        }
        Ok(true)
    }

    async fn finish(mut self, report: &mut DiffReport) -> Result<PatchWriter> {
        let last = self.builder.take();
        if !last.is_empty() {
            self.encode(last, report).await?;
        }
        while self.write_oldest().await? {}
        Ok(self.patch)
    }
}

/// Reads the new tree once, matches it, and writes the groups.
async fn match_new(
    job: &Job,
    image: Image,
    known: Arc<Known>,
    plan: &Plan,
    mut output: Output,
    report: &mut DiffReport,
) -> Result<PatchWriter> {
    job.progress.enter(Phase::Match);
    // The units so far of the file under way.
    let mut open: Vec<PartDigest> = Vec::new();
    let (place, matcher) = (image.clone(), known.clone());
    let work = move |range, buffer| match_unit(&place, range, buffer, &matcher);
    let finish = async |matched: Matched| {
        report.copied_bytes += copied_bytes(&matched.instructions);
        output.add(&matched, report).await?;
        for (file, digest) in &matched.digests {
            open.push(*digest);
            let span = &image.layout.files[*file as usize];
            if open.len() as u64 == span.units() {
                let digest = file_digest(&open, span.bytes(), &known);
                if let Some(full) = output.builder.add_digest(digest) {
                    output.encode(full, report).await?;
                }
                open.clear();
            }
        }
        job.progress.advance(matched.buffer.len() as u64);
        Ok(())
    };
    pump_image(job, &image, plan.depth, work, finish).await?;
    output.finish(report).await
}

fn copied_bytes(list: &[Instruction]) -> u64 {
    let copied = |instruction: &Instruction| match instruction {
        Instruction::Copy { length, .. } => *length,
        _ => 0,
    };
    list.iter().map(copied).sum()
}

/// What the crew makes of a unit of the new image.
struct Matched {
    instructions: Vec<Instruction>,
    digests: Vec<(u32, PartDigest)>,
    buffer: Buffer,
}

/// A unit's digest, and the old file that it was taken over from.
#[derive(Clone, Copy)]
struct PartDigest {
    digest: UnitDigest,
    old_file: Option<u32>,
}

fn match_unit(image: &Image, range: Range<u64>, buffer: Buffer, known: &Known) -> Result<Matched> {
    let mut view = known.image.view();
    let (mut instructions, mut digests) = (Vec::new(), Vec::new());
    let mut list = Vec::new();
    for part in image.layout.parts(&range) {
        let bytes = &buffer[part.inside.clone()];
        let guess = guess(image, &part, known);
        list.clear();
        match_stretch(&Stretch { bytes, guess }, &known.index, known.sizes, &mut view, &mut list)?;
        let taken = take_over_digest(&list, &part, known);
        let digest = taken.unwrap_or_else(|| PartDigest {
            digest: digest::unit(bytes, part.offset, part.length),
            old_file: None,
        });
        digests.push((part.file, digest));
        for instruction in &list {
            append(&mut instructions, *instruction);
        }
    }
    Ok(Matched { instructions, digests, buffer })
}

/// Where a part would be in the old image, if its file had not changed.
fn guess(image: &Image, part: &FilePart, known: &Known) -> Option<u64> {
    let old = known.image.image();
    let file = old.file_at(&image.entry(part.file).path)?;
    let span = &old.layout.files[file as usize];
    (part.offset < span.bytes()).then(|| span.image.start + part.offset)
}

/// A part that is a copy of the same part of an old file has the digest that was computed there.
fn take_over_digest(list: &[Instruction], part: &FilePart, known: &Known) -> Option<PartDigest> {
    let [Instruction::Copy { old, .. }] = list else {
        return None;
    };
    let layout = &known.image.image().layout;
    let (file, span) = layout.files_in(*old..*old + 1).next()?;
    if span.bytes() != part.length || *old != span.image.start + part.offset {
        return None;
    }
    let from = span.image.start + part.offset;
    if !is_copy_of(list, &(from..from + part.inside.len() as u64)) {
        return None;
    }
    let unit = (part.offset / UNIT_BYTES) as usize;
    let digest = *known.units[file as usize].get(unit)?;
    Some(PartDigest { digest, old_file: Some(file) })
}

/// The digest of a file from its units: a reference, where all came from one old file.
fn file_digest(parts: &[PartDigest], length: u64, known: &Known) -> DigestEntry {
    let old = parts[0].old_file.filter(|old| parts.iter().all(|part| part.old_file == Some(*old)));
    match old {
        Some(file) => DigestEntry::Old(known.numbers[file as usize]),
        None => {
            let units: Vec<UnitDigest> = parts.iter().map(|part| part.digest).collect();
            DigestEntry::Here(digest::whole(&units, length))
        }
    }
}
