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
        Counterparts(same(&paths(old), &paths(new)))
    }

    /// The old file of the same path as a new one.
    pub(super) fn of(&self, new: u32) -> Option<u32> {
        self.0.get(new as usize).copied().filter(|old| *old != NONE)
    }
}

/// The paths of an image's files, in order.
fn paths(image: &Image) -> Vec<&Path> {
    (0..image.layout.files.len() as u32).map(|file| &*image.entry(file).path).collect()
}

/// For each new path the number of the same old one. Both are in order.
fn same(old: &[&Path], new: &[&Path]) -> Vec<u32> {
    let mut candidate = 0;
    let number = |path: &&Path| {
        while let Some(other) = old.get(candidate) {
            match compare(other, path) {
                Ordering::Less => candidate += 1,
                Ordering::Equal => return candidate as u32,
                Ordering::Greater => break,
            }
        }
        NONE
    };
    new.iter().map(number).collect()
}

/// The order of two paths, which most of the time are the same: that is told from their bytes.
fn compare(one: &Path, other: &Path) -> Ordering {
    match one.as_os_str() == other.as_os_str() {
        true => Ordering::Equal,
        false => one.cmp(other),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    /// Paths whose order is not that of their bytes.
    fn tree() -> impl Strategy<Value = Vec<PathBuf>> {
        let path =
            prop::collection::vec("[a!-]{1,2}", 1..4).prop_map(|names| names.iter().collect());
        prop::collection::btree_set(path, 0..40).prop_map(|paths| paths.into_iter().collect())
    }

    proptest! {
        #[test]
        fn each_new_path_has_the_number_of_the_same_old_one(old in tree(), new in tree()) {
            let (old, new): (Vec<&Path>, Vec<&Path>) =
                (old.iter().map(|path| &**path).collect(), new.iter().map(|path| &**path).collect());
            let expected: Vec<u32> = new
                .iter()
                .map(|path| old.iter().position(|other| other == path).map_or(NONE, |n| n as u32))
                .collect();
            prop_assert_eq!(same(&old, &new), expected);
        }
    }
}
