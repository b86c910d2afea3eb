//! Threads that run operations as system calls: all of them for the `threads` driver, and those
//! that io_uring would hand to a kernel thread anyway for `uring`.
//!
//! Threads start when there is work and no idle thread, up to the limit, and stay. Work is taken
//! last-in-first-out among threads (the condition variable's choice aside) and
//! first-in-first-out among operations. Nothing a thread runs waits for another operation, so the
//! limit can never deadlock; an open that waits for its other end (a fifo) does hold a thread.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::io::Errno;

use super::syscall::{self, socket};
use crate::inbox::InboxRef;
use crate::local::enter_engine;

pub(crate) struct SyscallPool {
    threads_max: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(InboxRef, u32)>,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    shutdown: bool,
}

impl SyscallPool {
    /// A pool of at most `threads_max` threads.
    ///
    /// # Errors
    /// When not even the first thread can be started.
    pub(crate) fn new(threads_max: usize) -> io::Result<Arc<SyscallPool>> {
        let pool =
            Arc::new(SyscallPool { threads_max, state: Mutex::default(), work: Condvar::new() });
        // The first thread must start for anything to work; further ones only add parallelism.
        let mut state = pool.state();
        pool.spawn(&mut state)?;
        drop(state);
        Ok(pool)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(self: &Arc<SyscallPool>, state: &mut State) -> io::Result<()> {
        let pool = self.clone();
        let name = format!("inflight-io-{}", state.threads.len());
        let thread = std::thread::Builder::new().name(name).spawn(move || pool.run())?;
        state.threads.push(thread);
        Ok(())
    }

    /// Queues operations, which are counted as in flight already.
    pub(super) fn submit(self: &Arc<SyscallPool>, inbox: InboxRef, batch: &mut Vec<u32>) {
        if batch.is_empty() {
            return;
        }
        let mut state = self.state();
        state.queue.extend(batch.drain(..).map(|index| (inbox, index)));
        let wanted = state.queue.len();
        let wake = wanted.min(state.idle);
        for _ in wake..wanted.min(self.threads_max.saturating_sub(state.threads.len()) + wake) {
            if self.spawn(&mut state).is_err() {
                break;
            }
        }
        drop(state);
        for _ in 0..wake {
            self.work.notify_one();
        }
    }

    /// Ends an operation that no thread took up yet.
    pub(super) fn cancel(&self, inbox: InboxRef, name: u64) {
        let mut state = self.state();
        let index = name as u32;
        let place = state.queue.iter().position(|queued| *queued == (inbox, index));
        let Some(place) = place.filter(|_| inbox.slots.is_current(name)) else {
            return;
        };
        state.queue.remove(place);
        drop(state);
        inbox.finish_elsewhere(index, Err(Errno::CANCELED.raw_os_error()));
    }

    fn run(&self) {
        enter_engine();
        let mut state = self.state();
        loop {
            if let Some((inbox, index)) = state.queue.pop_front() {
                drop(state);
                // SAFETY: the queue handed the slot to this thread alone, until `finish`.
                let operation = unsafe { inbox.slots.operation(index) };
                match syscall::perform(operation) {
                    // A socket that took all it could: its driver waits until it can take more.
                    Err(Errno::AGAIN) if socket::readiness(operation).is_some() => {
                        inbox.hand_back(index);
                    }
                    outcome => {
                        inbox.finish_elsewhere(index, outcome.map_err(Errno::raw_os_error));
                    }
                }
                state = self.state();
            } else if state.shutdown {
                return;
            } else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }

    /// Ends the threads once the queue is empty.
    pub(crate) fn shut_down(&self) {
        let mut state = self.state();
        state.shutdown = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.work.notify_all();
        for thread in threads {
            // A thread that panicked has nothing more to say; the others must still be joined.
            let _ = thread.join();
        }
    }
}
