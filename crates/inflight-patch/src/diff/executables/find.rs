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
    let parsed = |start: u64, bytes: &[u8]| {
        let found = move |(at, space)| Found { start: start + at as u64, space };
        container::parse_all(bytes).into_iter().map(found)
    };
    if !tar::starts_like_one(file) {
        return parsed(range.start, file).collect();
    }
    let members = tar::members(file).into_iter();
    members.flat_map(|it| parsed(range.start + it.start as u64, &file[it])).collect()
}
