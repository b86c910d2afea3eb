//! A fixed number of threads for processor work, so that it never runs on the engine's workers.
//!
//! Work is a closure; its result is a future. Dropping the future cancels work that has not begun.
//! A closure may wait for I/O (matching against an old tree that does not fit into memory does);
//! the number of threads is fixed, so that never makes it grow.

use std::fmt;
use std::io;
use std::thread::JoinHandle;

use async_task::Runnable;
use crossbeam_channel::Sender;

/// The future of a piece of work's result. A panic in it is passed on.
pub(crate) type Work<T> = async_task::Task<T>;

pub(crate) struct Crew {
    /// `Some` until the drop.
    queue: Option<Sender<Runnable>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    pub(crate) fn new(threads: usize) -> io::Result<Crew> {
        let (queue, work) = crossbeam_channel::unbounded::<Runnable>();
        let start = |number| {
            let work = work.clone();
            let run = move || {
                for runnable in work {
                    runnable.run();
                }
            };
            std::thread::Builder::new().name(format!("inflight-cpu-{number}")).spawn(run)
        };
        let threads = (0..threads.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Crew { queue: Some(queue), threads })
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// A way to put work on the crew that can be given to tasks.
    pub(crate) fn hand(&self) -> Hand {
        Hand { queue: self.queue.clone().expect("there until the drop") }
    }
}

/// Puts work on a [`Crew`].
#[derive(Clone)]
pub(crate) struct Hand {
    queue: Sender<Runnable>,
}

impl Hand {
    /// Runs `work` on a thread of the crew.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Work<T> {
        let queue = self.queue.clone();
        // A crew that is gone runs nothing more: the runnable is dropped, the task cancelled.
        let schedule = move |runnable| drop(queue.send(runnable));
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

impl Drop for Crew {
    fn drop(&mut self) {
        self.queue = None;
        for thread in std::mem::take(&mut self.threads) {
            // Panics of work were passed on to whoever waited for it.
            let _ = thread.join();
        }
    }
}
