//! Which new files may hold executables, and which old file each is the next version of.

use std::path::Path;

use crate::error::Result;
use crate::image::Image;
use crate::transform::elf;

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
        let may_hold_some = elf::starts_like_one(&head) || head.get(257..262) == Some(b"ustar");
        if may_hold_some && let Some(old) = counterpart(old, new, number) {
            pairs.push(Pair { old, new: number });
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
