//! Operations that wait for a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::inbox::InboxRef;

/// A heap by due time. What was cancelled stays in it until it is due or the dead are more than
/// the living; a slot's name tells the one from the other.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    cancelled: usize,
}

impl Timers {
    /// Whether no timer runs.
    pub(super) fn is_empty(&self) -> bool {
        self.heap.len() == self.cancelled
    }

    pub(super) fn add(&mut self, name: u64, duration: Duration) {
        // What lies too far ahead to say is for ever.
        let due = Instant::now().checked_add(duration).unwrap_or_else(far_future);
        self.heap.push(Reverse((due, name)));
    }

    /// A timer that was added will not be waited for. Its slot must go on to its next name.
    pub(super) fn cancel(&mut self, inbox: InboxRef) {
        self.cancelled += 1;
        if self.cancelled > 64 && 2 * self.cancelled > self.heap.len() {
            self.heap.retain(|Reverse((_, name))| inbox.slots.is_current(*name));
            self.cancelled = 0;
        }
    }

    /// How long until the next one is due.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let Reverse((due, _)) = self.heap.peek()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Gives the slots of those that are due.
    pub(super) fn take_due(&mut self, inbox: InboxRef, due_now: &mut Vec<u32>) {
        if self.heap.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(Reverse((due, name))) = self.heap.peek().copied()
            && due <= now
        {
            self.heap.pop();
            if inbox.slots.is_current(name) {
                due_now.push(name as u32);
            } else {
                self.cancelled -= 1;
            }
        }
    }
}

/// A century from now.
fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(100 * 365 * 24 * 3600)
}
