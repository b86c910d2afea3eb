//! How many requests to a device go to the kernel at once.
//!
//! A device that has nothing to do should not wait until the last request of a batch is made ready: at
//! some microseconds each, it would rest as long as it takes to make them all. So the kernel gets what
//! is queued as soon as that is a quarter of what the device has: one, one, two, four, and so on.
//! (Measured with 4 KiB direct reads, 32 at once: a fifth more of them in the same time.)

/// A batch is as good as this share of what the device has.
const SHARE: usize = 4;

#[derive(Default)]
pub(super) struct Pace {
    /// Direct reads and writes that the kernel has.
    on_device: usize,
    /// Those that wait in the ring's queue.
    queued: usize,
    /// Operations that will follow in this batch.
    coming: usize,
}

impl Pace {
    /// So many operations come one after the other.
    pub(super) fn expect(&mut self, operations: usize) {
        self.coming = operations;
    }

    /// One of them is here.
    #[inline]
    pub(super) fn arrived(&mut self) {
        self.coming = self.coming.saturating_sub(1);
    }

    /// A direct read or write was queued; says whether the queue should go to the kernel now.
    #[inline]
    pub(super) fn queue(&mut self) -> bool {
        self.queued += 1;
        // The last one goes with the call that waits.
        self.coming > 0 && self.queued * SHARE >= self.on_device
    }

    /// The kernel has all that was queued.
    #[inline]
    pub(super) fn passed_on(&mut self) {
        self.on_device += std::mem::take(&mut self.queued);
    }

    /// A direct read or write has ended.
    #[inline]
    pub(super) fn end(&mut self) {
        self.on_device -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_device_begins_at_once_and_a_busy_one_gets_batches() {
        let mut pace = Pace::default();
        let mut batches = Vec::new();
        pace.expect(32);
        for _ in 0..32 {
            pace.arrived();
            if pace.queue() {
                batches.push(pace.queued);
                pace.passed_on();
            }
        }
        assert_eq!(batches, [1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6]);
        assert_eq!(pace.queued, 2, "the last ones go with the call that waits");
        pace.passed_on();
        (0..32).for_each(|_| pace.end());
        assert_eq!(pace.on_device, 0);
        pace.expect(1);
        pace.arrived();
        assert!(!pace.queue(), "one alone is one call");
    }
}
