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
