//! Which new files may hold executables, and which old file each is the next version of.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::Result;
use crate::image::Image;
use crate::layout::Layout;
use crate::transform::container::{self, tar};

/// Bytes at the start of a file that tell what it is.
const HEAD_BYTES: u64 = 512;
/// Names that start with so many equal bytes may be versions of the same.
const SAME_NAME_BYTES: usize = 3;

/// A new file that may hold executables, and the old one that it is predicted from, by their numbers
/// in the layouts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) old: u32,
    pub(super) new: u32,
    kind: Kind,
}

/// What files of a pair are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Executable,
    /// Which may hold executables: that is seen when it is read.
    Tar,
}

/// Tars of one tree, and whether executables were seen in them.
#[derive(Debug)]
struct Tars(HashMap<u32, AtomicBool>);

/// What was seen of the tars of all pairs so far, in the order in which they are read.
#[derive(Debug)]
pub(super) struct Sightings {
    pairs: Vec<Pair>,
    old: Tars,
    new: Tars,
}

impl Tars {
    fn of(files: impl Iterator<Item = u32>) -> Tars {
        Tars(files.map(|file| (file, AtomicBool::new(false))).collect())
    }

    /// What is known of the tar that a unit is of, if it is of one.
    fn of_unit(&self, layout: &Layout, unit: &Range<u64>) -> Option<&AtomicBool> {
        if self.0.is_empty() {
            return None;
        }
        // A large file has units of its own.
        let (file, _) = layout.files_in(unit.clone()).next()?;
        self.0.get(&file)
    }

    fn hold_some(&self, file: u32) -> bool {
        self.0.get(&file).is_some_and(|seen| seen.load(Relaxed))
    }
}

/// Whether an executable starts in a unit of a tar.
pub(super) fn holds_executable(unit: &[u8]) -> bool {
    // Units of large files start at multiples of a tar's blocks.
    unit.chunks(tar::BLOCK).any(container::starts_like_one)
}

impl Sightings {
    pub(super) fn new(pairs: Vec<Pair>) -> Sightings {
        let tars = || pairs.iter().filter(|pair| pair.kind == Kind::Tar);
        let (old, new) = (tars().map(|pair| pair.old), tars().map(|pair| pair.new));
        Sightings { old: Tars::of(old), new: Tars::of(new), pairs }
    }

    /// What is known of the tar that a unit of the old image is of, if it is of one of a pair.
    pub(super) fn of_old(&self, layout: &Layout, unit: &Range<u64>) -> Option<&AtomicBool> {
        self.old.of_unit(layout, unit)
    }

    /// The same of the new image.
    pub(super) fn of_new(&self, layout: &Layout, unit: &Range<u64>) -> Option<&AtomicBool> {
        self.new.of_unit(layout, unit)
    }

    /// All pairs, those included of which nothing was seen.
    pub(super) fn all(&self) -> &[Pair] {
        &self.pairs
    }

    /// Whether both of a pair are known to hold executables.
    pub(super) fn hold_some(&self, pair: &Pair) -> bool {
        let both = || self.old.hold_some(pair.old) && self.new.hold_some(pair.new);
        pair.kind == Kind::Executable || both()
    }
}

/// All pairs, in the order of the new tree. Only large files: each has units of its own.
pub(super) async fn pairs(old: &Image, new: &Image) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (number, span) in new.layout.files.iter().enumerate() {
        // Holes would be in the way of what its tables say.
        if !span.is_large() || span.bytes() != span.size {
            continue;
        }
        let number = number as u32;
        let place = span.image.start;
        let buffer = new.tree().directory().handle().buffer(HEAD_BYTES as usize).await;
        let head = new.read(place..place + HEAD_BYTES, buffer).await?;
        let kind = match container::starts_like_one(&head) {
            true => Kind::Executable,
            false if tar::starts_like_one(&head) => Kind::Tar,
            false => continue,
        };
        if let Some(old) = counterpart(old, new, number) {
            pairs.push(Pair { old, new: number, kind });
        }
    }
    Ok(pairs)
}

/// The old file of the same path, or of the most similar name in the same directory among those
/// that are no longer there.
fn counterpart(old: &Image, new: &Image, number: u32) -> Option<u32> {
    let path = &new.entry(number).path;
    let fits = |file: u32| {
        let span = &old.layout.files[file as usize];
        span.is_large() && span.bytes() == span.size
    };
    if let Some(same) = old.file_at(path) {
        return Some(same).filter(|file| fits(*file));
    }
    let (directory, bytes) = (path.parent()?, new.layout.files[number as usize].bytes());
    let mut best = None;
    for file in (0..old.layout.files.len() as u32).filter(|file| fits(*file)) {
        let other = &old.entry(file).path;
        let shared = same_start(path, other);
        if other.parent() != Some(directory)
            || shared < SAME_NAME_BYTES
            || new.file_at(other).is_some()
        {
            continue;
        }
        let distance = old.layout.files[file as usize].bytes().abs_diff(bytes);
        let rank = (shared, std::cmp::Reverse(distance));
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, file));
        }
    }
    best.map(|(_, file)| file)
}

/// How many bytes at the start of two file names are equal.
fn same_start(one: &Path, other: &Path) -> usize {
    let name = |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().to_vec());
    let (one, other) = (name(one).unwrap_or_default(), name(other).unwrap_or_default());
    one.iter().zip(&other).take_while(|(a, b)| a == b).count()
}
