//! A reference: a value that leads to a place in an executable.

/// What the value of a reference is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The address 0.
    Zero,
    /// The reference's own place.
    Itself,
    /// The reference's own place, backwards.
    Behind,
    /// The start of the region it is in.
    Region,
    /// The start of the region with the names.
    Names,
}

/// A reference in the bytes that were scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Where its value starts.
    pub(crate) at: usize,
    /// Bytes of the value: 4 or 8, little-endian.
    pub(crate) width: usize,
    /// The spot that it refers to.
    pub(crate) target: u32,
    pub(crate) origin: Origin,
}
