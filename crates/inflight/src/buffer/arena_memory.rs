//! What an arena is made of.

use super::block::Region;
use super::release::{Releaser, Unneeded};
use crate::budget::Reservation;

/// What an arena and its buffers share: a region, and its share of the budget.
pub(super) struct ArenaMemory {
    region: Option<Region>,
    reservation: Option<Reservation>,
    releaser: Releaser,
}

impl ArenaMemory {
    pub(super) fn new(region: Region, reservation: Reservation, releaser: Releaser) -> ArenaMemory {
        ArenaMemory { region: Some(region), reservation: Some(reservation), releaser }
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
