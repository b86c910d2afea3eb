//! What a reader of patches found wrong.

use std::fmt;

/// What is wrong with a patch, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Byte position in the patch: of the block, where the fault is inside one.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Of what sort that is.
    pub kind: DamageKind,
}

/// Of what sort a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The bytes are not what was written, or were written by somebody who means no good.
    Damaged,
    /// Something is not known to this version; the fault names it.
    Unknown,
    /// It would take more memory than is allowed.
    TooLarge {
        /// Bytes that it would take, as far as was counted.
        needed_bytes: u64,
    },
}

impl Damage {
    pub(crate) fn new(offset: u64, what: impl Into<String>) -> Damage {
        Damage { offset, what: what.into(), kind: DamageKind::Damaged }
    }

    pub(crate) fn unknown(offset: u64, what: impl Into<String>) -> Damage {
        Damage { offset, what: what.into(), kind: DamageKind::Unknown }
    }

    pub(crate) fn too_large(needed_bytes: u64) -> Damage {
        let kind = DamageKind::TooLarge { needed_bytes };
        Damage { offset: 0, what: "it takes more memory than is allowed".into(), kind }
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
