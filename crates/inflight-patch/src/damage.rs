//! What a reader of patches found wrong.

use std::fmt;

/// What is wrong with a patch, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Byte position in the patch: of the block, where the fault is inside one.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Whether nothing is damaged but something is not known to this version, by name.
    pub unknown: bool,
}

impl Damage {
    pub(crate) fn new(offset: u64, what: impl Into<String>) -> Damage {
        Damage { offset, what: what.into(), unknown: false }
    }

    pub(crate) fn unknown(offset: u64, what: impl Into<String>) -> Damage {
        Damage { offset, what: what.into(), unknown: true }
    }

    /// The same, found inside a block that starts at `offset`.
    pub(crate) fn inside(mut self, offset: u64) -> Damage {
        self.offset = offset;
        self
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.what)
    }
}
