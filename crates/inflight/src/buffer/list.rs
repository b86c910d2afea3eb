//! Several buffers for one vectored operation.

use std::io::IoSlice;

use super::pool::Buffer;

/// The most buffers one operation takes: the kernel's own limit.
const BUFFERS_MAX: usize = 1024;

/// Buffers for one vectored operation, with the array the kernel wants beside them. Keep and
/// reuse it: then no operation allocates.
#[derive(Default)]
pub struct BufferList {
    buffers: Vec<Buffer>,
    vectors: Vec<Vector>,
}

/// Address and length of one piece: `struct iovec`, which is what `IoSlice` is documented to be
/// laid out like on Unix.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Vector {
    pub(crate) base: *mut u8,
    pub(crate) length: usize,
}

const _: () = assert!(size_of::<Vector>() == size_of::<IoSlice<'_>>());

// SAFETY: the pointers are only used by the operation that owns the list, together with the
// buffers they point into, which are `Send`.
unsafe impl Send for BufferList {}
// SAFETY: through `&BufferList` the pointers cannot be reached outside the drivers.
unsafe impl Sync for BufferList {}

impl BufferList {
    /// An empty list.
    #[must_use]
    pub fn new() -> BufferList {
        BufferList::default()
    }

    /// Adds a buffer at the end.
    ///
    /// # Panics
    /// When the list holds 1024 buffers already.
    pub fn push(&mut self, buffer: Buffer) {
        assert!(self.buffers.len() < BUFFERS_MAX, "at most {BUFFERS_MAX} buffers an operation");
        self.buffers.push(buffer);
        self.vectors.reserve(1);
    }

    /// Takes the last buffer off.
    pub fn pop(&mut self) -> Option<Buffer> {
        self.buffers.pop()
    }

    /// The buffers in order.
    #[must_use]
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// The buffers in order, to change.
    pub fn buffers_mut(&mut self) -> &mut [Buffer] {
        &mut self.buffers
    }

    /// Describes the spare room of each buffer to the kernel.
    pub(crate) fn spare_vectors(&mut self) -> &mut [Vector] {
        self.vectors.clear();
        let spare = |b: &Buffer| Vector { base: b.spare_ptr(), length: b.spare() };
        self.vectors.extend(self.buffers.iter().map(spare));
        &mut self.vectors
    }

    /// Describes the filled part of each buffer to the kernel.
    pub(crate) fn filled_vectors(&mut self) -> &[Vector] {
        self.vectors.clear();
        let filled = |b: &Buffer| Vector { base: b.filled_ptr().cast_mut(), length: b.len() };
        self.vectors.extend(self.buffers.iter().map(filled));
        &self.vectors
    }

    /// Spreads `bytes` that a vectored read wrote over the buffers' lengths.
    ///
    /// # Safety
    /// The kernel wrote that many bytes into the spare vectors, in order.
    pub(crate) unsafe fn assume_filled(&mut self, mut bytes: usize) {
        for buffer in &mut self.buffers {
            let here = bytes.min(buffer.spare());
            // SAFETY: the caller vouches for the bytes, which were laid down in this order.
            unsafe { buffer.assume_filled(here) };
            bytes -= here;
        }
        assert_eq!(bytes, 0, "the kernel wrote past the buffers");
    }
}

impl std::fmt::Debug for BufferList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.buffers).finish()
    }
}
