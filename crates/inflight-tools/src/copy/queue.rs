//! What is to be done on one pair of devices, and the tasks that do it.
//!
//! The last thing that was put in comes out first, so that a tree is gone through in depth and little
//! of it waits. Large files wait in a line of their own: a few of them are under way at a time, each with
//! many requests, and they go first, as they take longest. Nothing that is taken out waits for anything
//! else in the queue.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use inflight::Device;

use super::directory::{Dir, Listing, Pair};
use super::item::Item;
use super::links::Links;
use super::{State, batch, compare, directory, file};

/// Large files that may wait before no more directories are looked into.
const LARGE_WAITING_MAX: usize = 4096;

/// How much is under way at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Bytes of a large file's request.
    pub(super) request_bytes: usize,
    /// Reads, and writes, of one large file.
    pub(super) depth: usize,
    /// Large files.
    streams: usize,
    /// Everything else.
    tasks: usize,
    /// Whether large files that the page cache does not have are read around it.
    pub(super) direct_read: bool,
    /// Whether large files are written around it.
    pub(super) direct_write: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            request_bytes: 1 << 20,
            depth: 4,
            streams: 2,
            tasks: 16,
            direct_read: false,
            direct_write: false,
        }
    }
}

impl Settings {
    /// With no longer requests than the engine is to make.
    pub(super) fn within(self, request_bytes_max: usize) -> Settings {
        Settings { request_bytes: self.request_bytes.min(request_bytes_max), ..self }
    }

    pub(super) fn of(from: &Device, to: &Device) -> Settings {
        let (read, write) = (from.settings(), to.settings());
        Settings {
            request_bytes: read.request_bytes.max(write.request_bytes),
            depth: read.depth.max(write.depth),
            streams: read.streams.min(write.streams),
            tasks: 8 * read.streams.min(write.streams),
            direct_read: read.direct,
            direct_write: write.direct,
        }
    }
}

/// Something to do.
pub(super) enum Work {
    /// Make a directory, and begin to list it.
    Enter(Arc<Dir>),
    /// List some more of one.
    List(Listing),
    /// Copy small files.
    Batch(Arc<Dir>, Arc<Pair>, Vec<Item>),
    /// Copy one thing, whatever it is.
    One(Arc<Dir>, Arc<Pair>, Item),
    /// Copy a thing that is a whole source.
    Single(Arc<Dir>, Item),
    /// Copy a large file.
    Large(Arc<Dir>, Item),
    /// Compare the files of a directory.
    Compare(compare::Listing),
}

pub(super) struct Queue {
    pub(super) state: Arc<State>,
    pub(super) settings: Settings,
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
        Queue { state, settings, links: Links::default(), inner: Mutex::default() }
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

    /// Works until there is nothing to do any more.
    pub(super) async fn run(self: &Arc<Queue>) {
        let mut tasks = Vec::new();
        for _ in 0..self.settings.tasks + self.settings.streams {
            let queue = self.clone();
            tasks.push(self.state.handle.spawn(async move { queue.work().await }));
        }
        for task in tasks {
            task.await;
        }
    }

    async fn work(self: Arc<Queue>) {
        while let Some(work) = self.next().await {
            let is_large = matches!(work, Work::Large(..));
            // What was to be done is forgotten once it is to stop: nothing of it is finished then.
            if !self.state.is_stopped() {
                self.perform(work).await;
            }
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

    /// The next thing to do, once there is one; nothing when all is done.
    async fn next(&self) -> Option<Work> {
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

    async fn perform(self: &Arc<Queue>, work: Work) {
        match work {
            Work::Enter(dir) => directory::enter(self, dir).await,
            Work::List(listing) => directory::list(self, listing).await,
            Work::Batch(dir, pair, items) => {
                let count = items.len();
                batch::copy(self, &dir, &pair, items).await;
                directory::done(&self.state, dir, count).await;
            }
            Work::One(dir, pair, item) => {
                file::copy_one(self, &dir, &pair, item).await;
                directory::done(&self.state, dir, 1).await;
            }
            Work::Single(dir, item) | Work::Large(dir, item) => {
                match dir.pair(&self.state).await {
                    Ok(pair) => file::copy_one(self, &dir, &pair, item).await,
                    Err(error) => self.state.trouble(error),
                }
                directory::done(&self.state, dir, 1).await;
            }
            Work::Compare(listing) => compare::compare(self, listing).await,
        }
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
