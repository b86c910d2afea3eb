//! What handles, files and tasks of one engine share.

use std::sync::Arc;

use crate::budget::Budget;
use crate::buffer::Pool;
use crate::descriptor::{Closer, OwnedDescriptor};
use crate::device::facts::Device;
use crate::device_turns::DeviceTurns;
use crate::driver::DriverChoice;
use crate::inbox::InboxRef;
use crate::metrics::{BusyTime, Devices};
use crate::operation::Operation;
use crate::route;
use crate::simulation::Simulation;

pub(crate) struct Shared {
    pub(crate) inboxes: Box<[InboxRef]>,
    pub(crate) pool: Pool,
    /// The worker, where the disk is a simulated one.
    pub(crate) simulation: Option<Simulation>,
    pub(crate) busy: Arc<BusyTime>,
    pub(crate) devices: Devices,
    /// The line in which loads wait for memory, one at its front.
    pub(crate) loads: Budget,
    /// Memory of loads that went before those whose turn it was.
    pub(crate) loads_ahead: Budget,
    pub(crate) device_turns: DeviceTurns,
    /// Devices of which it is known what suits them.
    pub(crate) measured: Vec<Device>,
    pub(crate) driver: DriverChoice,
    /// Why this driver.
    pub(crate) reason: String,
    /// Bytes of one request at most, where requests are cut.
    pub(crate) request_bytes_max: usize,
}

impl Shared {
    /// The worker that the calling thread's next operation goes to.
    pub(crate) fn inbox(&self) -> InboxRef {
        route::choose(&self.inboxes)
    }
}

impl Closer for Shared {
    fn close(&self, descriptor: OwnedDescriptor) {
        // Where no slot is free it is dropped, and so closed, on the spot.
        drop(self.inbox().submit_orphan(Operation::Close { descriptor }));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for inbox in &self.inboxes {
            inbox.close();
        }
    }
}
