//! Giving memory back to the system, on a thread of its own where it is much.
//!
//! The system takes its time with that, seconds for tens of GiB. So whoever drops a large arena goes on at once, and its share of the budget is free. But what is on
//! its way is still there: who asks for more than there is beside it waits until it is gone.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::block::{Block, Region};

/// From so many bytes on, a thread is worth its start.
pub(super) const MUCH_BYTES: u64 = 32 << 20;

/// Memory that nobody needs any more.
#[derive(Default)]
pub(super) struct Unneeded {
    pub(super) blocks: Vec<Block>,
    pub(super) region: Option<Region>,
}

impl Unneeded {
    /// Bytes, of whatever.
    fn bytes(&self) -> u64 {
        let blocks = self.blocks.iter().map(Block::bytes).sum::<usize>();
        (blocks + self.region.as_ref().map_or(0, Region::bytes)) as u64
    }

    /// Bytes that others may wait for: a file's are the system's.
    fn counted(&self) -> u64 {
        if self.region.as_ref().is_some_and(Region::is_file) { 0 } else { self.bytes() }
    }
}

/// The way to the thread that gives memory back: it runs only while there is some.
#[derive(Clone)]
pub(super) struct Releaser {
    /// From so many bytes on, it is done elsewhere.
    much_bytes: u64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// On its way.
    bytes: AtomicU64,
    /// Rung when nothing is on its way any more.
    idle: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Unneeded>,
    /// The thread runs.
    runs: bool,
    /// Who waits until it does not.
    wakers: Vec<Waker>,
}

impl Releaser {
    pub(super) fn new(much_bytes: u64) -> Releaser {
        Releaser { much_bytes, shared: Arc::default() }
    }

    /// Frees it here if it is little, else elsewhere, soon.
    pub(super) fn release(&self, memory: Unneeded) {
        let bytes = memory.bytes();
        if bytes < self.much_bytes {
            return;
        }
        self.shared.bytes.fetch_add(memory.counted(), Ordering::Relaxed);
        let mut queue = self.queue();
        queue.waiting.push(memory);
        if std::mem::replace(&mut queue.runs, true) {
            return;
        }
        drop(queue);
        let other = self.clone();
        let thread = std::thread::Builder::new().name("inflight-release".into());
        if thread.spawn(move || other.run()).is_err() {
            // Then it is done here.
            self.run();
        }
    }

    /// Bytes that are on their way.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Returns once nothing is on its way.
    pub(super) fn finish(&self) {
        let mut queue = self.queue();
        while queue.runs {
            queue = self.shared.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The same, without holding up the thread.
    pub(super) async fn finished(&self) {
        poll_fn(|context| {
            let mut queue = self.queue();
            if !queue.runs {
                return Poll::Ready(());
            }
            queue.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn run(&self) {
        loop {
            let mut queue = self.queue();
            let waiting = std::mem::take(&mut queue.waiting);
            if waiting.is_empty() {
                queue.runs = false;
                let wakers = std::mem::take(&mut queue.wakers);
                drop(queue);
                self.shared.idle.notify_all();
                return wakers.into_iter().for_each(Waker::wake);
            }
            drop(queue);
            for memory in waiting {
                let bytes = memory.counted();
                drop(memory);
                self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // What is inside is whole at every moment.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Budget, Pool, block_on};

    #[test]
    #[cfg(target_os = "linux")]
    fn nobody_waits_for_the_pages_of_a_file() {
        use std::os::fd::AsFd;
        let file = tempfile::tempfile().expect("a file");
        file.set_len(5000).expect("longer");
        // SAFETY: nobody changes the file.
        let mapped = unsafe { Region::map(file.as_fd(), 5000) }.expect("mapped");
        let unneeded = Unneeded { blocks: Vec::new(), region: Some(mapped) };
        assert_eq!((unneeded.bytes(), unneeded.counted()), (5000, 0));
        let region = Region::allocate(5000);
        let unneeded = Unneeded { blocks: Vec::new(), region };
        assert_eq!((unneeded.bytes(), unneeded.counted()), (5000, 5000));
    }

    #[test]
    fn what_needs_the_room_waits_until_it_is_there() {
        const LIMIT: usize = 64 << 20;
        let pool = Pool::new(Budget::new(LIMIT as u64));
        let on_its_way = || pool.releaser().bytes();
        for round in 0..10 {
            let mut arena = pool.try_arena(LIMIT).expect("fits");
            arena.buffer(LIMIT).extend_fill(round, LIMIT);
            drop(arena.finish().expect("no buffer lives"));
            assert_eq!(pool.budget().used(), 0, "free at once, as far as others can see");
            let many: Vec<_> = (0..8).map(|_| block_on(pool.get(8 << 20))).collect();
            assert_eq!(on_its_way(), 0);
            drop(many);
            let half = pool.try_get(LIMIT / 2).expect("fits");
            assert_eq!(on_its_way(), 0, "half is kept, and there is no third half");
            drop(half);
            let mut one = block_on(pool.get(LIMIT));
            assert_eq!(on_its_way(), 0, "eight kept blocks made room");
            one.extend_fill(round, LIMIT);
            drop(one);
            let mut arena = pool.try_arena(LIMIT).expect("fits");
            assert_eq!(on_its_way(), 0, "one block made room");
            arena.buffer(LIMIT).extend_fill(round, LIMIT);
            drop(arena);
            let _one = pool.try_get(LIMIT).expect("fits");
            assert_eq!(on_its_way(), 0);
        }
    }

    #[test]
    fn little_that_fits_beside_it_does_not_wait() {
        let pool = Pool::new(Budget::new(1 << 30));
        let unneeded = || Unneeded { blocks: vec![Block::allocate(64 << 20)], region: None };
        // As if the thread were at work and did not come to its end.
        pool.releaser().queue().runs = true;
        pool.releaser().release(unneeded());
        assert_eq!(pool.releaser().bytes(), 64 << 20);
        assert!(pool.try_get(1 << 20).is_some());
        pool.releaser().run();
        assert_eq!(pool.releaser().bytes(), 0);
    }
}
