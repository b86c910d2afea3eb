//! The simulated driver: an in-memory disk, sockets that reach each other, and a clock that moves only
//! when everyone waits.
//!
//! Each operation takes effect at some later time of that clock, by chance: so operations overtake
//! each other wherever they may. All that happens by chance follows from the disk's seed. The
//! worker runs on the thread that blocks on a future, and nothing else does: a program that does no
//! more than this engine's operations does the same again with the same seed.
//!
//! Modelled after the simulators of FoundationDB and TigerBeetle.

mod chance;
mod devices;
mod disk;
mod disks;
mod file_bytes;
mod many;
mod network;
mod path;
mod perform;
mod sockets;
mod tree;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustix::io::Errno;

use self::chance::Chance;
pub use self::disk::{Faults, SimulatedDisk};
use super::interpreter::Driver;
use crate::buffer::Pool;
use crate::inbox::{InboxRef, Stage};
use crate::operation::Operation;

/// The longest that an operation takes, in nanoseconds of the simulated clock.
const DELAY_MAX_NS: u64 = 1_000_000;

pub(super) struct Simulated {
    inbox: InboxRef,
    disk: SimulatedDisk,
    chance: Chance,
    /// Nanoseconds since the driver was opened.
    now_ns: u64,
    /// Operations by when they take effect; then by chance, then by name.
    under_way: BinaryHeap<Reverse<(u64, u64, u64)>>,
    /// Names of operations on sockets that were not ready.
    waiting: Vec<u64>,
    /// How much had changed about sockets when they were last looked at.
    changes: u64,
    buffers: Pool,
}

impl Simulated {
    pub(super) fn open(inbox: InboxRef, disk: &SimulatedDisk, buffers: Pool) -> Simulated {
        let chance = Chance::new(disk.state().chance.next());
        let now_ns = disk.state().now_ns;
        let (disk, under_way, waiting) = (disk.clone(), BinaryHeap::new(), Vec::new());
        Simulated { inbox, disk, chance, now_ns, under_way, waiting, changes: 0, buffers }
    }

    fn begin(&mut self, index: u32, delay_ns: u64) {
        let due = self.now_ns.saturating_add(delay_ns);
        let name = self.inbox.slots.name(index);
        self.under_way.push(Reverse((due, self.chance.next(), name)));
    }

    fn some_delay(&mut self, operation: &Operation) -> u64 {
        let slowness = self.disk.state().slowness(operation);
        (1 + self.chance.below(DELAY_MAX_NS)).saturating_mul(slowness)
    }

    /// The next operation takes effect.
    fn perform_next(&mut self) {
        let Some(Reverse((due, _, name))) = self.under_way.pop() else { return };
        self.inbox.note_progress();
        if !self.inbox.slots.is_current(name) {
            return;
        }
        self.now_ns = self.now_ns.max(due);
        self.disk.state().now_ns = self.now_ns;
        let index = name as u32;
        let interrupted = self.disk.state().faults.interrupted_once_in;
        if self.chance.once_in(interrupted) {
            let inbox = self.inbox;
            // SAFETY: the operation was under way, and nobody but this driver had it.
            let delay = self.some_delay(unsafe { inbox.slots.operation(index) });
            return self.begin(index, delay);
        }
        let inbox = self.inbox;
        // SAFETY: the operation was under way, and nobody but this driver had it.
        let operation = unsafe { inbox.slots.operation(index) };
        match perform::perform(&self.disk, &self.buffers, operation) {
            Err(Errno::AGAIN) if operation.waits() => self.waiting.push(name),
            outcome => inbox.finish(index, outcome.map_err(Errno::raw_os_error)),
        }
    }

    /// Whoever waits for a socket looks again, if something has changed.
    fn look_at_sockets(&mut self) {
        let changes = self.disk.state().network.changes();
        if std::mem::replace(&mut self.changes, changes) == changes {
            return;
        }
        for name in std::mem::take(&mut self.waiting) {
            if self.inbox.slots.is_current(name) {
                let inbox = self.inbox;
                // SAFETY: it waits, and nobody but this driver has it.
                let delay = self.some_delay(unsafe { inbox.slots.operation(name as u32) });
                self.begin(name as u32, delay);
            }
        }
    }
}

impl Driver for Simulated {
    fn submit(&mut self, index: u32) {
        self.inbox.start(index);
        let inbox = self.inbox;
        // SAFETY: the slot was just handed to this driver.
        let operation = unsafe { inbox.slots.operation(index) };
        if !operation.is_valid() {
            return inbox.finish(index, Err(Errno::INVAL.raw_os_error()));
        }
        let delay = match operation {
            Operation::Sleep { duration } => u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
            other => self.some_delay(other),
        };
        self.begin(index, delay);
    }

    fn cancel(&mut self, name: u64) {
        let under_way = self.waiting.contains(&name)
            || self.under_way.iter().any(|Reverse((.., other))| *other == name);
        if !under_way || !self.inbox.slots.is_current(name) {
            return;
        }
        let inbox = self.inbox;
        // SAFETY: it is under way, and nobody but this driver has it.
        let waits = unsafe { inbox.slots.operation(name as u32) }.waits();
        // Some are too far on to be taken back.
        if waits || self.chance.once_in(2) {
            self.inbox.finish(name as u32, Err(Errno::CANCELED.raw_os_error()));
        }
    }

    fn turn(&mut self, wait: bool) {
        self.look_at_sockets();
        if !wait {
            return;
        }
        if !self.under_way.is_empty() {
            return self.perform_next();
        }
        if self.inbox.stage() == Stage::Running {
            return self.inbox.wait_for_outside();
        }
        // The engine ends, and nothing will end these: no deadline would change that.
        for name in std::mem::take(&mut self.waiting) {
            if self.inbox.slots.is_current(name) {
                self.inbox.finish(name as u32, Err(Errno::CANCELED.raw_os_error()));
            }
        }
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("inflight: this was on {:?}", self.disk);
        }
    }
}
