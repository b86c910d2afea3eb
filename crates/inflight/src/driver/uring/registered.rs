//! Buffers that the ring knows in advance: the kernel need not look up their pages at each request.
//!
//! It is one piece of the pool's memory. Where the system does not allow so much locked memory, none
//! is registered, and the same buffers go the usual way.

use io_uring::Submitter;

use crate::buffer::Pool;

/// The number that the ring knows them by.
pub(super) const NUMBER: u16 = 0;

/// Where they are: nowhere, by default.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Registered {
    start: usize,
    bytes: usize,
}

impl Registered {
    pub(super) fn open(submitter: &Submitter<'_>, pool: &Pool) -> Registered {
        let Some((start, bytes)) = pool.set_aside() else { return Registered::default() };
        let vector = libc::iovec { iov_base: start.cast(), iov_len: bytes };
        // SAFETY: the memory lives as long as the pool, which the driver keeps until the ring is gone.
        match unsafe { submitter.register_buffers(&[vector]) } {
            Ok(()) => Registered { start: start as usize, bytes },
            Err(_) => Registered::default(),
        }
    }

    pub(super) fn bytes(self) -> usize {
        self.bytes
    }

    /// Whether a piece of memory is a part of them. No block lies there in part.
    #[inline]
    pub(super) fn has(self, place: *const u8) -> bool {
        (place as usize).wrapping_sub(self.start) < self.bytes
    }
}
