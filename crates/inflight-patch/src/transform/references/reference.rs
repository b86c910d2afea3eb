//! A reference: a value that leads to a place in an executable.

use super::space::Space;

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
    /// Spot 0.
    Base,
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

impl Reference {
    /// The reference that four bytes are, if they can be a spot: below code are headers only, and
    /// small numbers.
    pub(super) fn offset(space: &Space, bytes: &[u8], at: usize) -> Option<Reference> {
        let target = word(bytes, at);
        let is_spot = (space.code.start..space.loaded).contains(&target);
        is_spot.then_some(Reference { at, width: 4, target, origin: Origin::Base })
    }

    /// Its value.
    #[inline]
    pub(crate) fn read(&self, bytes: &[u8]) -> u64 {
        read_value(&bytes[self.at..], self.width)
    }

    /// Puts another one there.
    #[inline]
    pub(crate) fn write(&self, bytes: &mut [u8], value: u64) {
        let bytes = &mut bytes[self.at..];
        match self.width {
            4 => *bytes.first_chunk_mut().expect("4 bytes") = (value as u32).to_le_bytes(),
            _ => *bytes.first_chunk_mut().expect("8 bytes") = value.to_le_bytes(),
        }
    }
}

/// The value of 4 or 8 bytes at the start of these.
#[inline]
pub(crate) fn read_value(bytes: &[u8], width: usize) -> u64 {
    // Not a copy of so many bytes: that would be a call.
    match width {
        4 => u64::from(u32::from_le_bytes(*bytes.first_chunk().expect("4 bytes"))),
        _ => u64::from_le_bytes(*bytes.first_chunk().expect("8 bytes")),
    }
}

/// The four bytes at a place, as a number.
#[inline]
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}
