//! Giving way to others on the same thread.

use std::future::poll_fn;
use std::task::Poll;

/// After so many steps that did not have to wait, others have their turn.
const STEPS: u32 = 16;

/// Counts the steps of a stream. One that is always ready would keep its thread to itself: no time
/// limit around it would ever be looked at.
#[derive(Debug, Default)]
pub(super) struct Turns {
    steps: u32,
}

impl Turns {
    /// One more step; now and then it lets the executor go on with something else before.
    pub(super) async fn step(&mut self) {
        self.steps += 1;
        if self.steps < STEPS {
            return;
        }
        self.steps = 0;
        let mut passed = false;
        poll_fn(|context| {
            if std::mem::replace(&mut passed, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
