//! BLAKE3 of whole files, from parts that are hashed at once.
//!
//! BLAKE3 is a tree: the parts of a long file are subtrees whose chaining values are merged at
//! the end. So one huge file uses all threads, and the digest is the ordinary one of its bytes.

use std::ops::Range;

use blake3::hazmat::{self, HasherExt, Mode};

use crate::layout::{FilePart, Layout, UNIT_BYTES};
use crate::manifest::Digest;

/// The digest of one unit of a file, of which there may be several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnitDigest {
    /// The unit is the whole file.
    Whole(Digest),
    /// The unit is a part: the chaining value of its subtree.
    Part(hazmat::ChainingValue),
}

/// Hashes a unit: bytes `offset..` of a file with `length` bytes of data in all.
pub(crate) fn unit(bytes: &[u8], offset: u64, length: u64) -> UnitDigest {
    if bytes.len() as u64 == length {
        return UnitDigest::Whole(*blake3::hash(bytes).as_bytes());
    }
    debug_assert!(offset.is_multiple_of(UNIT_BYTES));
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    UnitDigest::Part(hasher.finalize_non_root())
}

/// Hashes the files of a unit of an image, whose bytes these are.
pub(crate) fn unit_of_image(
    layout: &Layout,
    range: &Range<u64>,
    bytes: &[u8],
) -> Vec<(u32, UnitDigest)> {
    let digest = |part: FilePart| (part.file, unit(&bytes[part.inside], part.offset, part.length));
    layout.parts(range).map(digest).collect()
}

/// The digest of a file of `length` bytes of data from all its units, in order.
pub(crate) fn whole(units: &[UnitDigest], length: u64) -> Digest {
    let mut parts = Vec::with_capacity(units.len());
    for unit in units {
        match unit {
            UnitDigest::Whole(digest) => return *digest,
            UnitDigest::Part(part) => parts.push(*part),
        }
    }
    let left = hazmat::left_subtree_len(length);
    let (left_parts, right_parts) = parts.split_at((left / UNIT_BYTES) as usize);
    let left = merge(left_parts, left);
    let right = merge(right_parts, length - hazmat::left_subtree_len(length));
    *hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
}

fn merge(parts: &[hazmat::ChainingValue], length: u64) -> hazmat::ChainingValue {
    if let [only] = parts {
        return *only;
    }
    let left = hazmat::left_subtree_len(length);
    let (left_parts, right_parts) = parts.split_at((left / UNIT_BYTES) as usize);
    let right = merge(right_parts, length - left);
    hazmat::merge_subtrees_non_root(&merge(left_parts, left), &right, Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_ordinary_digest() {
        let bytes: Vec<u8> = (0..7 * UNIT_BYTES as usize + 5).map(|i| (i >> 7) as u8).collect();
        let unit_bytes = UNIT_BYTES as usize;
        for length in [
            0,
            1,
            unit_bytes,
            unit_bytes + 1,
            2 * unit_bytes,
            3 * unit_bytes - 1,
            5 * unit_bytes + 17,
            7 * unit_bytes + 5,
        ] {
            let file = &bytes[..length];
            let digests: Vec<UnitDigest> = match length {
                0 => vec![unit(file, 0, 0)],
                _ => file
                    .chunks(unit_bytes)
                    .enumerate()
                    .map(|(i, part)| unit(part, i as u64 * UNIT_BYTES, length as u64))
                    .collect(),
            };
            assert_eq!(whole(&digests, length as u64), *blake3::hash(file).as_bytes(), "{length}");
        }
    }
}
