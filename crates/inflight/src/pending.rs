//! An operation in flight, as its submitter holds it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::class::Class;
use crate::error::{Error, Result};
use crate::inbox::InboxRef;
use crate::operation::Operation;
use crate::route::start_operation;
use crate::shared::Shared;
use crate::slot::{Placed, system_error};

/// An operation in flight: submitted when this was made, or, if all slots were out, when one comes
/// home. (A slot is the engine's record of an operation, where the kernel finds its buffer; each worker
/// has [`queue_depth`](crate::Builder::queue_depth) of them.) It goes on whether this is polled or not; its result keeps the slot until it is taken or
/// this is dropped.
///
/// **Dropping it is safe at any moment**: the operation (with its buffer) stays in its slot until
/// the kernel is done with it; a cancel goes out; what an open produced is closed.
#[must_use = "the result says whether it worked"]
pub struct Pending<T> {
    state: State,
    finish: fn(&mut Operation, u64) -> T,
}

enum State {
    /// All slots are out; it gets one in its turn.
    Waiting {
        inbox: InboxRef,
        ticket: u64,
        _alive: Arc<Shared>,
    },
    /// In this slot of this worker.
    InFlight {
        inbox: InboxRef,
        index: u32,
    },
    Done,
}

impl<T> Pending<T> {
    #[inline]
    pub(crate) fn start(
        make: impl FnOnce() -> Operation,
        class: Class,
        shared: &Arc<Shared>,
        finish: fn(&mut Operation, u64) -> T,
    ) -> Pending<T> {
        let (inbox, placed) = start_operation(&shared.inboxes, make, class);
        let state = match placed {
            Placed::In(index) => State::InFlight { inbox, index },
            Placed::Waiting(ticket) => State::Waiting { inbox, ticket, _alive: shared.clone() },
        };
        Pending { state, finish }
    }
}

impl<T> Pending<T> {
    /// Asks for an early end. It comes as the error `ECANCELED`, unless the
    /// operation ends by itself before; what it owned is dropped then. An operation that waits for a
    /// slot, or is a system call under way, goes on.
    pub fn cancel(&self) {
        if let State::InFlight { inbox, index } = self.state {
            inbox.cancel(index);
        }
    }

    /// An operation that was put into its slot by hand.
    pub(crate) fn in_slot(
        inbox: InboxRef,
        index: u32,
        finish: fn(&mut Operation, u64) -> T,
    ) -> Pending<T> {
        Pending { state: State::InFlight { inbox, index }, finish }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        if let State::Waiting { inbox, ticket, .. } = &this.state {
            let inbox = *inbox;
            let Some(index) = inbox.slots.placed(*ticket, context.waker()) else {
                return Poll::Pending;
            };
            this.state = State::InFlight { inbox, index };
        }
        let State::InFlight { inbox, index } = this.state else {
            panic!("polled after it was ready");
        };
        let finish = this.finish;
        let taken = inbox.slots.poll(index, context.waker(), |operation, outcome| match outcome {
            Ok(value) => Ok(finish(operation, value)),
            Err(code) => Err(Error::of(operation, system_error(code))),
        });
        let Some((result, returned)) = taken else {
            return Poll::Pending;
        };
        this.state = State::Done;
        inbox.returned(returned);
        Poll::Ready(result)
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        let (inbox, index) = match &self.state {
            State::Done => return,
            State::Waiting { inbox, ticket, .. } => match inbox.slots.stop_waiting(*ticket) {
                Some(index) => (*inbox, index),
                None => return,
            },
            State::InFlight { inbox, index } => (*inbox, *index),
        };
        // The cancel goes first: while the slot is still ours, the inbox is alive.
        inbox.cancel(index);
        if let Some(returned) = inbox.slots.orphan(index) {
            inbox.returned(returned);
        }
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Waiting { .. } => "Pending(waiting for a slot)",
            State::InFlight { .. } => "Pending(in flight)",
            State::Done => "Pending(done)",
        })
    }
}
