//! One worker: its driver, its tasks, and the event loop.
//!
//! The only place where a worker blocks is [`Driver::turn`] with `wait`, and only after it
//! announced its sleep and found every queue empty. Handing on and waiting are one call then: an
//! operation that a lone task waits for costs one system call.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use crate::driver::{self, Driver, DriverChoice, SyscallPool};
use crate::inbox::InboxRef;

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
    let Some(driver) = driver else { return inbox.end() };
    inbox.enter();
    let mut worker = Worker { inbox, driver, scratch: Vec::new() };
    // Operations that the kernel still holds cannot be taken from a worker that panicked, and
    // whoever waits for them would wait for ever: an end with a message is better.
    let bomb = AbortOnPanic;
    while worker.turn() {}
    std::mem::forget(bomb);
    // Its kernel queue goes first: nothing can complete any more.
    drop(worker);
    inbox.end();
}

impl Worker {
    /// Once around; says whether to go on.
    fn turn(&mut self) -> bool {
        if self.inbox.shutdown.load(Ordering::SeqCst) {
            return self.wind_down();
        }
        self.run_tasks();
        self.submit();
        self.inbox.alarm.fall_asleep();
        let wait = self.inbox.is_idle() && !self.inbox.shutdown.load(Ordering::SeqCst);
        if !wait {
            self.inbox.alarm.wake_up();
        }
        self.driver.turn(wait);
        self.inbox.alarm.wake_up();
        true
    }

    /// Once around while the engine ends: nothing new is begun, what is in flight is waited for.
    fn wind_down(&mut self) -> bool {
        self.inbox.take_submissions(&mut self.scratch);
        for index in self.scratch.drain(..) {
            self.inbox.fail(index);
        }
        self.cancel();
        if self.inbox.in_flight() == 0 {
            return false;
        }
        self.inbox.alarm.fall_asleep();
        let wait = self.inbox.has_no_requests() && self.inbox.in_flight() > 0;
        self.driver.turn(wait);
        self.inbox.alarm.wake_up();
        true
    }

    fn run_tasks(&mut self) {
        self.inbox.collect_tasks();
        for _ in 0..TASKS_PER_TURN {
            let Some(task) = self.inbox.next_task() else { return };
            task.run();
        }
    }

    /// Hands new operations and cancels to the driver.
    fn submit(&mut self) {
        self.inbox.take_submissions(&mut self.scratch);
        for index in self.scratch.drain(..) {
            self.driver.submit(index);
        }
        self.cancel();
    }

    fn cancel(&mut self) {
        self.inbox.take_cancels(&mut self.scratch);
        for index in self.scratch.drain(..) {
            self.driver.cancel(self.inbox.slots.take_cancel(index));
        }
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
