//! Connections that were accepted and not yet taken: what one accept that goes on fills, and any
//! number of waiters empty.
//!
//! So giving up waiting loses nothing: the next one who waits gets the connection.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustix::io::Errno;

use crate::descriptor::OwnedDescriptor;
use crate::wait_list::{Ticket, WaitList};

/// Connections that may wait here; further ones wait in the system's backlog.
const ARRIVALS_MAX: usize = 256;

/// Connections that were accepted and not yet taken.
pub struct Arrivals {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<OwnedDescriptor>,
    /// An accept is under way.
    running: bool,
    /// It was told to stop, for want of room.
    stopped: bool,
    /// What ended the last one.
    error: Option<i32>,
    waiting: WaitList,
}

/// What somebody who waits for a connection finds.
pub(crate) enum Arrival {
    Connection(OwnedDescriptor),
    /// Accepting failed.
    Failed(i32),
    /// Nobody accepts: whoever is told so begins.
    NotRunning,
}

impl Arrivals {
    pub(crate) fn new() -> Arrivals {
        Arrivals { state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection; says whether there is room for another.
    pub(crate) fn push(&self, connection: OwnedDescriptor) -> bool {
        let mut state = self.state();
        state.ready.push_back(connection);
        let room = state.ready.len() < ARRIVALS_MAX;
        state.stopped |= !room;
        let next = state.waiting.first();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
        room
    }

    /// The accept has ended: with an error, or because there was no room.
    pub(crate) fn end(&self, error: Option<i32>) {
        let mut state = self.state();
        state.running = false;
        let stopped = std::mem::take(&mut state.stopped);
        let error = error.filter(|code| !stopped || *code != Errno::CANCELED.raw_os_error());
        state.error = error.or(state.error);
        let next = state.waiting.first();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }

    /// What there is for somebody who waits.
    pub(crate) fn poll(&self, ticket: &mut Ticket, context: &mut Context<'_>) -> Poll<Arrival> {
        let mut state = self.state();
        if !state.waiting.is_next(*ticket) {
            state.waiting.wait(ticket, context.waker());
            return Poll::Pending;
        }
        let arrival = if let Some(connection) = state.ready.pop_front() {
            Arrival::Connection(connection)
        } else if let Some(error) = state.error.take() {
            Arrival::Failed(error)
        } else if !state.running {
            state.running = true;
            return Poll::Ready(Arrival::NotRunning);
        } else {
            state.waiting.wait(ticket, context.waker());
            return Poll::Pending;
        };
        state.waiting.leave(ticket);
        // There may be something for the next in line as well, whose wake-up was spent on us.
        let next = state.waiting.first();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
        Poll::Ready(arrival)
    }

    /// Gives up waiting.
    pub(crate) fn leave(&self, ticket: &mut Ticket) {
        if ticket.is_none() {
            return;
        }
        let mut state = self.state();
        state.waiting.leave(ticket);
        let next = state.waiting.first();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").field("ready", &self.state().ready.len()).finish_non_exhaustive()
    }
}
