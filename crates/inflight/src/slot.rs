//! The pooled per-operation record that the kernel holds a pointer to.
//!
//! A slot owns its operation from submission until somebody takes the result, so the memory the
//! kernel reads and writes stays where it is whatever happens to the future that waits. Slots are
//! made once, at fixed addresses; taking and returning one allocates nothing.
//!
//! ```text
//!           put                complete                 take
//!   home ────────► pending ───────────────► completed ────────► home
//!                     │ orphan                               ▲
//!                     └─────────► orphaned ──────────────────┘
//!                                           complete: the orphan rule runs
//! ```
//!
//! Who may touch the operation: whoever puts it, then the driver while the slot is pending or
//! orphaned, then whoever takes it (completed) or the completing driver (orphaned). Every hand-over
//! is a release/acquire pair on the state, or goes through the queue that names the slot.
//!
//! A slot's name is its index together with a generation, so that a late cancel cannot hit the
//! next operation in the same slot.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use atomic_waker::AtomicWaker;

use crate::operation::Operation;

/// What a driver reports: a number, or the system's error.
pub(crate) type Outcome = Result<u64, i32>;

const HOME: u8 = 0;
const PENDING: u8 = 1;
const COMPLETED: u8 = 2;
const ORPHANED: u8 = 3;

struct Slot {
    state: AtomicU8,
    generation: AtomicU32,
    waker: AtomicWaker,
    record: UnsafeCell<Record>,
}

struct Record {
    operation: Option<Operation>,
    outcome: Outcome,
}

/// All slots of one worker.
pub(crate) struct Slots {
    slots: Box<[Slot]>,
    home: Mutex<Home>,
}

// SAFETY: the module's text says who may touch a record when; the state and the lock enforce it.
unsafe impl Sync for Slots {}
// SAFETY: as above; nothing in a slot belongs to a thread.
unsafe impl Send for Slots {}

struct Home {
    free: Vec<u32>,
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
pub(crate) struct Returned {
    /// The arena was closed and this was its last slot out: it may be freed.
    pub(crate) last: bool,
    /// It holds the next operation already, which is to be submitted.
    pub(crate) next: Option<u32>,
}

impl Slots {
    pub(crate) fn new(count: usize) -> Slots {
        let slot = |_| Slot {
            state: AtomicU8::new(HOME),
            generation: AtomicU32::new(0),
            waker: AtomicWaker::new(),
            record: UnsafeCell::new(Record { operation: None, outcome: Ok(0) }),
        };
        let last = u32::try_from(count).expect("slots are counted in thousands");
        let home = Home {
            free: (0..last).rev().collect(),
            waiting: VecDeque::new(),
            granted: Vec::new(),
            next_ticket: 0,
            closed: false,
        };
        Slots { slots: (0..count).map(slot).collect(), home: Mutex::new(home) }
    }

    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    fn home(&self) -> MutexGuard<'_, Home> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    /// Takes a slot, unless all are out.
    pub(crate) fn try_acquire(&self) -> Option<u32> {
        self.home().free.pop()
    }

    /// Puts the operation into a slot, or, if all are out, into the queue for the next one that
    /// comes home, whether anybody polls or not.
    pub(crate) fn put_or_wait(&self, operation: Operation) -> Placed {
        let mut home = self.home();
        if let Some(index) = home.free.pop() {
            drop(home);
            self.put(index, operation, false);
            return Placed::In(index);
        }
        let ticket = home.next_ticket;
        home.next_ticket += 1;
        home.waiting.push_back(Waiting { ticket, operation, waker: None });
        Placed::Waiting(ticket)
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
        home.free.len() == self.slots.len()
    }

    /// Sends a slot home, or on its next flight.
    fn release(&self, index: u32) -> Returned {
        let slot = self.slot(index);
        slot.generation.fetch_add(1, Ordering::Relaxed);
        slot.state.store(HOME, Ordering::Relaxed);
        let mut home = self.home();
        let Some(next) = home.waiting.pop_front() else {
            home.free.push(index);
            let last = home.closed && home.free.len() == self.slots.len();
            return Returned { last, next: None };
        };
        if let Some(waker) = &next.waker {
            slot.waker.register(waker);
        }
        self.put(index, next.operation, false);
        home.granted.push((next.ticket, index));
        Returned { last: false, next: Some(index) }
    }

    /// The slot's name: what a cancel must quote.
    pub(crate) fn name(&self, index: u32) -> u64 {
        u64::from(self.slot(index).generation.load(Ordering::Relaxed)) << 32 | u64::from(index)
    }

    /// The name of the operation in the slot, while a driver may still hold it.
    pub(crate) fn name_in_flight(&self, index: u32) -> Option<u64> {
        let state = self.slot(index).state.load(Ordering::Acquire);
        matches!(state, PENDING | ORPHANED).then(|| self.name(index))
    }

    /// Whether `name` still is the name of an operation in flight.
    pub(crate) fn is_current(&self, name: u64) -> bool {
        self.name_in_flight(name as u32) == Some(name)
    }

    /// Puts the operation into an acquired slot. With `orphan` nobody will take the result.
    pub(crate) fn put(&self, index: u32, operation: Operation, orphan: bool) {
        let slot = self.slot(index);
        debug_assert_eq!(slot.state.load(Ordering::Relaxed), HOME);
        // SAFETY: the slot was acquired by the caller and is not yet in any queue, so nobody
        // else touches its record.
        unsafe { (*slot.record.get()).operation = Some(operation) };
        slot.state.store(if orphan { ORPHANED } else { PENDING }, Ordering::Release);
    }

    /// The operation of a slot that is pending or orphaned.
    ///
    /// # Safety
    /// The caller is the driver that holds the slot, and does not call this while a reference
    /// from an earlier call is alive.
    #[allow(clippy::mut_from_ref, reason = "exclusive by the protocol in the module's text")]
    pub(crate) unsafe fn operation(&self, index: u32) -> &mut Operation {
        // SAFETY: between `put` and `complete` only the driver touches the record.
        let record = unsafe { &mut *self.slot(index).record.get() };
        record.operation.as_mut().expect("a slot in flight holds its operation")
    }

    /// Ends the flight: hands the result to the waiting future, or, where that is gone, runs the
    /// orphan rule and sends the slot home.
    pub(crate) fn complete(&self, index: u32, outcome: Outcome) -> Option<Returned> {
        let slot = self.slot(index);
        // SAFETY: between `put` and the swap below only the driver, our caller, touches it.
        unsafe { (*slot.record.get()).outcome = outcome };
        match slot.state.compare_exchange(PENDING, COMPLETED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                // The future may take the slot home before this wake-up: then the waker is that
                // of a later flight at worst, and a spurious wake-up harms nobody.
                slot.waker.wake();
                None
            }
            Err(_) => Some(self.bury(index)),
        }
    }

    /// Takes the result if it is there; else `waker` is told when it is.
    pub(crate) fn poll(&self, index: u32, waker: &Waker) -> Option<(Operation, Outcome, Returned)> {
        let slot = self.slot(index);
        if slot.state.load(Ordering::Acquire) != COMPLETED {
            slot.waker.register(waker);
            if slot.state.load(Ordering::Acquire) != COMPLETED {
                return None;
            }
            // A waker left behind would keep its task, and that its engine, alive.
            drop(slot.waker.take());
        }
        // SAFETY: completed, so the driver is done with the record, and only the one future that
        // owns the flight polls it.
        let (operation, outcome) = unsafe { self.empty(index) };
        Some((operation, outcome, self.release(index)))
    }

    /// The future is gone. Says whether the operation is still in flight; if not, its result was
    /// dealt with by the orphan rule.
    pub(crate) fn orphan(&self, index: u32) -> Option<Returned> {
        let slot = self.slot(index);
        let swap =
            slot.state.compare_exchange(PENDING, ORPHANED, Ordering::AcqRel, Ordering::Acquire);
        match swap {
            Ok(_) => None,
            Err(_) => Some(self.bury(index)),
        }
    }

    /// The orphan rule: what the operation produced is given back to the system, what it owned is
    /// dropped (buffers go to their pool), and the slot goes home.
    fn bury(&self, index: u32) -> Returned {
        // SAFETY: called by whichever of driver and future came second, so the other is done.
        let (operation, outcome) = unsafe { self.empty(index) };
        let _ = self.slot(index).waker.take();
        if let (Operation::Open { .. }, Ok(descriptor)) = (&operation, outcome) {
            drop(own_descriptor(descriptor));
        }
        drop(operation);
        self.release(index)
    }

    /// # Safety
    /// The caller is the only one to touch the record.
    unsafe fn empty(&self, index: u32) -> (Operation, Outcome) {
        // SAFETY: as the caller promises.
        let record = unsafe { &mut *self.slot(index).record.get() };
        let operation = record.operation.take().expect("a slot in flight holds its operation");
        (operation, record.outcome)
    }
}

/// Takes ownership of the descriptor that an open produced.
pub(crate) fn own_descriptor(result: u64) -> OwnedFd {
    let raw = RawFd::try_from(result).expect("the system's descriptors fit their type");
    // SAFETY: the number came from a successful open whose result is consumed exactly once: by
    // the future that takes it or by the orphan rule, never by both.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// The error a driver's outcome stands for.
pub(crate) fn system_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_goes_home_once_whoever_comes_second() {
        let slots = Slots::new(2);
        let index = slots.try_acquire().expect("free");
        slots.put(index, Operation::Nop, false);
        let name = slots.name(index);
        assert!(slots.is_current(name));
        assert!(slots.orphan(index).is_none(), "still in flight");
        assert!(slots.complete(index, Ok(0)).is_some(), "buried by the driver");
        assert!(!slots.is_current(name), "the name died with the flight");

        let index = slots.try_acquire().expect("free");
        slots.put(index, Operation::Nop, false);
        assert!(slots.complete(index, Ok(7)).is_none());
        assert!(slots.orphan(index).is_some(), "buried by the future");
        assert!(slots.close(), "all home");
    }

    #[test]
    fn waiting_operations_go_on_unpolled_and_in_order() {
        let slots = Slots::new(1);
        let Placed::In(index) = slots.put_or_wait(Operation::Nop) else { panic!("it was free") };
        let tickets: Vec<u64> = (0..3)
            .map(|_| match slots.put_or_wait(Operation::Nop) {
                Placed::Waiting(ticket) => ticket,
                Placed::In(_) => panic!("there is no second slot"),
            })
            .collect();
        assert_eq!(slots.placed(tickets[1], Waker::noop()), None);
        assert_eq!(slots.stop_waiting(tickets[1]), None, "it never got one");
        for ticket in [tickets[0], tickets[2]] {
            assert!(slots.complete(index, Ok(7)).is_none());
            let (_, outcome, returned) = slots.poll(index, Waker::noop()).expect("completed");
            assert_eq!(outcome, Ok(7));
            assert_eq!(returned.next, Some(index), "the next flight");
            assert_eq!(slots.placed(ticket, Waker::noop()), Some(index));
        }
        assert!(!slots.close(), "one is out");
        assert!(slots.orphan(index).is_none());
        assert!(slots.complete(index, Ok(0)).is_some_and(|returned| returned.last));
    }
}
