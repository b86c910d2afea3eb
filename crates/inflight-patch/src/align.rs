//! The fine grain: finding new bytes in old ones where hardly 20 in a row are the same.
//!
//! ```text
//! old ─► sampled anchors ─► index ─┐
//! new ─► sampled anchors ──────────┴► candidates ─► extension ─► copies ─► gaps refined
//! ```
//!
//! A copy made here tolerates mismatches: it says where bytes come from, and what differs is told
//! apart from it.

pub(crate) mod anchor;
pub(crate) mod extend;
pub(crate) mod find;
pub(crate) mod refine;

use std::ops::Range;

use rayon::prelude::*;

use anchor::AnchorIndex;
use find::{FindOptions, find};
use refine::{RefineOptions, bridge, join, refine};

/// What counts as an agreement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Through an anchor.
    pub(crate) find: FindOptions,
    /// In the gaps between those.
    pub(crate) refine: RefineOptions,
}

/// Aligns a range of `new` with `old`, in pieces of at most `piece_bytes`, in parallel; the result
/// is the same on any number of threads.
pub(crate) fn align(
    new: &[u8],
    range: Range<usize>,
    piece_bytes: usize,
    old: &[u8],
    index: &AnchorIndex,
    options: &Options,
) -> Vec<Copy> {
    let starts: Vec<usize> = range.clone().step_by(piece_bytes).collect();
    let pieces: Vec<Vec<Copy>> = starts
        .into_par_iter()
        .map(|start| {
            let piece = start..range.end.min(start + piece_bytes);
            let mut copies = Vec::new();
            find(new, piece.clone(), old, index, &options.find, &mut copies);
            bridge(new, old, &refine(new, piece, old, &copies, &options.refine))
        })
        .collect();
    let mut copies = Vec::new();
    pieces.into_iter().flatten().for_each(|copy| join(&mut copies, copy));
    copies
}

/// New bytes that are (nearly) those of an old place. Places count from the start of the slices
/// compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) new: u32,
    pub(crate) old: u32,
    pub(crate) length: u32,
}

impl Copy {
    pub(crate) fn new_end(&self) -> u32 {
        self.new + self.length
    }

    pub(crate) fn old_end(&self) -> u32 {
        self.old + self.length
    }

    /// How far old is before new.
    pub(crate) fn diagonal(&self) -> i64 {
        i64::from(self.old) - i64::from(self.new)
    }
}
