//! Who waits for a bounded thing, first come first served.
//!
//! The list lives inside the lock of the thing itself. A waiter keeps its ticket: polled again it
//! renews its waker in place, so no wake-up is ever spent on an entry that nobody waits behind.

use std::collections::VecDeque;
use std::task::Waker;

/// The place of one waiter; `None` while it has none.
pub(crate) type Ticket = Option<u64>;

#[derive(Debug, Default)]
pub(crate) struct WaitList {
    next_ticket: u64,
    waiting: VecDeque<(u64, Waker)>,
}

impl WaitList {
    /// Whether the holder of `ticket` may take before all others.
    pub(crate) fn is_next(&self, ticket: Ticket) -> bool {
        self.waiting.front().is_none_or(|(first, _)| Some(*first) == ticket)
    }

    /// Queues the waiter at the end, or renews its waker where it stands.
    pub(crate) fn wait(&mut self, ticket: &mut Ticket, waker: &Waker) {
        let place = ticket.and_then(|t| self.waiting.iter_mut().find(|(other, _)| *other == t));
        if let Some((_, old)) = place {
            old.clone_from(waker);
            return;
        }
        self.waiting.push_back((self.next_ticket, waker.clone()));
        *ticket = Some(self.next_ticket);
        self.next_ticket += 1;
    }

    /// Gives up the place.
    pub(crate) fn leave(&mut self, ticket: &mut Ticket) {
        let Some(ticket) = ticket.take() else { return };
        if self.waiting.front().is_some_and(|(first, _)| *first == ticket) {
            self.waiting.pop_front();
        } else {
            self.waiting.retain(|(other, _)| *other != ticket);
        }
    }

    /// Whom to wake, outside the lock, when there may be something to take.
    pub(crate) fn first(&self) -> Option<Waker> {
        self.waiting.front().map(|(_, waker)| waker.clone())
    }
}
