//! The thread-pool driver: every operation is a system call on a pool thread.
//!
//! It works wherever threads do: in containers that forbid io_uring, on old kernels, on other
//! systems. Operations pass to the pool in batches, one lock and at most a few wake-ups each; the
//! pool's threads report the ends themselves, so this worker sleeps until the alarm rings.

use std::sync::Arc;

use super::interpreter::Driver;
use super::pool::SyscallPool;
use crate::alarm::Bell;
use crate::inbox::InboxRef;

pub(super) struct Threads {
    inbox: InboxRef,
    pool: Arc<SyscallPool>,
    accepted: Vec<u32>,
}

impl Threads {
    pub(super) fn open(inbox: InboxRef, pool: Arc<SyscallPool>) -> Threads {
        inbox.alarm.set(Bell::Thread(std::thread::current()));
        Threads { inbox, pool, accepted: Vec::new() }
    }
}

impl Driver for Threads {
    fn submit(&mut self, index: u32) {
        self.inbox.start(index);
        // SAFETY: the slot was just handed to this driver.
        if unsafe { self.inbox.slots.operation(index) }.is_valid() {
            self.accepted.push(index);
        } else {
            self.inbox.finish(index, Err(rustix::io::Errno::INVAL.raw_os_error()));
        }
    }

    fn cancel(&mut self, name: u64) {
        // A system call under way cannot be taken back; one that no thread took up yet can.
        self.pool.cancel(self.inbox, name);
    }

    fn turn(&mut self, wait: bool) {
        self.pool.submit(self.inbox, &mut self.accepted);
        if wait {
            std::thread::park();
        }
    }
}
