//! A bound on memory that everything large counts against.
//!
//! [`Budget::reserve`] waits, first come first served, until the bytes fit; a [`Reservation`]
//! gives them back when it is dropped. Order matters: a job that reserves in the order in which
//! it consumes can never deadlock against itself, because the oldest holder always has what it
//! needs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crate::wait_list::{Ticket, WaitList};

/// A memory bound in bytes, shared by its clones.
#[derive(Debug, Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    /// Of these, what was taken ahead of need.
    ahead: u64,
    peak: u64,
    waiting: WaitList,
}

impl State {
    fn take(&mut self, bytes: u64) {
        self.used += bytes;
        self.peak = self.peak.max(self.used);
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Budget {
        Budget { shared: Arc::new(Shared { limit, state: Mutex::default() }) }
    }

    /// The bound in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used
    }

    /// The most bytes that were ever reserved at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.lock().peak
    }

    /// Reserves `bytes` if they fit now and nobody waits before us.
    #[must_use]
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let mut state = self.lock();
        if !state.waiting.is_next(None) || !self.fits(&state, bytes) {
            return None;
        }
        state.take(bytes);
        Some(Reservation { budget: self.clone(), bytes, ahead: false })
    }

    /// The same for what could do without: leaves at least as much free as was taken in this way, so
    /// that whoever cannot do without comes to its turn.
    #[must_use]
    pub fn try_reserve_ahead(&self, bytes: u64) -> Option<Reservation> {
        let mut state = self.lock();
        let ahead = state.ahead + bytes;
        let fits = state.used.saturating_add(bytes).saturating_add(ahead) <= self.limit();
        if !state.waiting.is_next(None) || !fits {
            return None;
        }
        state.take(bytes);
        state.ahead = ahead;
        Some(Reservation { budget: self.clone(), bytes, ahead: true })
    }

    /// Waits until `bytes` fit, then reserves them. More than the limit is granted once nothing
    /// else is reserved.
    pub fn reserve(&self, bytes: u64) -> Reserve {
        Reserve { budget: self.clone(), bytes, ticket: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain numbers: a panic elsewhere cannot leave it half-changed.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(&self, state: &State, bytes: u64) -> bool {
        // A request above the whole limit is served alone rather than never.
        state.used == 0 || state.used.saturating_add(bytes) <= self.shared.limit
    }
}

/// Bytes held from a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
    ahead: bool,
}

impl Reservation {
    /// How many bytes are held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.used -= self.bytes;
        state.ahead -= if self.ahead { self.bytes } else { 0 };
        let next = state.waiting.first();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// Waits for a [`Reservation`]; dropping it gives up the place in the queue.
#[derive(Debug)]
pub struct Reserve {
    budget: Budget,
    bytes: u64,
    ticket: Ticket,
}

impl Reserve {
    /// Queues now, at the end, rather than when it is first polled.
    pub(crate) fn take_place(&mut self) {
        let mut state = self.budget.lock();
        // Whoever polls it later leaves a waker; until then nobody waits.
        state.waiting.wait(&mut self.ticket, std::task::Waker::noop());
    }
}

impl Future for Reserve {
    type Output = Reservation;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reservation> {
        let this = &mut *self;
        let mut state = this.budget.lock();
        if !state.waiting.is_next(this.ticket) || !this.budget.fits(&state, this.bytes) {
            state.waiting.wait(&mut this.ticket, context.waker());
            return Poll::Pending;
        }
        state.waiting.leave(&mut this.ticket);
        state.take(this.bytes);
        // Room may be left for the next in line, whose wake-up was spent on us.
        let next = state.waiting.first();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
        Poll::Ready(Reservation { budget: this.budget.clone(), bytes: this.bytes, ahead: false })
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if self.ticket.is_none() {
            return;
        }
        let mut state = self.budget.lock();
        state.waiting.leave(&mut self.ticket);
        let next = state.waiting.first();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn poll(reserve: &mut Reserve) -> Poll<Reservation> {
        Pin::new(reserve).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_limit_holds_and_order_is_kept() {
        let budget = Budget::new(100);
        let first = budget.try_reserve(80).expect("fits");
        let mut big = budget.reserve(90);
        let mut small = budget.reserve(10);
        assert!(poll(&mut big).is_pending());
        assert!(poll(&mut small).is_pending(), "a later small request must not overtake");
        assert!(budget.try_reserve(1).is_none(), "nor one that does not wait");
        drop(first);
        let held = poll(&mut big);
        assert!(held.is_ready());
        assert!(poll(&mut small).is_ready());
        assert_eq!(budget.peak(), 100);
    }

    #[test]
    fn more_than_the_limit_is_served_alone() {
        let budget = Budget::new(10);
        let small = budget.try_reserve(1).expect("fits");
        let mut huge = budget.reserve(1000);
        assert!(poll(&mut huge).is_pending());
        drop(small);
        assert!(poll(&mut huge).is_ready());
    }

    #[test]
    fn what_is_taken_ahead_leaves_as_much_free() {
        let budget = Budget::new(100);
        let held = budget.try_reserve(20).expect("fits");
        let ahead: Vec<_> = std::iter::from_fn(|| budget.try_reserve_ahead(10)).collect();
        assert_eq!((ahead.len(), budget.used()), (4, 60));
        drop(held);
        assert!(budget.try_reserve_ahead(10).is_some());
        let all = budget.try_reserve(60).expect("what is needed is given");
        drop(ahead);
        assert!(budget.try_reserve_ahead(21).is_none() && budget.try_reserve_ahead(20).is_some());
        drop(all);
    }

    #[test]
    fn a_place_is_kept_from_when_it_was_taken() {
        let budget = Budget::new(1);
        let (mut first, mut second) = (budget.reserve(1), budget.reserve(1));
        first.take_place();
        assert!(poll(&mut second).is_pending(), "the first one's turn");
        let held = poll(&mut first);
        assert!(held.is_ready() && poll(&mut second).is_pending());
        drop(held);
        assert!(poll(&mut second).is_ready());
    }

    #[test]
    fn giving_up_frees_the_place() {
        let budget = Budget::new(10);
        let held = budget.try_reserve(5).expect("fits");
        let mut big = budget.reserve(10);
        let mut small = budget.reserve(5);
        assert!(poll(&mut big).is_pending());
        assert!(poll(&mut small).is_pending());
        drop(big);
        assert!(poll(&mut small).is_ready());
        drop(held);
        assert_eq!(budget.used(), 0);
    }
}
