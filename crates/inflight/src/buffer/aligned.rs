//! The alignment rules of direct I/O, kept by types.
//!
//! Direct I/O wants memory address, file offset and length to be multiples of the device's block.
//! [`AlignedOffset`] and [`AlignedBuffer`] can only be made in ways that guarantee it, and
//! [`crate::DirectFile`] takes nothing else. [`BLOCK_BYTES`] satisfies every device whose blocks
//! are 4 KiB or smaller; [`crate::DirectFile`] refuses to open anything coarser.

use super::block::BLOCK_BYTES;
use super::pool::Buffer;

/// A file offset that is a multiple of [`BLOCK_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlignedOffset(u64);

impl AlignedOffset {
    /// The start of a file.
    pub const ZERO: AlignedOffset = AlignedOffset(0);

    /// `offset` if it is aligned.
    #[must_use]
    pub const fn new(offset: u64) -> Option<AlignedOffset> {
        if offset.is_multiple_of(BLOCK_BYTES as u64) { Some(AlignedOffset(offset)) } else { None }
    }

    /// The last aligned offset at or before `offset`.
    #[must_use]
    pub const fn at_or_before(offset: u64) -> AlignedOffset {
        AlignedOffset(offset - offset % BLOCK_BYTES as u64)
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// `blocks` blocks further on.
    #[must_use]
    pub const fn plus_blocks(self, blocks: u64) -> AlignedOffset {
        AlignedOffset(self.0 + blocks * BLOCK_BYTES as u64)
    }
}

/// A buffer whose filled part is a whole number of blocks.
#[derive(Debug)]
pub struct AlignedBuffer {
    buffer: Buffer,
    padding: usize,
}

impl AlignedBuffer {
    /// Pads the filled part with zeros to whole blocks.
    ///
    /// # Panics
    /// When it is a part of an arena: those start and end anywhere.
    #[must_use]
    pub fn padded(mut buffer: Buffer) -> AlignedBuffer {
        assert!(buffer.is_pooled(), "a part of an arena has no place for padding");
        // Capacity is a whole number of pages, so the padding always fits.
        let padding = buffer.len().next_multiple_of(BLOCK_BYTES) - buffer.len();
        buffer.extend_zeros(padding);
        AlignedBuffer { buffer, padding }
    }

    /// How many bytes at the end are padding.
    #[must_use]
    pub fn padding(&self) -> usize {
        self.padding
    }

    /// The buffer without its padding.
    #[must_use]
    pub fn into_inner(mut self) -> Buffer {
        let length = self.buffer.len() - self.padding;
        self.buffer.truncate(length);
        self.buffer
    }

    pub(crate) fn into_padded(self) -> (Buffer, usize) {
        (self.buffer, self.padding)
    }

    pub(crate) fn from_padded(buffer: Buffer, padding: usize) -> AlignedBuffer {
        AlignedBuffer { buffer, padding }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Budget, Pool};

    #[test]
    fn offsets_are_aligned_by_construction() {
        assert_eq!(AlignedOffset::new(4095), None);
        assert_eq!(AlignedOffset::new(8192).map(AlignedOffset::bytes), Some(8192));
        assert_eq!(AlignedOffset::at_or_before(8191).bytes(), 4096);
        assert_eq!(AlignedOffset::ZERO.plus_blocks(2).bytes(), 8192);
    }

    #[test]
    fn padding_is_taken_off_again() {
        let pool = Pool::new(Budget::new(1 << 20));
        for length in [0, 1, 4095, 4096, 4097] {
            let mut buffer = pool.try_get(8192).expect("fits");
            buffer.extend_fill(7, length);
            let aligned = AlignedBuffer::padded(buffer);
            assert_eq!((length + aligned.padding()) % BLOCK_BYTES, 0);
            assert_eq!(&*aligned.into_inner(), &vec![7; length][..]);
        }
    }
}
