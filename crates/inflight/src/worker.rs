//! One worker: its driver, its tasks, and the event loop.
//!
//! The only place where a worker blocks is [`Driver::turn`] with `wait`, and only after it
//! announced its sleep and found every queue empty.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::driver::{self, Driver, DriverChoice, SyscallPool};
use crate::inbox::InboxRef;
use crate::local::{enter_worker, take_submitted};

/// How many tasks run before completions are looked at again.
const TASKS_PER_TURN: usize = 128;

struct Worker {
    inbox: InboxRef,
    driver: Box<dyn Driver>,
    scratch: Vec<u32>,
}

/// The whole life of a worker's thread.
pub(crate) fn run(inbox: InboxRef, choice: DriverChoice, pool: Arc<SyscallPool>) {
    let driver = driver::open(choice, inbox, pool);
    enter_worker(inbox);
    let scratch = Vec::with_capacity(inbox.slots.count());
    let mut worker = Worker { inbox, driver, scratch };
    while worker.turn() {}
    inbox.end();
}

impl Worker {
    /// Once around; says whether to go on.
    fn turn(&mut self) -> bool {
        let mut worked = self.run_tasks();
        worked |= self.submit();
        if worked {
            self.driver.turn(false);
            return true;
        }
        if self.inbox.shutdown.load(Ordering::Acquire)
            && self.inbox.in_flight.load(Ordering::Acquire) == 0
        {
            return !self.inbox.is_idle();
        }
        self.inbox.alarm.fall_asleep();
        let wait = self.inbox.is_idle() && !self.shall_end();
        self.driver.turn(wait);
        self.inbox.alarm.wake_up();
        true
    }

    fn shall_end(&self) -> bool {
        self.inbox.shutdown.load(Ordering::SeqCst)
            && self.inbox.in_flight.load(Ordering::SeqCst) == 0
    }

    fn run_tasks(&mut self) -> bool {
        for done in 0..TASKS_PER_TURN {
            let Some(task) = self.inbox.next_task() else {
                return done > 0;
            };
            task.run();
        }
        true
    }

    /// Hands new operations and cancels to the driver.
    fn submit(&mut self) -> bool {
        let mut any = false;
        take_submitted(&mut self.scratch);
        for index in self.scratch.drain(..) {
            self.driver.submit(index);
            any = true;
        }
        while let Some(index) = self.inbox.submissions.pop() {
            self.driver.submit(index);
            any = true;
        }
        while let Some(name) = self.inbox.cancels.pop() {
            self.driver.cancel(name);
            any = true;
        }
        any
    }
}
