//! A fixed number of threads for processor work, so that it never runs on the engine's workers.
//!
//! Work is a closure; its result is a future. Dropping the future cancels work that has not begun.
//! Inside it, rayon's parallel iterators use all threads of the crew. A closure may wait for I/O
//! (matching against an old tree that does not fit into memory does); the number of threads is
//! fixed, so that never makes it grow.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_task::Runnable;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The future of a piece of work's result. A panic in it is passed on.
pub(crate) type Work<T> = async_task::Task<T>;

pub(crate) struct Crew {
    threads: Threads,
}

/// Where work is done.
#[derive(Clone)]
enum Threads {
    Pool(Arc<ThreadPool>),
    /// At once, on the thread that hands it over: where everything is to happen in one order.
    Caller,
}

impl Crew {
    pub(crate) fn new(threads: usize) -> io::Result<Crew> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|number| format!("inflight-cpu-{number}"))
            .build()
            .map_err(io::Error::other)?;
        Ok(Crew { threads: Threads::Pool(Arc::new(pool)) })
    }

    /// A crew that is whoever hands work to it.
    pub(crate) fn of_caller() -> Crew {
        Crew { threads: Threads::Caller }
    }

    pub(crate) fn threads(&self) -> usize {
        match &self.threads {
            Threads::Pool(pool) => pool.current_num_threads(),
            Threads::Caller => 1,
        }
    }

    /// A way to put work on the crew that can be given to tasks.
    pub(crate) fn hand(&self) -> Hand {
        Hand { threads: self.threads.clone() }
    }
}

/// Puts work on a [`Crew`].
#[derive(Clone)]
pub(crate) struct Hand {
    threads: Threads,
}

impl Hand {
    /// Runs `work` on a thread of the crew; work handed over first begins first.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Work<T> {
        let pool = match &self.threads {
            Threads::Pool(pool) => Arc::downgrade(pool),
            Threads::Caller => {
                let builder = async_task::Builder::new().propagate_panic(true);
                let schedule = |runnable: Runnable| {
                    runnable.run();
                };
                let (runnable, task) = builder.spawn(move |()| async move { work() }, schedule);
                runnable.schedule();
                return task;
            }
        };
        // A crew that is gone runs nothing more: the runnable is dropped, the task cancelled.
        let schedule = move |runnable: Runnable| {
            if let Some(pool) = pool.upgrade() {
                pool.spawn_fifo(move || {
                    runnable.run();
                });
            }
        };
        let (runnable, task) = async_task::Builder::new()
            .propagate_panic(true)
            .spawn(move |()| async move { work() }, schedule);
        runnable.schedule();
        task
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("threads", &self.threads()).finish()
    }
}
