//! How hard a preset looks for old bytes.

use crate::align::anchor::{AnchorIndex, Sampling};
use crate::align::extend::Scoring;
use crate::align::refine::RefineOptions;
use crate::preset::Preset;

/// How much to look for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Which places of code are looked up, and which of data.
    pub(super) code: Sampling,
    pub(super) data: Sampling,
    /// One entry of a table in two to this power is looked up.
    pub(super) tables: u32,
    pub(super) refine: RefineOptions,
    /// Which places are looked up where all old bytes are looked through for what is left.
    pub(super) far: Option<Sampling>,
    /// Whether large files that are no executables are compared with their old versions in detail.
    pub(super) near: bool,
}

impl Effort {
    pub(super) fn of(preset: Preset) -> Effort {
        let (code, data, far, words, window_bytes) = match preset {
            Preset::Fast => (6, 5, None, 3, 32),
            Preset::Default => (4, 3, Some(4), 2, 256),
            Preset::Small => (3, 3, Some(3), 2, 512),
        };
        let scoring = Scoring { mismatch: 2, drop: 32 };
        Effort {
            code: Sampling::of_bytes(code, 32),
            data: Sampling::of_bytes(data, 16),
            tables: if preset == Preset::Fast { 2 } else { 0 },
            far: far.map(|bits| Sampling::of_bytes(bits, 16)),
            refine: RefineOptions { words, window_bytes, scoring, score_min: 18 },
            near: preset != Preset::Fast,
        }
    }

    /// Bytes that work on images of these lengths takes besides them, at most.
    pub(super) fn bytes(self, old: u64, new: u64) -> u64 {
        // References that were zeroed, and then copies, residue and tables, are less than a quarter.
        // What is searched for later has the same memory.
        AnchorIndex::bytes(old, self.data) + (old + new) / 4
    }
}
