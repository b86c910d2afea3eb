//! Finding executables in an image: files that are one, and members of uncompressed tars.

use std::ops::Range;

use rayon::prelude::*;

use super::Found;
use crate::image::Image;
use crate::transform::container::{self, tar};

/// The smallest file looked at.
const EXECUTABLE_BYTES_MIN: u64 = 1 << 10;

/// All executables in an image, in order.
pub(in crate::diff) fn find_all(image: &Image, bytes: &[u8]) -> Vec<Found> {
    let files = &image.layout.files;
    let whole = |file: &&crate::layout::FileSpan| {
        file.bytes() >= EXECUTABLE_BYTES_MIN && file.bytes() == file.size
    };
    let places: Vec<Range<u64>> =
        files.iter().filter(whole).map(|file| file.image.clone()).collect();
    places.into_par_iter().flat_map_iter(|range| find_in(bytes, range)).collect()
}

/// The executables in a file, which is a range of an image.
pub(in crate::diff) fn find_in(bytes: &[u8], range: Range<u64>) -> Vec<Found> {
    let file = &bytes[range.start as usize..range.end as usize];
    if container::starts_like_one(file) {
        let found = |(at, space)| Found { start: range.start + at as u64, space };
        return container::parse_all(file).into_iter().map(found).collect();
    }
    if !tar::starts_like_one(file) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let member = &file[at..];
        let length = container::length(member).unwrap_or(0) as usize;
        match container::parse(&member[..length]) {
            Some(space) => {
                found.push(Found { start: range.start + at as u64, space });
                at += length.next_multiple_of(tar::BLOCK);
            }
            None => at += tar::BLOCK,
        }
    }
    found
}
