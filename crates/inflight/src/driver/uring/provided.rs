//! Buffers that the kernel takes when something arrives, so that a connection that waits holds none.
//!
//! They come from the engine's pool and count against its budget; each that went out with data is
//! replaced by another, if the budget has one. Where the kernel is too old for a ring of buffers,
//! the driver polls for readiness and takes a buffer then.

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::buffer::{Buffer, Pool};
use crate::driver::RECEIVE_BYTES;

/// The number of our one group of buffers.
pub(super) const GROUP: u16 = 0;
/// Buffers in the ring at most; a power of two.
const BUFFERS_MAX: u64 = 64;
/// The part of the budget that they may take.
const BUDGET_PART: u64 = 8;

pub(super) struct Provided {
    pool: Pool,
    /// The ring's own page; `None` where the kernel knows no such rings.
    page: Option<Buffer>,
    /// The buffers, by number.
    buffers: Vec<Option<Buffer>>,
    tail: u16,
}

impl Provided {
    /// Makes the ring known to the kernel and fills it.
    pub(super) fn open(submitter: &Submitter<'_>, pool: &Pool) -> Provided {
        let most = pool.budget().limit() / BUDGET_PART / RECEIVE_BYTES as u64;
        let most = most.clamp(1, BUFFERS_MAX);
        let count = if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 };
        let mut provided =
            Provided { pool: pool.clone(), page: None, buffers: Vec::new(), tail: 0 };
        let Some(mut page) = pool.try_get(count as usize * size_of::<BufRingEntry>()) else {
            return provided;
        };
        page.extend_zeros(page.capacity());
        // SAFETY: the page is aligned, long enough, zero, and lives as long as this does, which is
        // longer than the ring.
        let registered = unsafe {
            submitter.register_buf_ring_with_flags(page.filled_ptr() as u64, count as u16, GROUP, 0)
        };
        if registered.is_ok() {
            provided.page = Some(page);
            provided.buffers.resize_with(count as usize, || None);
            provided.refill();
        }
        provided
    }

    /// Whether the kernel takes buffers by itself.
    pub(super) fn in_ring(&self) -> bool {
        self.page.is_some()
    }

    /// Puts a buffer wherever one is missing, as far as the budget has them.
    fn refill(&mut self) {
        for number in 0..self.buffers.len() {
            if self.buffers[number].is_none() {
                self.put(number as u16);
            }
        }
    }

    /// Gives the kernel a buffer under a number that it has none of.
    fn put(&mut self, number: u16) {
        let Some(page) = &self.page else { return };
        let Some(buffer) = self.pool.try_get(RECEIVE_BYTES) else { return };
        let entries = page.filled_ptr().cast_mut().cast::<BufRingEntry>();
        let place = usize::from(self.tail) & (self.buffers.len() - 1);
        // SAFETY: the place lies in the page, and the kernel looks at it only after the tail has
        // passed it; as many buffers as there are places are out at most.
        let entry = unsafe { &mut *entries.add(place) };
        entry.set_addr(buffer.spare_ptr() as u64);
        entry.set_len(RECEIVE_BYTES as u32);
        entry.set_bid(number);
        self.buffers[usize::from(number)] = Some(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the page, aligned, and is only ever written here.
        let tail = unsafe { &*BufRingEntry::tail(entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    /// The buffer that the kernel filled with so many bytes.
    pub(super) fn take(&mut self, number: u16, bytes: usize) -> Buffer {
        let mut buffer = self.buffers[usize::from(number)].take().unwrap_or_default();
        // SAFETY: the kernel reports that many bytes written to it, and gave it back.
        unsafe { buffer.assume_filled(bytes) };
        self.refill();
        buffer
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }
}
