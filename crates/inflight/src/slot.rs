//! The pooled per-operation record that the kernel holds a pointer to.
//!
//! A slot owns its operation from submission until somebody takes the result, so the memory the
//! kernel reads and writes stays where it is whatever happens to the future that waits. Slots lie
//! in pages at fixed addresses, which are made as they are needed, up to a bound, and stay; taking
//! and returning one allocates nothing. [`crate::flight`] says who may touch a slot when.
//!
//! A slot's name is its index together with a generation, so that a late cancel cannot hit the
//! next operation in the same slot.
//!
//! Free slots are kept in two places: a stack of the worker's own, which needs no lock, and one
//! behind a lock for everyone else. Whoever waits for a slot empties the worker's stack first.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::class::Class;
use crate::flight::{End, Flight};
use crate::links::Link;
use crate::local::WorkerOnly;
use crate::operation::Operation;
use crate::trace::Trace;

/// What a driver reports: a number, or the system's error.
pub(crate) type Outcome = Result<u64, i32>;

/// Slots are made so many at a time.
const PAGE_SLOTS: usize = 256;
/// Free slots the worker keeps to itself at most, and takes from the shared ones at once.
const OWN_SLOTS_MAX: usize = 128;
const OWN_SLOTS_TAKEN: usize = 64;

/// In the order in which they are used together: a flight touches the first four cache lines.
#[repr(C, align(64))]
struct Slot {
    flight: Flight,
    generation: AtomicU32,
    /// The generation that a cancel is about, and whether it waits in the queue of cancels.
    cancelled: AtomicU32,
    cancel_queued: AtomicBool,
    /// Whether the operation under way waits for the world outside.
    waits: AtomicBool,
    /// Whether it is of the background.
    background: AtomicBool,
    links: Links,
    record: UnsafeCell<Record>,
}

/// The links of the queues that a slot may be in.
pub(crate) struct Links {
    pub(crate) submission: Link,
    pub(crate) cancel: Link,
}

#[repr(C)]
struct Record {
    outcome: Outcome,
    operation: Option<Operation>,
    /// When a driver got it, if it is timed.
    since: Option<Instant>,
    trace: Trace,
    arguments: Arguments,
}

/// Where a driver keeps what the kernel wants to find, or to fill, beside the operation.
pub(crate) struct Arguments([MaybeUninit<u64>; ARGUMENT_WORDS]);

const ARGUMENT_WORDS: usize = 32;

impl Arguments {
    /// Puts a value there, which stays where it is until the slot's next one.
    pub(crate) fn place<T>(&mut self, value: T) -> *mut T {
        const { assert!(size_of::<T>() <= 8 * ARGUMENT_WORDS && align_of::<T>() <= 8) };
        const { assert!(!std::mem::needs_drop::<T>(), "nobody would drop it") };
        let place = self.0.as_mut_ptr().cast::<T>();
        // SAFETY: the room is large enough and aligned, as was checked above.
        unsafe { place.write(value) };
        place
    }

    /// What was placed there last.
    ///
    /// # Safety
    /// That was a `T`.
    pub(crate) unsafe fn placed<T: Copy>(&self) -> T {
        // SAFETY: as the caller promises; the room is aligned for it, as `place` checked.
        unsafe { self.0.as_ptr().cast::<T>().read() }
    }
}

/// All slots of one worker.
pub(crate) struct Slots {
    pages: Box<[OnceLock<Box<[Slot]>>]>,
    count_max: usize,
    home: Mutex<Home>,
    /// Free slots that the worker keeps to itself.
    own: WorkerOnly<Vec<u32>>,
    /// Somebody waits for a slot: none may be kept back.
    starving: AtomicBool,
}

// SAFETY: `flight` says who may touch a record when.
unsafe impl Sync for Slots {}
// SAFETY: as above; nothing in a slot belongs to a thread.
unsafe impl Send for Slots {}

struct Home {
    free: Vec<u32>,
    /// Slots that were ever made.
    made: usize,
    /// Operations for which there was no slot, first come, first served.
    waiting: VecDeque<Waiting>,
    /// Tickets of operations that got a slot since their futures last looked, and the slots.
    granted: Vec<(u64, u32)>,
    next_ticket: u64,
    closed: bool,
}

struct Waiting {
    ticket: u64,
    operation: Operation,
    /// Begun where it was submitted.
    trace: Trace,
    class: Class,
    waker: Option<Waker>,
}

impl Home {
    fn take_grant(&mut self, ticket: u64) -> Option<u32> {
        let place = self.granted.iter().position(|(granted, _)| *granted == ticket)?;
        Some(self.granted.swap_remove(place).1)
    }
}

/// Where a new operation is.
pub(crate) enum Placed {
    /// In this slot.
    In(u32),
    /// Waiting for one, under this ticket.
    Waiting(u64),
}

/// What became of a slot that an operation left.
#[must_use]
#[derive(Default)]
pub(crate) struct Returned {
    /// The slots were closed and this was the last one out: they may be freed.
    pub(crate) last: bool,
    /// It holds the next operation already, which is to be submitted.
    pub(crate) next: Option<u32>,
}

impl Slot {
    fn new() -> Slot {
        let links = Links { submission: Link::new(), cancel: Link::new() };
        let arguments = Arguments([MaybeUninit::uninit(); ARGUMENT_WORDS]);
        Slot {
            flight: Flight::new(),
            generation: AtomicU32::new(0),
            cancelled: AtomicU32::new(u32::MAX),
            cancel_queued: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            background: AtomicBool::new(false),
            links,
            record: UnsafeCell::new(Record {
                operation: None,
                outcome: Ok(0),
                since: None,
                trace: Trace::none(),
                arguments,
            }),
        }
    }
}

impl Slot {
    #[inline]
    fn class(&self) -> Class {
        match self.background.load(Ordering::Relaxed) {
            true => Class::Background,
            false => Class::Foreground,
        }
    }
}

impl Slots {
    pub(crate) fn new(count_max: usize) -> Slots {
        assert!(u32::try_from(count_max).is_ok_and(|count| count < u32::MAX), "slots have names");
        let home = Home {
            free: Vec::with_capacity(count_max.min(PAGE_SLOTS)),
            made: 0,
            waiting: VecDeque::new(),
            granted: Vec::new(),
            next_ticket: 0,
            closed: false,
        };
        let pages = (0..count_max.div_ceil(PAGE_SLOTS)).map(|_| OnceLock::new()).collect();
        Slots {
            pages,
            count_max,
            home: Mutex::new(home),
            own: WorkerOnly::new(Vec::with_capacity(OWN_SLOTS_MAX)),
            starving: AtomicBool::new(false),
        }
    }

    fn home(&self) -> MutexGuard<'_, Home> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn slot(&self, index: u32) -> &Slot {
        let page = self.pages[index as usize / PAGE_SLOTS].get();
        &page.expect("a slot is named after it was made")[index as usize % PAGE_SLOTS]
    }

    #[inline]
    pub(crate) fn links(&self, index: u32) -> &Links {
        &self.slot(index).links
    }

    /// A free slot, made if need be; `None` if all that there may be are out.
    fn free_slot(&self, home: &mut Home) -> Option<u32> {
        if let Some(index) = home.free.pop() {
            return Some(index);
        }
        let count = (self.count_max - home.made).min(PAGE_SLOTS);
        if count == 0 {
            return None;
        }
        let first = home.made;
        let page = (0..count).map(|_| Slot::new()).collect();
        let set = self.pages[first / PAGE_SLOTS].set(page);
        debug_assert!(set.is_ok(), "a page is made once, under the lock");
        home.made += count;
        home.free.extend((first..home.made).rev().map(|index| index as u32));
        home.free.pop()
    }

    /// Takes a slot, unless all are out.
    #[inline]
    pub(crate) fn try_acquire(&self) -> Option<u32> {
        if !self.starving.load(Ordering::Relaxed)
            && let Some(index) = self.own.with(|own| own.pop()).flatten()
        {
            return Some(index);
        }
        let mut home = self.home();
        if !home.waiting.is_empty() {
            return None;
        }
        let first = self.free_slot(&mut home)?;
        self.own.with(|own| {
            let more = home.free.len() - home.free.len().min(OWN_SLOTS_TAKEN);
            own.extend(home.free.drain(more..));
        });
        Some(first)
    }

    /// Puts the operation into the queue for the next slot that comes home, whether anybody polls or
    /// not.
    #[cold]
    pub(crate) fn wait(&self, operation: Operation, class: Class) -> Placed {
        let trace = Trace::begin(&operation);
        let mut home = self.home();
        // One may have come home since.
        if home.waiting.is_empty()
            && let Some(index) = home.free.pop()
        {
            drop(home);
            self.set_class(index, class);
            self.put_traced(index, || operation, |_| trace, false);
            return Placed::In(index);
        }
        let ticket = home.next_ticket;
        home.next_ticket += 1;
        home.waiting.push_back(Waiting { ticket, operation, trace, class, waker: None });
        self.starving.store(true, Ordering::Relaxed);
        Placed::Waiting(ticket)
    }

    /// Whether somebody waits for a slot while the worker, our caller, keeps some.
    pub(crate) fn keeps_back(&self) -> bool {
        self.starving.load(Ordering::Relaxed)
            && self.own.with(|own| !own.is_empty()).unwrap_or(false)
    }

    /// One of the slots that the worker, our caller, kept, given to whoever waits or to everyone.
    pub(crate) fn give_back(&self) -> Option<Returned> {
        let index = self.own.with(|own| own.pop()).flatten()?;
        Some(self.hand_on(index))
    }

    /// The calling thread is the worker from now on, or no more.
    pub(crate) fn set_worker(&self, here: bool) {
        self.own.set_owner(here);
    }

    /// The slot that a waiting operation was put into by now; else `waker` is told of its result.
    pub(crate) fn placed(&self, ticket: u64, waker: &Waker) -> Option<u32> {
        let mut home = self.home();
        if let Some(index) = home.take_grant(ticket) {
            return Some(index);
        }
        let entry = home.waiting.iter_mut().find(|waiting| waiting.ticket == ticket);
        let old = entry.and_then(|waiting| waiting.waker.replace(waker.clone()));
        drop(home);
        drop(old);
        None
    }

    /// Nobody waits for the operation any more. Gives the slot it was put into, if it was.
    pub(crate) fn stop_waiting(&self, ticket: u64) -> Option<u32> {
        let mut home = self.home();
        if let Some(index) = home.take_grant(ticket) {
            return Some(index);
        }
        let place = home.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        let waiting = home.waiting.remove(place);
        // What it owns may have much to do when it is dropped.
        drop(home);
        drop(waiting);
        None
    }

    /// No slot will be asked for again; says whether all are home.
    pub(crate) fn close(&self) -> bool {
        let mut home = self.home();
        home.closed = true;
        home.free.len() == home.made
    }

    #[inline]
    pub(crate) fn set_class(&self, index: u32, class: Class) {
        self.slot(index).background.store(class == Class::Background, Ordering::Relaxed);
    }

    /// Sends a slot home, or on its next flight.
    #[inline]
    fn release(&self, index: u32) -> Returned {
        let slot = self.slot(index);
        let generation = slot.generation.load(Ordering::Relaxed);
        slot.generation.store(generation.wrapping_add(1), Ordering::Relaxed);
        slot.flight.end();
        let kept = !self.starving.load(Ordering::Relaxed)
            && self.own.with(|own| {
                let room = own.len() < OWN_SLOTS_MAX;
                if room {
                    own.push(index);
                }
                room
            }) == Some(true);
        if kept { Returned::default() } else { self.hand_on(index) }
    }

    /// Gives a slot that is home to whoever waits, or to everyone.
    fn hand_on(&self, index: u32) -> Returned {
        let mut home = self.home();
        let Some(next) = home.waiting.pop_front() else {
            self.starving.store(false, Ordering::Relaxed);
            home.free.push(index);
            let last = home.closed && home.free.len() == home.made;
            return Returned { last, next: None };
        };
        let (operation, trace) = (next.operation, next.trace);
        self.set_class(index, next.class);
        self.put_traced(index, || operation, |_| trace, false);
        if let Some(waker) = &next.waker {
            // It was only just begun and is in no queue, so nobody can complete it yet.
            self.slot(index).flight.poll(waker);
        }
        home.granted.push((next.ticket, index));
        Returned { last: false, next: Some(index) }
    }

    /// The slot's name: what a cancel must quote.
    #[inline]
    pub(crate) fn name(&self, index: u32) -> u64 {
        u64::from(self.slot(index).generation.load(Ordering::Relaxed)) << 32 | u64::from(index)
    }

    /// Whether `name` still is the name of an operation in flight.
    pub(crate) fn is_current(&self, name: u64) -> bool {
        let index = name as u32;
        self.slot(index).flight.is_under_way() && self.name(index) == name
    }

    #[inline]
    pub(crate) fn class(&self, index: u32) -> Class {
        self.slot(index).class()
    }

    /// The names of all operations under way, or only of those that wait for the world outside.
    pub(crate) fn under_way(&self, all: bool) -> impl Iterator<Item = u64> {
        let made = self.home().made as u32;
        (0..made).map(|index| self.name(index)).filter(move |name| {
            self.is_current(*name) && (all || self.slot(*name as u32).waits.load(Ordering::Relaxed))
        })
    }

    /// Notes that the operation in the slot shall end early, if it is under way. Says whether the
    /// slot is to be put into the queue of cancels.
    pub(crate) fn note_cancel(&self, index: u32) -> bool {
        let slot = self.slot(index);
        if !slot.flight.is_under_way() {
            return false;
        }
        slot.cancelled.store(slot.generation.load(Ordering::Relaxed), Ordering::Relaxed);
        !slot.cancel_queued.swap(true, Ordering::AcqRel)
    }

    /// Whether the operation in the slot was asked to end early.
    pub(crate) fn is_cancelled(&self, index: u32) -> bool {
        let slot = self.slot(index);
        slot.cancelled.load(Ordering::Relaxed) == slot.generation.load(Ordering::Relaxed)
    }

    /// The name that a slot out of the queue of cancels is about.
    pub(crate) fn take_cancel(&self, index: u32) -> u64 {
        let slot = self.slot(index);
        slot.cancel_queued.swap(false, Ordering::AcqRel);
        u64::from(slot.cancelled.load(Ordering::Relaxed)) << 32 | u64::from(index)
    }

    /// Puts a new operation into an acquired slot. `make` makes it right where it is to lie, as
    /// operations are large to move.
    #[inline]
    pub(crate) fn put_new(&self, index: u32, make: impl FnOnce() -> Operation, class: Class) {
        self.set_class(index, class);
        self.put(index, make, false);
    }

    /// Puts the operation into an acquired slot. With `orphan` nobody will take the result.
    #[inline]
    pub(crate) fn put(&self, index: u32, make: impl FnOnce() -> Operation, orphan: bool) {
        self.put_traced(index, make, Trace::begin, orphan);
    }

    #[inline]
    fn put_traced(
        &self,
        index: u32,
        make: impl FnOnce() -> Operation,
        trace: impl FnOnce(&Operation) -> Trace,
        orphan: bool,
    ) {
        let slot = self.slot(index);
        // SAFETY: the slot was acquired by the caller and is not yet in any queue, so nobody
        // else touches its record. It is empty, so nothing is lost by writing over it.
        unsafe {
            let record = slot.record.get();
            (&raw mut (*record).operation).write(Some(make()));
            if let Some(operation) = &(*record).operation {
                (*record).trace = trace(operation);
            }
        }
        slot.flight.begin(orphan);
    }

    /// The operation of a slot under way.
    ///
    /// # Safety
    /// The caller is the driver that holds the slot, and does not call this while a reference
    /// from an earlier call is alive.
    #[allow(clippy::mut_from_ref, reason = "exclusive by the protocol of `flight`")]
    #[inline]
    pub(crate) unsafe fn operation(&self, index: u32) -> &mut Operation {
        // SAFETY: as the caller promises.
        unsafe { self.operation_and_arguments(index) }.0
    }

    /// The operation of a slot that a driver has got now, of which is noted what the end wants to
    /// know; `timed` says whether that is the time.
    ///
    /// # Safety
    /// As for [`Slots::operation`].
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "exclusive by the protocol of `flight`")]
    pub(crate) unsafe fn begun(
        &self,
        index: u32,
        timed: impl FnOnce(&Operation) -> bool,
    ) -> &mut Operation {
        let slot = self.slot(index);
        // SAFETY: between `put` and `complete` only the driver touches the record.
        let record = unsafe { &mut *slot.record.get() };
        let operation = record.operation.as_mut().expect("a slot in flight holds its operation");
        slot.waits.store(operation.waits(), Ordering::Relaxed);
        if timed(operation) {
            record.since = Some(Instant::now());
        }
        operation
    }

    /// The operation of a slot whose driver is going to report its end, its class, and how long it
    /// took if it is timed.
    ///
    /// # Safety
    /// As for [`Slots::operation`].
    #[inline]
    #[allow(clippy::mut_from_ref, reason = "exclusive by the protocol of `flight`")]
    pub(crate) unsafe fn ending(&self, index: u32) -> (&mut Operation, Class, Option<Duration>) {
        let slot = self.slot(index);
        // SAFETY: between `put` and `complete` only the driver touches the record.
        let record = unsafe { &mut *slot.record.get() };
        let operation = record.operation.as_mut().expect("a slot in flight holds its operation");
        let taken = match record.since {
            Some(since) => {
                record.since = None;
                Some(since.elapsed())
            }
            None => None,
        };
        (operation, slot.class(), taken)
    }

    /// The same, and the room for its driver's arguments.
    ///
    /// # Safety
    /// As for [`Slots::operation`].
    #[allow(clippy::mut_from_ref, reason = "exclusive by the protocol of `flight`")]
    #[inline]
    pub(crate) unsafe fn operation_and_arguments(
        &self,
        index: u32,
    ) -> (&mut Operation, &mut Arguments) {
        // SAFETY: between `put` and `complete` only the driver touches the record.
        let record = unsafe { &mut *self.slot(index).record.get() };
        let operation = record.operation.as_mut().expect("a slot in flight holds its operation");
        (operation, &mut record.arguments)
    }

    /// Ends the flight: hands the result to the waiting future, or, where that is gone, runs the
    /// orphan rule and sends the slot home.
    #[inline]
    pub(crate) fn complete(&self, index: u32, outcome: Outcome) -> Option<Returned> {
        let slot = self.slot(index);
        // SAFETY: between `put` and the completion only the driver, our caller, touches it.
        unsafe {
            (*slot.record.get()).outcome = outcome;
            (*slot.record.get()).trace.end(outcome);
        }
        match slot.flight.complete() {
            End::Shared => None,
            End::Ours => Some(self.bury(index)),
        }
    }

    /// Takes the result if it is there; else `waker` is told when it is.
    #[inline]
    pub(crate) fn poll<T>(
        &self,
        index: u32,
        waker: &Waker,
        take: impl FnOnce(&mut Operation, Outcome) -> T,
    ) -> Option<(T, Returned)> {
        if !self.slot(index).flight.poll(waker) {
            return None;
        }
        // SAFETY: completed, so the driver is done with the record, and only the one future that
        // owns the flight polls it.
        let taken = unsafe { self.empty(index, take) };
        Some((taken, self.release(index)))
    }

    /// The future is gone. `None` if the operation is still in flight; else its result was dealt
    /// with by the orphan rule.
    pub(crate) fn orphan(&self, index: u32) -> Option<Returned> {
        match self.slot(index).flight.abandon() {
            End::Shared => None,
            End::Ours => Some(self.bury(index)),
        }
    }

    /// The orphan rule: what the operation owns is dropped, and that includes what it produced:
    /// descriptors are closed, buffers go to their pool. The slot goes home.
    fn bury(&self, index: u32) -> Returned {
        // SAFETY: called by whichever of driver and future came second, so the other is done.
        unsafe { self.empty(index, |_, _| ()) };
        self.release(index)
    }

    /// Takes from the record what is wanted and drops the rest, where it lies: operations are large
    /// to move.
    ///
    /// # Safety
    /// The caller is the only one to touch the record.
    #[inline]
    unsafe fn empty<T>(&self, index: u32, take: impl FnOnce(&mut Operation, Outcome) -> T) -> T {
        // SAFETY: as the caller promises.
        let record = unsafe { &mut *self.slot(index).record.get() };
        let operation = record.operation.as_mut().expect("a slot in flight holds its operation");
        let taken = take(operation, record.outcome);
        record.operation = None;
        taken
    }
}

/// The error a driver's outcome stands for.
pub(crate) fn system_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_or_wait(slots: &Slots) -> Placed {
        let Some(index) = slots.try_acquire() else {
            return slots.wait(Operation::Nop, Class::Foreground);
        };
        slots.put_new(index, || Operation::Nop, Class::Foreground);
        Placed::In(index)
    }

    #[test]
    fn a_slot_goes_home_once_whoever_comes_second() {
        let slots = Slots::new(2);
        let index = slots.try_acquire().expect("free");
        slots.put(index, || Operation::Nop, false);
        let name = slots.name(index);
        assert!(slots.is_current(name));
        assert!(slots.orphan(index).is_none(), "still in flight");
        assert!(slots.complete(index, Ok(0)).is_some(), "buried by the driver");
        assert!(!slots.is_current(name), "the name died with the flight");

        let index = slots.try_acquire().expect("free");
        slots.put(index, || Operation::Nop, false);
        assert!(slots.complete(index, Ok(7)).is_none());
        assert!(slots.orphan(index).is_some(), "buried by the future");
        assert!(slots.close(), "all home");
    }

    #[test]
    fn waiting_operations_go_on_unpolled_and_in_order() {
        let slots = Slots::new(1);
        let Placed::In(index) = put_or_wait(&slots) else { panic!("it was free") };
        let tickets: Vec<u64> = (0..3)
            .map(|_| match put_or_wait(&slots) {
                Placed::Waiting(ticket) => ticket,
                Placed::In(_) => panic!("there is no second slot"),
            })
            .collect();
        assert_eq!(slots.placed(tickets[1], Waker::noop()), None);
        assert_eq!(slots.stop_waiting(tickets[1]), None, "it never got one");
        for ticket in [tickets[0], tickets[2]] {
            assert!(slots.complete(index, Ok(7)).is_none());
            let taken = slots.poll(index, Waker::noop(), |_, outcome| outcome);
            let (outcome, returned) = taken.expect("completed");
            assert_eq!(outcome, Ok(7));
            assert_eq!(returned.next, Some(index), "the next flight");
            assert_eq!(slots.placed(ticket, Waker::noop()), Some(index));
        }
        assert!(!slots.close(), "one is out");
        assert!(slots.orphan(index).is_none());
        assert!(slots.complete(index, Ok(0)).is_some_and(|returned| returned.last));
    }
}
