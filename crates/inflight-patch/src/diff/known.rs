//! What is known about the old tree: its bytes, its chunks and its digests, as far as it was read.

use std::ops::Range;
use std::sync::OnceLock;

use inflight::ArenaBytes;

use super::chunk::ChunkSizes;
use super::counterparts::Counterparts;
use super::index::{Index, Signature};
use super::matching::{Lookup, signatures};
use super::old::OldImage;
use super::plan::Plan;
use crate::digest::{self, UnitDigest};
use crate::error::Result;
use crate::image::Image;
use crate::layout::{FilePart, Layout, UNIT_BYTES};
use crate::manifest::Digest;

/// What is known about the old tree. Grows while it is read, seen by those who look things up.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) image: OldImage,
    /// Files of the new tree that are in the old one as well.
    pub(super) counterparts: Counterparts,
    pub(super) index: Index,
    pub(super) sizes: ChunkSizes,
    pub(super) units: FileUnits,
}

/// The digests of the units of all files of an image.
#[derive(Debug)]
pub(super) struct FileUnits {
    /// For each file, where its units start in `digests`.
    firsts: Vec<usize>,
    digests: Vec<OnceLock<UnitDigest>>,
}

impl FileUnits {
    fn new(layout: &Layout) -> FileUnits {
        let mut count = 0;
        let first = |file: &crate::layout::FileSpan| {
            count += file.units() as usize;
            count - file.units() as usize
        };
        let firsts = layout.files.iter().map(first).collect();
        FileUnits { firsts, digests: (0..count).map(|_| OnceLock::new()).collect() }
    }

    /// Takes note of the digest of the unit that starts at `offset` of a file's data.
    pub(super) fn set(&self, file: u32, offset: u64, digest: UnitDigest) {
        let unit = self.firsts[file as usize] + (offset / UNIT_BYTES) as usize;
        // Each is read once; a second time would say the same.
        let _ = self.digests[unit].set(digest);
    }

    fn get(&self, file: u32, offset: u64) -> Option<UnitDigest> {
        let unit = self.firsts[file as usize] + (offset / UNIT_BYTES) as usize;
        self.digests.get(unit)?.get().copied()
    }
}

impl Known {
    pub(super) fn new(image: OldImage, new: &Image, plan: &Plan) -> Known {
        let counterparts = Counterparts::new(image.image(), new);
        let units = FileUnits::new(&image.image().layout);
        let (index, sizes) = (Index::new(plan.index_chunks), plan.sizes);
        Known { image, counterparts, index, sizes, units }
    }

    /// Where chunks are looked up that lie below `horizon` in the old image.
    pub(super) fn lookup(&self, horizon: u64) -> Lookup<'_> {
        Lookup { index: &self.index, sizes: self.sizes, horizon }
    }

    /// The digests of all old files with data. All of them were read.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let layout = &self.image.image().layout;
        let digest = |file: u32| {
            let span = &layout.files[file as usize];
            let unit = |number| self.units.get(file, number * UNIT_BYTES).expect("it was read");
            let units: Vec<UnitDigest> = (0..span.units()).map(unit).collect();
            digest::whole(&units, span.bytes())
        };
        layout.files_with_data().map(digest).collect()
    }

    /// Where a part of a new file would be in the old image, if its file had not changed.
    pub(super) fn guess(&self, part: &FilePart) -> Option<(u32, u64)> {
        let file = self.counterparts.of(part.file)?;
        let span = &self.image.image().layout.files[file as usize];
        (part.offset < span.bytes()).then(|| (file, span.image.start + part.offset))
    }

    /// The digest of a part of an old file that is like a part of a new one.
    pub(super) fn taken(&self, part: &FilePart, file: u32) -> Option<PartDigest> {
        // A whole file and a part of one have different kinds of digests.
        if self.image.image().layout.files[file as usize].bytes() != part.length {
            return None;
        }
        let digest = self.units.get(file, part.offset)?;
        Some(PartDigest { file: part.file, digest, old_file: Some(file) })
    }

    /// A part's digest: that of the old file of the same path, if it has not changed.
    pub(super) fn part_digest(&self, part: &FilePart, bytes: &[u8]) -> Result<PartDigest> {
        if let Some((file, place)) = self.guess(part)
            && let Some(taken) = self.taken(part, file)
            && self.image.view().equal_ahead(bytes, place)? == bytes.len()
        {
            return Ok(taken);
        }
        Ok(PartDigest::of(part, bytes))
    }
}

/// A part of a new file, its digest, and the old file that it was taken over from.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartDigest {
    pub(super) file: u32,
    pub(super) digest: UnitDigest,
    pub(super) old_file: Option<u32>,
}

impl PartDigest {
    pub(super) fn of(part: &FilePart, bytes: &[u8]) -> PartDigest {
        let digest = digest::unit(bytes, part.offset, part.length);
        PartDigest { file: part.file, digest, old_file: None }
    }
}

/// The whole new image in memory.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: ArenaBytes,
    /// For each unit, the digests of its parts.
    pub(super) digests: Vec<Vec<PartDigest>>,
}

/// What the crew makes of a unit of the old image.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) signatures: Vec<Signature>,
    /// Files, places in them, and digests.
    digests: Vec<(u32, u64, UnitDigest)>,
}

impl Signed {
    /// Digests of a unit of an image, and its chunks if there are `sizes`. Work for the crew.
    pub(super) fn of(
        image: &Image,
        range: &Range<u64>,
        bytes: &[u8],
        sizes: Option<ChunkSizes>,
    ) -> Signed {
        let mut signed = Signed { signatures: Vec::new(), digests: Vec::new() };
        for part in image.layout.parts(range) {
            let bytes = &bytes[part.inside.clone()];
            if let Some(sizes) = sizes {
                let place = range.start + part.inside.start as u64;
                signatures(bytes, place, sizes, &mut signed.signatures);
            }
            let digest = digest::unit(bytes, part.offset, part.length);
            signed.digests.push((part.file, part.offset, digest));
        }
        signed
    }

    pub(super) fn set_digests(&self, units: &FileUnits) {
        for (file, offset, digest) in &self.digests {
            units.set(*file, *offset, *digest);
        }
    }
}
