//! A bounded number of futures at work, their results in the order they were added.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::depth::Depth;

/// Futures at work at once, results in order. The futures make progress by themselves (they are
/// tasks, see [`Task`](crate::Task), or operations, see [`Pending`](crate::Pending)), so only the oldest
/// is ever polled. It serves for tasks of your own just as well:
///
/// ```
/// # use inflight::{Engine, stream::Ordered};
/// # fn main() -> inflight::Result<()> {
/// # let engine = Engine::new()?;
/// # engine.block_on(async {
/// let mut paths = ["Cargo.toml", "src/lib.rs", "src/engine.rs"].into_iter();
/// let mut tasks = Ordered::new(2);
/// let mut sizes = Vec::new();
/// loop {
///     while tasks.has_room() && let Some(path) = paths.next() {
///         let handle = engine.handle().clone();
///         tasks.push(engine.spawn(async move { handle.metadata(path, true).await }));
///     }
///     let Some(metadata) = tasks.next().await else { break };
///     sizes.push(metadata?.size);
/// }
/// assert!(sizes.len() == 3 && sizes[0] > 0);
/// # inflight::Result::Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Ordered<F> {
    depth: Depth,
    queue: VecDeque<F>,
}

impl<F: Future + Unpin> Ordered<F> {
    /// At most `depth` futures at a time, at least one.
    #[must_use]
    pub fn new(depth: usize) -> Ordered<F> {
        Ordered::following(&Depth::fixed(depth))
    }

    /// At most as many at a time as that says at the time.
    #[must_use]
    pub fn following(depth: &Depth) -> Ordered<F> {
        Ordered { depth: depth.clone(), queue: VecDeque::with_capacity(depth.now()) }
    }

    /// Whether another future may be added.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.len() < self.depth.now()
    }

    /// Whether there is no future.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Drops all of them.
    pub fn clear(&mut self) {
        self.queue.clear();
    }

    /// Adds one at the end.
    ///
    /// # Panics
    /// When there is no room, nor could be.
    pub fn push(&mut self, future: F) {
        let most = self.depth.most();
        assert!(self.queue.len() < most, "the bound of {most} is passed");
        self.queue.push_back(future);
    }

    /// The result of the oldest, once it is there; `None` when there is no future.
    pub async fn next(&mut self) -> Option<F::Output> {
        let oldest = self.queue.front_mut()?;
        let output = Oldest(oldest).await;
        self.queue.pop_front();
        Some(output)
    }
}

struct Oldest<'a, F>(&'a mut F);

impl<F: Future + Unpin> Future for Oldest<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut *self.0).poll(context)
    }
}
