//! What is to be done on one pair of devices.
//!
//! The last thing that was put in comes out first, so that a tree is gone through in depth and little
//! of it waits. Large files wait in a line of their own: a few of them are under way at a time, each with
//! many requests, and they go first, as they take longest. Nothing that is taken out waits for anything
//! else in the queue.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use inflight::stream::Depth;

use super::links::Links;
use super::settings::Settings;
use super::state::State;
use super::work::Work;

/// Large files that may wait before no more directories are looked into.
const LARGE_WAITING_MAX: usize = 4096;
/// So many times the requests that there are at first may come under way, where that brings more; of so many
/// bytes for each file and direction, where there were not more at first.
const DEPTH_FACTOR_MAX: usize = 4;
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

pub(super) struct Queue {
    pub(super) state: Arc<State>,
    pub(super) settings: Settings,
    /// Requests of a large file under way, by what that brings here.
    pub(super) depth: Depth,
    pub(super) links: Links,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    stack: Vec<Work>,
    large: VecDeque<Work>,
    /// Works taken out that are not done.
    active: usize,
    large_active: usize,
    idle: Vec<Waker>,
}

impl Queue {
    pub(super) fn new(state: Arc<State>, settings: Settings) -> Queue {
        let most = IN_FLIGHT_BYTES_MAX / settings.request_bytes;
        let most = most.clamp(settings.depth, settings.depth * DEPTH_FACTOR_MAX);
        let depth = Depth::new(settings.depth, settings.depth.min(2)..=most);
        Queue { state, settings, depth, links: Links::default(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, work: Work) {
        self.push_all([work]);
    }

    /// Puts in several, of which the last comes out first.
    pub(super) fn push_all(&self, works: impl IntoIterator<Item = Work>) {
        let mut inner = self.inner();
        let mut added = 0;
        for work in works {
            match work {
                Work::Large(..) => inner.large.push_back(work),
                other => inner.stack.push(other),
            }
            added += 1;
        }
        let woken: Vec<Waker> = {
            let from = inner.idle.len().saturating_sub(added);
            inner.idle.drain(from..).collect()
        };
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }

    /// The next thing to do, once there is one; nothing when all is done.
    pub(super) async fn next(&self) -> Option<Work> {
        poll_fn(|context| {
            let mut inner = self.inner();
            if let Some(work) = inner.take(self.settings.streams) {
                inner.active += 1;
                inner.large_active += usize::from(matches!(work, Work::Large(..)));
                return Poll::Ready(Some(work));
            }
            if inner.active == 0 && inner.stack.is_empty() && inner.large.is_empty() {
                return Poll::Ready(None);
            }
            inner.idle.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// What was taken out is done.
    pub(super) fn end(&self, is_large: bool) {
        let mut inner = self.inner();
        inner.active -= 1;
        inner.large_active -= usize::from(is_large);
        // The last one tells all others that it is over; one whose place is free, that it is.
        let all = inner.active == 0 && inner.stack.is_empty() && inner.large.is_empty();
        let woken: Vec<Waker> = match all {
            true => inner.idle.drain(..).collect(),
            false if is_large => inner.idle.pop().into_iter().collect(),
            false => Vec::new(),
        };
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn take(&mut self, streams: usize) -> Option<Work> {
        if self.large_active < streams
            && let Some(work) = self.large.pop_front()
        {
            return Some(work);
        }
        // More large files would be found, and there is no end of those that wait.
        if self.large.len() >= LARGE_WAITING_MAX {
            let small = |work: &Work| matches!(work, Work::Batch(..) | Work::One(..));
            let place = self.stack.iter().rposition(small)?;
            return Some(self.stack.remove(place));
        }
        self.stack.pop()
    }
}
