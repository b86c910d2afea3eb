//! One worker: its driver, its tasks, and the event loop.
//!
//! The only place where a worker blocks is [`Driver::turn`] with `wait`, and only after it
//! announced its sleep and found every queue empty. Handing on and waiting are one call then: an
//! operation that a lone task waits for costs one system call.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::buffer::Pool;
use crate::driver::{self, Driver, DriverChoice, SyscallPool};
use crate::inbox::{InboxRef, Stage};

/// How many tasks run before completions are looked at again.
const TASKS_PER_TURN: usize = 128;

pub(crate) struct Worker {
    inbox: InboxRef,
    driver: Box<dyn Driver>,
    submitted: Vec<u32>,
    cancelled: Vec<u32>,
    /// Background operations that wait until fewer others are under way.
    held_back: VecDeque<u32>,
    /// The stage of the engine's end that was dealt with.
    reached: Stage,
}

/// The whole life of a worker's thread.
pub(crate) fn run(
    inbox: InboxRef,
    choice: DriverChoice,
    pool: Arc<SyscallPool>,
    buffers: Pool,
    opened: &Sender<io::Result<()>>,
) {
    let driver = driver::open(choice, inbox, pool, buffers);
    let (driver, result) = match driver {
        Ok(driver) => (Some(driver), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // The builder waits for this; one that failed elsewhere listens no more, and ends this worker.
    let _ = opened.send(result);
    let Some(driver) = driver else { return inbox.end() };
    inbox.enter();
    let mut worker = Worker::new(inbox, driver);
    // Operations that the kernel still holds cannot be taken from a worker that panicked, and
    // whoever waits for them would wait for ever: an end with a message is better.
    let bomb = AbortOnPanic;
    while worker.turn() {}
    std::mem::forget(bomb);
    // Its kernel queue goes first: nothing can complete any more.
    drop(worker);
    inbox.end();
}

/// Runs tasks that are ready, up to a number; says whether there were any. They may come back here,
/// in a simulation.
pub(crate) fn run_tasks(inbox: InboxRef) -> bool {
    inbox.collect_tasks();
    for done in 0..TASKS_PER_TURN {
        let Some(task) = inbox.next_task() else { return done > 0 };
        task.run();
    }
    true
}

impl Worker {
    pub(crate) fn new(inbox: InboxRef, driver: Box<dyn Driver>) -> Worker {
        Worker {
            inbox,
            driver,
            submitted: Vec::new(),
            cancelled: Vec::new(),
            held_back: VecDeque::new(),
            reached: Stage::Running,
        }
    }

    /// Whether background operations wait here until they may begin.
    pub(crate) fn holds_back(&self) -> bool {
        !self.held_back.is_empty()
    }

    /// Once around; says whether to go on.
    fn turn(&mut self) -> bool {
        if self.inbox.stage() > Stage::Running {
            return self.wind_down();
        }
        run_tasks(self.inbox);
        self.work(true);
        true
    }

    /// Hands on what was submitted, and looks at what ended; with `may_wait`, waits for that if
    /// there is nothing else to do.
    pub(crate) fn work(&mut self, may_wait: bool) {
        self.submit();
        self.inbox.alarm.fall_asleep();
        let wait = may_wait
            && self.inbox.is_idle()
            && self.inbox.stage() == Stage::Running
            // Whoever ended since they were held back rang while we were awake.
            && (self.held_back.is_empty() || !self.inbox.give_way.has_room());
        match wait {
            true => self.inbox.note_sleep(),
            false => self.inbox.alarm.wake_up(),
        }
        self.driver.turn(wait);
        self.inbox.alarm.wake_up();
    }

    /// Once around while the engine ends: nothing new is begun, what is in flight is waited for.
    pub(crate) fn wind_down(&mut self) -> bool {
        self.take_requests();
        for index in self.submitted.drain(..).chain(self.held_back.drain(..)) {
            self.inbox.fail(index);
        }
        self.cancel();
        let stage = self.inbox.stage();
        if stage > self.reached {
            self.reached = stage;
            if stage > Stage::Draining {
                for name in self.inbox.slots.under_way(stage == Stage::CancelAll) {
                    self.driver.cancel(name);
                }
            }
        }
        if self.inbox.in_flight() == 0 {
            return false;
        }
        self.inbox.alarm.fall_asleep();
        let wait = self.inbox.has_no_requests()
            && self.inbox.in_flight() > 0
            && self.inbox.stage() == self.reached;
        self.driver.turn(wait);
        self.inbox.alarm.wake_up();
        true
    }

    /// Hands new operations and cancels to the driver.
    fn submit(&mut self) {
        self.take_requests();
        self.driver.expect(self.submitted.len());
        let watched = self.inbox.give_way.is_needed() || !self.held_back.is_empty();
        let mut foreground = false;
        for index in self.submitted.drain(..) {
            if self.inbox.gives_way(index) {
                self.held_back.push_back(index);
                continue;
            }
            // SAFETY: the slot is on its way to the driver, and nobody else has it.
            foreground |= watched && !unsafe { self.inbox.slots.operation(index) }.waits();
            self.driver.submit(index);
        }
        if foreground {
            self.inbox.give_way.note_foreground();
        }
        self.let_background_begin();
        self.cancel();
    }

    /// Begins as many background operations as may be under way now.
    fn let_background_begin(&mut self) {
        while let Some(index) = self.held_back.front().copied() {
            if !self.inbox.give_way.try_begin() {
                // One more look behind it: what ends from here on rings the alarm.
                self.inbox.give_way.hold(self.inbox);
                if !self.inbox.give_way.try_begin() {
                    return;
                }
            }
            self.held_back.pop_front();
            self.driver.submit(index);
        }
    }

    /// Takes what shall end before what shall begin: whoever cancels has submitted before, so the
    /// driver has everything that it is asked to cancel.
    fn take_requests(&mut self) {
        self.inbox.take_cancels(&mut self.cancelled);
        self.inbox.take_submissions(&mut self.submitted);
    }

    fn cancel(&mut self) {
        for index in self.cancelled.drain(..) {
            let name = self.inbox.slots.take_cancel(index);
            let held_back = self.held_back.iter().position(|held| *held == index);
            match held_back.filter(|_| self.inbox.slots.is_current(name)) {
                Some(place) => {
                    self.held_back.remove(place);
                    self.inbox.cancel_unbegun(index);
                }
                None => self.driver.cancel(name),
            }
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
