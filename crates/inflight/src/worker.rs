//! One worker: its driver, its tasks, and the event loop.
//!
//! The only place where a worker blocks is [`Driver::turn`] with `wait`, and only after it
//! announced its sleep and found every queue empty.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use crate::driver::{self, Driver, DriverChoice, SyscallPool};
use crate::inbox::InboxRef;
use crate::local::{enter_worker, leave_worker, take_submitted};

/// How many tasks run before completions are looked at again.
const TASKS_PER_TURN: usize = 128;

struct Worker {
    inbox: InboxRef,
    driver: Box<dyn Driver>,
    scratch: Vec<u32>,
}

/// The whole life of a worker's thread.
pub(crate) fn run(
    inbox: InboxRef,
    choice: DriverChoice,
    pool: Arc<SyscallPool>,
    opened: &Sender<io::Result<()>>,
) {
    let driver = driver::open(choice, inbox, pool);
    let (driver, result) = match driver {
        Ok(driver) => (Some(driver), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // The builder waits for this; one that failed elsewhere listens no more, and ends this worker.
    let _ = opened.send(result);
    let Some(driver) = driver else { return inbox.end(&[]) };
    enter_worker(inbox);
    let scratch = Vec::with_capacity(inbox.slots.count());
    let mut worker = Worker { inbox, driver, scratch };
    // Operations that the kernel still holds cannot be taken from a worker that panicked, and
    // whoever waits for them would wait for ever: an end with a message is better.
    let bomb = AbortOnPanic;
    while worker.turn() {}
    std::mem::forget(bomb);
    // Its kernel queue goes first: nothing can complete any more.
    drop(worker);
    inbox.end(&leave_worker());
}

impl Worker {
    /// Once around; says whether to go on.
    fn turn(&mut self) -> bool {
        if self.inbox.shutdown.load(Ordering::SeqCst) {
            return self.wind_down();
        }
        let mut worked = self.run_tasks();
        worked |= self.submit();
        if worked {
            self.driver.turn(false);
            return true;
        }
        self.inbox.alarm.fall_asleep();
        let wait = self.inbox.is_idle() && !self.inbox.shutdown.load(Ordering::SeqCst);
        self.driver.turn(wait);
        self.inbox.alarm.wake_up();
        true
    }

    /// Once around while the engine ends: nothing new is begun, what is in flight is waited for.
    fn wind_down(&mut self) -> bool {
        take_submitted(&mut self.scratch);
        for index in self.scratch.drain(..) {
            self.inbox.fail(index);
        }
        self.inbox.fail_submissions();
        while let Some(name) = self.inbox.cancels.pop() {
            self.driver.cancel(name);
        }
        if self.inbox.in_flight.load(Ordering::SeqCst) == 0 {
            return false;
        }
        self.inbox.alarm.fall_asleep();
        let wait = self.inbox.submissions.is_empty()
            && self.inbox.cancels.is_empty()
            && self.inbox.in_flight.load(Ordering::SeqCst) > 0;
        self.driver.turn(wait);
        self.inbox.alarm.wake_up();
        true
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

/// Ends the process when it is dropped by a panic.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        eprintln!("inflight: a worker of the I/O engine panicked; this is a bug in the engine");
        std::process::abort();
    }
}
