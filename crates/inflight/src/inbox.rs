//! What other threads may touch of a worker: its slots, the queues into it, and its alarm clock.
//!
//! An inbox is freed when its engine is gone *and* every slot is home, so a future holds a plain
//! pointer to it: that is how an operation costs no reference count. [`InboxRef`] is that pointer;
//! every use of it is backed by the engine (through a handle) or by a slot that is out.

use std::collections::VecDeque;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use async_task::Runnable;
use crossbeam_queue::ArrayQueue;

use crate::metrics::Counters;
use crate::operation::Operation;
use crate::slot::{Outcome, Returned, Slots};

pub(crate) struct Inbox {
    pub(crate) slots: Slots,
    /// Slots submitted from elsewhere. Never full: each slot is in it at most once.
    pub(crate) submissions: ArrayQueue<u32>,
    /// Names of operations nobody waits for any more.
    pub(crate) cancels: ArrayQueue<u64>,
    /// Tasks ready to run.
    tasks: Mutex<VecDeque<Runnable>>,
    pub(crate) alarm: Alarm,
    pub(crate) counters: Arc<Counters>,
    /// Operations a driver holds.
    pub(crate) in_flight: AtomicUsize,
    /// The worker shall end once nothing is in flight.
    pub(crate) shutdown: AtomicBool,
    /// The worker has ended: submissions fail.
    ended: AtomicBool,
}

impl Inbox {
    /// An inbox that lives until [`InboxRef::close`] and the return of its last slot.
    pub(crate) fn open(slots: usize, counters: Arc<Counters>) -> InboxRef {
        let inbox = Inbox {
            slots: Slots::new(slots),
            submissions: ArrayQueue::new(slots),
            cancels: ArrayQueue::new(slots),
            tasks: Mutex::default(),
            alarm: Alarm::default(),
            counters,
            in_flight: AtomicUsize::new(0),
            shutdown: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        };
        InboxRef(NonNull::from(Box::leak(Box::new(inbox))))
    }

    fn tasks(&self) -> MutexGuard<'_, VecDeque<Runnable>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn schedule(&self, task: Runnable) {
        let mut tasks = self.tasks();
        if self.ended.load(Ordering::Acquire) {
            // Outside the lock: what the task owns may schedule others when it is dropped.
            drop(tasks);
            return drop(task);
        }
        tasks.push_back(task);
        drop(tasks);
        self.alarm.ring();
    }

    pub(crate) fn next_task(&self) -> Option<Runnable> {
        self.tasks().pop_front()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.submissions.is_empty() && self.cancels.is_empty() && self.tasks().is_empty()
    }

    /// The worker is gone: whatever it left, and whatever still arrives, fails at once.
    pub(crate) fn end(&self, left: &[u32]) {
        self.ended.store(true, Ordering::SeqCst);
        left.iter().for_each(|index| self.fail(*index));
        self.fail_submissions();
        // Dropping a task may wake and schedule others; `schedule` refuses by now.
        let tasks = std::mem::take(&mut *self.tasks());
        drop(tasks);
    }

    pub(crate) fn fail_submissions(&self) {
        while let Some(index) = self.submissions.pop() {
            self.fail(index);
        }
    }

    pub(crate) fn fail(&self, index: u32) {
        self.start(index);
        self.finish(index, Err(rustix::io::Errno::SHUTDOWN.raw_os_error()));
    }

    /// Counts the operation as held by a driver.
    pub(crate) fn start(&self, index: u32) {
        // SAFETY: the slot was just taken from a queue by a driver, the only holder.
        let direction = unsafe { self.slots.operation(index) }.direction();
        self.counters.start(direction);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports the operation's end, from whichever thread of the driver learned of it.
    ///
    /// The slots of an inbox whose engine is gone cannot be in a driver, as the engine waits for
    /// its workers and these for their drivers; so this never frees the inbox under itself.
    pub(crate) fn finish(&self, index: u32, outcome: Outcome) {
        // SAFETY: the calling driver still holds the slot.
        let direction = unsafe { self.slots.operation(index) }.direction();
        self.counters.finish(direction, outcome.unwrap_or(0));
        if let Some(Returned { next: Some(next), .. }) = self.slots.complete(index, outcome) {
            self.push_submission(next);
        }
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1
            && self.shutdown.load(Ordering::SeqCst)
        {
            self.alarm.ring();
        }
    }

    /// Submits a filled slot from any thread.
    fn push_submission(&self, index: u32) {
        let pushed = self.submissions.push(index);
        debug_assert!(pushed.is_ok(), "a slot is in the queue at most once");
        fence(Ordering::SeqCst);
        if self.ended.load(Ordering::SeqCst) {
            self.fail_submissions();
        } else {
            self.alarm.ring();
        }
    }
}

/// Wakes a worker that sleeps, and does nothing to one that does not.
#[derive(Default)]
pub(crate) struct Alarm {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
    /// Where the worker sleeps in the kernel's queue: a file whose readiness ends that.
    event: OnceLock<OwnedFd>,
}

impl Alarm {
    /// Names the thread that sleeps, and the event it waits for instead of parking.
    pub(crate) fn set(&self, thread: Thread, event: Option<OwnedFd>) {
        let _ = self.thread.set(thread);
        if let Some(event) = event {
            let _ = self.event.set(event);
        }
    }

    pub(crate) fn event(&self) -> Option<&OwnedFd> {
        self.event.get()
    }

    pub(crate) fn ring(&self) {
        // Pairs with the fence in `fall_asleep`: either the sleeper sees what we queued, or we
        // see that it sleeps.
        fence(Ordering::SeqCst);
        if !self.asleep.load(Ordering::Relaxed) || !self.asleep.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Some(event) = self.event.get() {
            // A full counter means that it is signalled already.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        } else if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Announces sleep. The caller must look at its queues once more before it sleeps.
    pub(crate) fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// A pointer to an inbox that is alive: see the module's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct InboxRef(NonNull<Inbox>);

// SAFETY: an inbox is made of things that are `Sync`, and the pointer has no thread of its own.
unsafe impl Send for InboxRef {}
// SAFETY: as above.
unsafe impl Sync for InboxRef {}

impl Deref for InboxRef {
    type Target = Inbox;

    fn deref(&self) -> &Inbox {
        // SAFETY: the holder has a handle to the engine or a slot that is out; either keeps the
        // inbox alive (see the module's text).
        unsafe { self.0.as_ref() }
    }
}

impl InboxRef {
    /// Submits from a thread that is not the worker.
    pub(crate) fn submit_remotely(self, index: u32) {
        self.push_submission(index);
    }

    /// Asks for an end of the operation in this slot, if it is still under way.
    pub(crate) fn cancel(self, index: u32) {
        if let Some(name) = self.slots.name_in_flight(index)
            && self.cancels.push(name).is_ok()
        {
            self.alarm.ring();
        }
    }

    /// Submits an operation whose result nobody wants; gives it back where no slot is free.
    pub(crate) fn submit_orphan(self, operation: Operation) -> Result<(), Operation> {
        if self.ended.load(Ordering::Acquire) {
            return Err(operation);
        }
        let Some(index) = self.slots.try_acquire() else {
            return Err(operation);
        };
        self.slots.put(index, operation, true);
        self.submit_remotely(index);
        Ok(())
    }

    /// Deals with a slot that went home through a future: the last one of a dead engine frees
    /// the inbox.
    pub(crate) fn returned(self, returned: Returned) {
        if let Some(next) = returned.next {
            self.push_submission(next);
        }
        if returned.last {
            // SAFETY: the engine is gone (the slots are closed) and no slot is out, so nobody
            // holds this pointer any more; `last` is reported exactly once.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }

    /// The engine is gone: frees the inbox now, or leaves that to the last slot out.
    pub(crate) fn close(self) {
        if self.slots.close() {
            // SAFETY: no slot is out and no handle is left, so nobody holds this pointer.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}
