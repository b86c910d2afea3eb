//! What is in a file of a simulated disk.

use std::collections::BTreeSet;
use std::ops::Range;

/// Bytes of a file that have space allocated to them together.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// A file's bytes, and which blocks of it are more than a hole.
#[derive(Debug, Clone, Default)]
pub(super) struct FileBytes {
    pub(super) bytes: Vec<u8>,
    pub(super) allocated: BTreeSet<u64>,
}

impl FileBytes {
    pub(super) fn resize(&mut self, length: u64) {
        self.bytes.resize(length as usize, 0);
        self.allocated.split_off(&length.div_ceil(BLOCK_BYTES));
    }

    pub(super) fn allocate(&mut self, range: &Range<u64>) {
        self.allocated.extend(range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES));
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if end > self.bytes.len() as u64 {
            self.bytes.resize(end as usize, 0);
        }
        self.bytes[offset as usize..end as usize].copy_from_slice(bytes);
        self.allocate(&(offset..end));
    }

    pub(super) fn punch(&mut self, range: &Range<u64>) {
        let length = self.bytes.len() as u64;
        let (start, end) = (range.start.min(length), range.end.min(length));
        self.bytes[start as usize..end as usize].fill(0);
        let whole = start.div_ceil(BLOCK_BYTES)..end / BLOCK_BYTES;
        self.allocated.retain(|block| !whole.contains(block));
    }
}
