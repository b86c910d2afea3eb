//! What an arena is made of.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::block::Region;
use super::release::{Releaser, Unneeded};
use crate::budget::Reservation;

/// What an arena and its buffers share: a region, and its share of the budget.
pub(super) struct ArenaMemory {
    region: Option<Region>,
    reservation: Option<Reservation>,
    releaser: Releaser,
    /// Bytes at the front that nobody writes to any more.
    settled: AtomicUsize,
}

impl ArenaMemory {
    pub(super) fn new(region: Region, reservation: Reservation, releaser: Releaser) -> ArenaMemory {
        let settled = AtomicUsize::new(0);
        ArenaMemory { region: Some(region), reservation: Some(reservation), releaser, settled }
    }

    /// A file's pages: they are the system's, so they count against no budget.
    pub(super) fn of_file(region: Region, releaser: Releaser) -> ArenaMemory {
        let settled = AtomicUsize::new(0);
        ArenaMemory { region: Some(region), reservation: None, releaser, settled }
    }

    /// The bytes that nobody writes to any more.
    pub(super) fn settled(&self) -> &[u8] {
        let length = self.settled.load(Ordering::Acquire);
        // SAFETY: the region is at least as long, was zero when it was made, and whoever wrote to these
        // bytes had given up its way to them before `settle` counted them.
        unsafe { std::slice::from_raw_parts(self.region().as_ptr(), length) }
    }

    /// Counts further bytes; whoever could write to them cannot any more.
    pub(super) fn settle(&self, bytes: usize) {
        let before = self.settled.fetch_add(bytes, Ordering::Release);
        assert!(before + bytes <= self.region().bytes(), "no more than there are");
    }

    pub(super) fn settled_bytes(&self) -> usize {
        self.settled.load(Ordering::Acquire)
    }

    pub(super) fn region(&self) -> &Region {
        self.region.as_ref().expect("it is taken at the end only")
    }
}

impl Drop for ArenaMemory {
    fn drop(&mut self) {
        let region = self.region.take();
        self.releaser.release(Unneeded { blocks: Vec::new(), region });
        // What is on its way is known by now.
        drop(self.reservation.take());
    }
}
