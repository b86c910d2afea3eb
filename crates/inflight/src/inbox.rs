//! What others may touch of a worker: its slots, the queues into it, and its alarm clock.
//!
//! An inbox is freed when its engine is gone *and* every slot is home, so a future holds a plain
//! pointer to it: that is how an operation costs no reference count. [`InboxRef`] is that pointer;
//! every use of it is backed by the engine (through a handle) or by a slot that is out.
//!
//! What the worker submits and wakes itself takes the short way, without a lock, an exchange or a
//! look at the alarm.

use std::ops::Deref;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_task::Runnable;
use rustix::io::Errno;

use crate::alarm::{Alarm, Sleeps};
use crate::class::{Class, GiveWay, TwoQueues};
use crate::descriptor::DeviceIndex;
use crate::links::Queue;
use crate::local::{self, WorkerOnly};
use crate::metrics::{BusyTime, TIMED_ONE_IN, Tally, Transfers};
use crate::operation::{Direction, Operation};
use crate::slot::{Outcome, Returned, Slots};

pub(crate) struct Inbox {
    /// Which of the engine's workers this is.
    number: usize,
    pub(crate) slots: Slots,
    /// Slots submitted from elsewhere.
    submissions: Queue,
    /// Slots of operations that shall end early.
    cancels: Queue,
    /// Tasks woken from elsewhere.
    tasks: RemoteTasks,
    /// What the worker submitted and woke itself.
    own: WorkerOnly<Own>,
    pub(crate) alarm: Alarm,
    sleeps: Sleeps,
    transfers: Transfers,
    pub(crate) tally: Tally,
    /// Operations since one was timed; the worker's.
    untimed: AtomicU32,
    held: Held,
    /// Whether, and how, the worker shall end.
    stage: AtomicU8,
    /// What the end of the engine cut short.
    cut_short: Mutex<Vec<CutShort>>,
    /// The worker has ended: submissions fail.
    ended: AtomicBool,
    /// Bytes of buffers that its driver's kernel queue knows.
    registered_bytes: AtomicUsize,
    /// Completers that have not posted yet.
    completers: AtomicUsize,
    /// How often in a row nothing was found that would go on by itself.
    stuck: AtomicU32,
    /// What keeps the engine's background work from being in the way.
    pub(crate) give_way: Arc<GiveWay<InboxRef>>,
}

/// How far an engine is in its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    Running,
    /// Nothing new begins; what is in flight is waited for.
    Draining,
    /// What waits for the world outside is cancelled, the rest waited for.
    CancelWaits,
    /// All is cancelled that can be.
    CancelAll,
}

/// An operation that the end of its engine cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutShort {
    /// What was to be done, as a verb.
    pub operation: &'static str,
    /// To what: a path, or a socket's address.
    pub path: Option<PathBuf>,
}

#[derive(Default)]
struct RemoteTasks {
    any: AtomicBool,
    tasks: Mutex<TwoQueues<Runnable>>,
}

impl RemoteTasks {
    fn lock(&self) -> MutexGuard<'_, TwoQueues<Runnable>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Own {
    submitted: Vec<u32>,
    tasks: TwoQueues<Runnable>,
}

/// How many operations a driver holds: the first two are written by the worker alone.
#[derive(Default)]
struct Held {
    started: AtomicUsize,
    finished: AtomicUsize,
    finished_elsewhere: AtomicUsize,
}

impl Inbox {
    /// An inbox that lives until [`InboxRef::close`] and the return of its last slot.
    pub(crate) fn open(
        number: usize,
        slots_max: usize,
        busy: Arc<BusyTime>,
        give_way: Arc<GiveWay<InboxRef>>,
        sleeps: Sleeps,
    ) -> InboxRef {
        let inbox = Inbox {
            number,
            slots: Slots::new(slots_max),
            submissions: Queue::new(),
            cancels: Queue::new(),
            tasks: RemoteTasks::default(),
            own: WorkerOnly::new(Own::default()),
            alarm: Alarm::new(),
            sleeps,
            transfers: Transfers::new(busy),
            tally: Tally::new(),
            untimed: AtomicU32::new(0),
            held: Held::default(),
            stage: AtomicU8::new(Stage::Running as u8),
            cut_short: Mutex::default(),
            ended: AtomicBool::new(false),
            registered_bytes: AtomicUsize::new(0),
            completers: AtomicUsize::new(0),
            stuck: AtomicU32::new(0),
            give_way,
        };
        InboxRef(NonNull::from(Box::leak(Box::new(inbox))))
    }

    /// The calling thread is this inbox's worker from now on.
    pub(crate) fn enter(&self) {
        local::enter_worker(std::ptr::from_ref(self) as usize, self.number);
        self.own.set_owner(true);
        self.slots.set_worker(true);
    }

    /// Whether the calling thread is this inbox's worker.
    pub(crate) fn is_worker_here(&self) -> bool {
        local::worker().0 == std::ptr::from_ref(self) as usize
    }

    /// Undoes [`Inbox::enter`], unless [`Inbox::end`] has.
    pub(crate) fn leave(&self) {
        while let Some(returned) = self.slots.give_back() {
            self.send_on(&returned);
        }
        if self.own.with(|_| ()).is_some() {
            // What is left waits for whoever enters next.
            let (submitted, tasks) = self
                .own
                .with(|own| (std::mem::take(&mut own.submitted), std::mem::take(&mut own.tasks)))
                .unwrap_or_default();
            self.slots.set_worker(false);
            self.own.set_owner(false);
            local::leave_worker();
            submitted.into_iter().for_each(|index| self.submit(index));
            let mut tasks = tasks;
            while let Some((class, task)) = tasks.pop(true) {
                self.schedule(task, class);
            }
        }
    }

    /// The worker is gone: whatever it left, and whatever still arrives, fails at once.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        // Dropping a task may wake and schedule others; `schedule` refuses by now.
        drop(self.own.with(|own| std::mem::take(&mut own.tasks)));
        let left = self.own.with(|own| std::mem::take(&mut own.submitted));
        left.into_iter().flatten().for_each(|index| self.fail(index));
        while let Some(returned) = self.slots.give_back() {
            self.send_on(&returned);
        }
        if self.own.with(|_| ()).is_some() {
            self.slots.set_worker(false);
            self.own.set_owner(false);
            local::leave_worker();
        }
        let mut left = Vec::new();
        self.submissions.close(|index| &self.slots.links(index).submission, &mut left);
        left.into_iter().for_each(|index| self.fail(index));
        let tasks = std::mem::take(&mut *self.tasks.lock());
        drop(tasks);
    }

    pub(crate) fn schedule(&self, task: Runnable, class: Class) {
        if self.ended.load(Ordering::Acquire) {
            return drop(task);
        }
        let mut task = Some(task);
        self.own.with(|own| own.tasks.queue(class).extend(task.take()));
        let Some(task) = task else { return };
        let mut tasks = self.tasks.lock();
        if self.ended.load(Ordering::Acquire) {
            // Outside the lock: what the task owns may schedule others when it is dropped.
            drop(tasks);
            return drop(task);
        }
        tasks.queue(class).push_back(task);
        self.tasks.any.store(true, Ordering::Relaxed);
        drop(tasks);
        self.alarm.ring();
    }

    /// The worker's next task.
    pub(crate) fn next_task(&self) -> Option<Runnable> {
        let next = self.own.with(|own| own.tasks.pop(true)).flatten();
        next.map(|(_, task)| task)
    }

    /// Puts what was woken elsewhere behind the worker's own tasks.
    pub(crate) fn collect_tasks(&self) {
        if self.tasks.any.load(Ordering::Relaxed) {
            let mut tasks = self.tasks.lock();
            self.tasks.any.store(false, Ordering::Relaxed);
            self.own.with(|own| own.tasks.append(&mut tasks));
        }
    }

    /// Whether the worker, our caller, has nothing to do but to wait for its driver.
    pub(crate) fn is_idle(&self) -> bool {
        let own = self.own.with(|own| own.tasks.is_empty() && own.submitted.is_empty());
        own.unwrap_or(true)
            && self.submissions.is_empty()
            && self.cancels.is_empty()
            && !self.tasks.any.load(Ordering::Relaxed)
            && !self.slots.keeps_back()
    }

    /// The worker, our caller, is going to wait for its driver.
    pub(crate) fn note_sleep(&self) {
        self.alarm.note_sleep(&self.sleeps);
    }

    /// Whether nothing waits to be submitted or cancelled, while the engine ends.
    pub(crate) fn has_no_requests(&self) -> bool {
        self.own.with(|own| own.submitted.is_empty()).unwrap_or(true)
            && self.submissions.is_empty()
            && self.cancels.is_empty()
            && !self.slots.keeps_back()
    }

    /// Moves what was submitted, here and elsewhere, to the end of `taken`.
    pub(crate) fn take_submissions(&self, taken: &mut Vec<u32>) {
        while self.slots.keeps_back()
            && let Some(returned) = self.slots.give_back()
        {
            self.send_on(&returned);
        }
        self.own.with(|own| taken.append(&mut own.submitted));
        self.submissions.take_all(|index| &self.slots.links(index).submission, taken);
    }

    /// Moves the slots of operations that shall end to the end of `taken`.
    pub(crate) fn take_cancels(&self, taken: &mut Vec<u32>) {
        self.cancels.take_all(|index| &self.slots.links(index).cancel, taken);
    }

    /// Refuses a submitted operation: the engine has ended.
    pub(crate) fn fail(&self, index: u32) {
        // SAFETY: it was taken from a queue, and no driver has it.
        if let Operation::Accept { arrivals, .. } = unsafe { self.slots.operation(index) } {
            arrivals.end(Some(Errno::SHUTDOWN.raw_os_error()));
        }
        self.report(index, Err(Errno::SHUTDOWN.raw_os_error()));
    }

    /// Ends an operation that no driver has seen.
    pub(crate) fn cancel_unbegun(&self, index: u32) {
        self.report(index, Err(Errno::CANCELED.raw_os_error()));
    }

    /// Counts the operation as held by the worker's driver, our caller.
    #[inline]
    pub(crate) fn start(&self, index: u32) {
        let timed = |operation: &Operation| {
            let untimed = self.untimed.load(Ordering::Relaxed) + 1;
            let timed = untimed >= TIMED_ONE_IN && !operation.waits();
            self.untimed.store(if timed { 0 } else { untimed }, Ordering::Relaxed);
            timed
        };
        // SAFETY: the slot was just taken from a queue by a driver, the only holder.
        let operation = unsafe { self.slots.begun(index, timed) };
        self.tally.begin(operation.device());
        self.transfers.start(operation.direction());
        add_alone(&self.held.started);
    }

    /// Reports the operation's end, as the worker's driver.
    #[inline]
    pub(crate) fn finish(&self, index: u32, outcome: Outcome) {
        let (device, direction) = self.count_end(index, outcome);
        self.tally.end(device, direction, outcome);
        self.report(index, outcome);
        add_alone(&self.held.finished);
    }

    /// Reports the operation's end, from another thread of the driver.
    ///
    /// The slots of an inbox whose engine is gone cannot be in a driver, as the engine waits for
    /// its workers and these for their drivers; so this never frees the inbox under itself.
    pub(crate) fn finish_elsewhere(&self, index: u32, outcome: Outcome) {
        let (device, direction) = self.count_end(index, outcome);
        self.tally.end_elsewhere(device, direction, outcome);
        self.report(index, outcome);
        self.held.finished_elsewhere.fetch_add(1, Ordering::SeqCst);
        if self.stage() > Stage::Running {
            self.alarm.ring();
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Running,
            1 => Stage::Draining,
            2 => Stage::CancelWaits,
            _ => Stage::CancelAll,
        }
    }

    /// Goes on to a later stage of the engine's end.
    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.alarm.ring();
    }

    /// Takes the list of what was cut short.
    pub(crate) fn take_cut_short(&self) -> Vec<CutShort> {
        std::mem::take(&mut *self.cut_short.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives an operation back to the worker's driver, from another thread of it: to be begun again.
    pub(crate) fn hand_back(&self, index: u32) {
        let (device, _) = self.count_end(index, Ok(0));
        self.tally.hand_back(device);
        self.submit(index);
        self.held.finished_elsewhere.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the operation is one that must not be in the way of others.
    #[inline]
    pub(crate) fn gives_way(&self, index: u32) -> bool {
        self.slots.class(index) == Class::Background && {
            // SAFETY: the worker, our caller, is going to hand the slot to its driver.
            let operation = unsafe { self.slots.operation(index) };
            !operation.waits()
        }
    }

    /// Counts what a driver has no more in its hands.
    #[inline]
    fn count_end(&self, index: u32, outcome: Outcome) -> (DeviceIndex, Direction) {
        // SAFETY: the calling driver still holds the slot.
        let (operation, class, taken) = unsafe { self.slots.ending(index) };
        let (device, direction) = (operation.device(), operation.direction());
        self.transfers.finish(direction);
        if let Some(taken) = taken {
            self.tally.time(device, taken);
        }
        if class == Class::Background && !operation.waits() {
            // Whoever waited for that goes on.
            self.give_way.end(|other| other.alarm.ring());
        }
        if outcome == Err(Errno::CANCELED.raw_os_error()) && self.stage() > Stage::Running {
            let cut = CutShort { operation: operation.name(), path: operation.path() };
            self.cut_short.lock().unwrap_or_else(PoisonError::into_inner).push(cut);
        }
        if let Operation::Accept { arrivals, .. } = operation {
            arrivals.end(outcome.err());
        }
        (device, direction)
    }

    fn report(&self, index: u32, outcome: Outcome) {
        if let Some(returned) = self.slots.complete(index, outcome) {
            self.send_on(&returned);
        }
    }

    /// Operations that the driver holds, as its worker sees it.
    pub(crate) fn in_flight(&self) -> usize {
        let finished = self.held.finished.load(Ordering::Relaxed)
            + self.held.finished_elsewhere.load(Ordering::SeqCst);
        self.held.started.load(Ordering::Relaxed).saturating_sub(finished)
    }

    pub(crate) fn registered_bytes(&self) -> u64 {
        self.registered_bytes.load(Ordering::Relaxed) as u64
    }

    /// The worker's driver has made so many bytes known.
    pub(crate) fn set_registered_bytes(&self, bytes: usize) {
        self.registered_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Everybody waits, and no driver has anything that would end that: only another thread can, which
    /// has something to post.
    ///
    /// # Panics
    /// When none has, twice in a row: it would be for ever.
    pub(crate) fn wait_for_outside(&self) {
        if self.completers.load(Ordering::SeqCst) > 0 {
            // That thread rings no bell which would be heard here.
            return std::thread::park_timeout(Duration::from_millis(1));
        }
        // The last one may have posted since the caller looked.
        let stuck = self.stuck.fetch_add(1, Ordering::Relaxed) > 0;
        assert!(!stuck, "everybody waits, and nothing is under way that would end it");
    }

    /// Something went on.
    pub(crate) fn note_progress(&self) {
        self.stuck.store(0, Ordering::Relaxed);
    }

    pub(crate) fn add_completer(&self) {
        self.completers.fetch_add(1, Ordering::SeqCst);
    }

    /// One has posted: what it woke knows.
    pub(crate) fn remove_completer(&self) {
        self.completers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Submits the operation that a slot was filled with when it came home.
    fn send_on(&self, returned: &Returned) {
        if let Some(next) = returned.next {
            self.submit(next);
        }
    }

    /// Submits a filled slot.
    #[inline]
    pub(crate) fn submit(&self, index: u32) {
        if self.own.with(|own| own.submitted.push(index)).is_some() {
            return;
        }
        if self.submissions.push(index, &self.slots.links(index).submission) {
            self.alarm.ring();
        } else {
            self.fail(index);
        }
    }
}

/// Adds one to what nobody else writes.
fn add_alone(count: &AtomicUsize) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
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
    /// What the worker's own thread knows it by.
    pub(crate) fn address(self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Asks for an end of the operation in this slot, if it is still under way.
    pub(crate) fn cancel(self, index: u32) {
        if self.slots.note_cancel(index)
            && self.cancels.push(index, &self.slots.links(index).cancel)
        {
            self.alarm.ring();
        }
    }

    /// Submits an operation whose result nobody waits for; gives it back where no slot is free.
    pub(crate) fn submit_orphan(self, operation: Operation) -> Result<(), Operation> {
        if self.ended.load(Ordering::Acquire) {
            return Err(operation);
        }
        let Some(index) = self.slots.try_acquire() else {
            return Err(operation);
        };
        self.slots.set_class(index, Class::Foreground);
        self.slots.put(index, || operation, true);
        self.submit(index);
        Ok(())
    }

    /// Ends an operation that no driver ever had.
    pub(crate) fn post(self, index: u32, outcome: Outcome) {
        if let Some(returned) = self.slots.complete(index, outcome) {
            self.returned(returned);
        }
    }

    /// Deals with a slot that went home through a future: the last one of a dead engine frees
    /// the inbox.
    pub(crate) fn returned(self, returned: Returned) {
        self.send_on(&returned);
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
