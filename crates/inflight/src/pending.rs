//! An operation in flight, as its submitter holds it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::{Error, Result};
use crate::inbox::InboxRef;
use crate::local::enqueue;
use crate::operation::Operation;
use crate::shared::Shared;
use crate::slot::system_error;
use crate::wait_list::Ticket;

/// An operation in flight. It was submitted when this was made, or, if all slots were out, is
/// submitted when one comes home and this is polled.
///
/// **Dropping it is safe at any moment**: the operation (with its buffer) stays in its slot until
/// the kernel is done with it; a cancel goes out; what an open produced is closed.
#[must_use = "the result says whether it worked"]
pub struct Pending<T> {
    state: State,
    finish: fn(Operation, u64) -> T,
}

enum State {
    /// All slots are out.
    Waiting {
        operation: Option<Operation>,
        inbox: InboxRef,
        ticket: Ticket,
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
    pub(crate) fn start(
        operation: Operation,
        shared: &Arc<Shared>,
        finish: fn(Operation, u64) -> T,
    ) -> Pending<T> {
        let inbox = shared.inbox();
        let state = match inbox.slots.try_acquire(&mut None) {
            Some(index) => {
                inbox.slots.put(index, operation, false);
                enqueue(inbox, index);
                State::InFlight { inbox, index }
            }
            None => State::Waiting {
                operation: Some(operation),
                inbox,
                ticket: None,
                _alive: shared.clone(),
            },
        };
        Pending { state, finish }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        if let State::Waiting { operation, inbox, ticket, .. } = &mut this.state {
            let inbox = *inbox;
            let Some(index) = inbox.slots.acquire_or_wait(ticket, context.waker()) else {
                return Poll::Pending;
            };
            let operation = operation.take().expect("a waiting operation is submitted once");
            inbox.slots.put(index, operation, false);
            enqueue(inbox, index);
            this.state = State::InFlight { inbox, index };
        }
        let State::InFlight { inbox, index } = this.state else {
            panic!("polled after it was ready");
        };
        let Some((operation, outcome, returned)) = inbox.slots.poll(index, context.waker()) else {
            return Poll::Pending;
        };
        this.state = State::Done;
        inbox.returned(returned);
        Poll::Ready(match outcome {
            Ok(value) => Ok((this.finish)(operation, value)),
            Err(code) => Err(Error::of(&operation, system_error(code))),
        })
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        match &mut self.state {
            State::Done => {}
            State::Waiting { inbox, ticket, .. } => inbox.slots.stop_waiting(ticket),
            State::InFlight { inbox, index } => {
                let inbox = *inbox;
                // The cancel goes first: while the slot is still ours, the inbox is alive.
                inbox.cancel(*index);
                if let Some(returned) = inbox.slots.orphan(*index) {
                    inbox.returned(returned);
                }
            }
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
