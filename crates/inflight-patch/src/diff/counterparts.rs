//! For each new file the old one of the same path, found once: both trees are listed in the order of
//! their paths.

use std::cmp::Ordering;
use std::path::Path;

use crate::image::Image;

const NONE: u32 = u32::MAX;

/// Files of a new image, and those of an old one that have the same path, by their numbers in the
/// layouts.
#[derive(Debug)]
pub(super) struct Counterparts(Vec<u32>);

impl Counterparts {
    /// Memory that counterparts of so many new files take.
    pub(super) fn bytes(files: usize) -> u64 {
        (files * size_of::<u32>()) as u64
    }

    pub(super) fn new(old: &Image, new: &Image) -> Counterparts {
        let mut candidates = (0..old.layout.files.len() as u32).peekable();
        let same = |file: u32| {
            let path = &new.entry(file).path;
            while let Some(candidate) = candidates.peek().copied() {
                match compare(&old.entry(candidate).path, path) {
                    Ordering::Less => candidates.next(),
                    Ordering::Equal => return candidate,
                    Ordering::Greater => break,
                };
            }
            NONE
        };
        Counterparts((0..new.layout.files.len() as u32).map(same).collect())
    }

    /// The old file of the same path as a new one.
    pub(super) fn of(&self, new: u32) -> Option<u32> {
        self.0.get(new as usize).copied().filter(|old| *old != NONE)
    }
}

/// The order of two paths, which most of the time are the same: that is told from their bytes.
fn compare(one: &Path, other: &Path) -> Ordering {
    match one.as_os_str() == other.as_os_str() {
        true => Ordering::Equal,
        false => one.cmp(other),
    }
}
