//! Threads that run operations as system calls: all of them for the `threads` driver, and those
//! that io_uring would hand to a kernel thread anyway for `uring`.
//!
//! Threads start when there is work and no idle thread, up to the limit, and stay. The thread that
//! fell idle last is woken first, as its stack is warm; operations go first come, first served, those
//! of the background behind the others and on half of the threads at most. Nothing a thread runs
//! waits for another operation, so the limit can never deadlock; an open that waits for its other end
//! (a fifo) does hold a thread.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};

use rustix::io::Errno;

use super::syscall::{self, socket};
use crate::class::{Class, TwoQueues};
use crate::inbox::InboxRef;
use crate::local::enter_engine;

pub(crate) struct SyscallPool {
    threads_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: TwoQueues<(InboxRef, u32)>,
    /// Threads that wait for work, the last to do so last.
    idle: Vec<Thread>,
    threads: Vec<JoinHandle<()>>,
    /// Threads at work on the background.
    on_background: usize,
    shutdown: bool,
}

impl SyscallPool {
    /// A pool of at most `threads_max` threads.
    ///
    /// # Errors
    /// When not even the first thread can be started.
    pub(crate) fn new(threads_max: usize) -> io::Result<Arc<SyscallPool>> {
        let pool = Arc::new(SyscallPool { threads_max, state: Mutex::default() });
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

    /// Whether one more thread may work on the background.
    fn background_is_allowed(&self, state: &State) -> bool {
        state.on_background < self.threads_max.div_ceil(2)
    }

    /// Queues operations, which are counted as in flight already.
    pub(super) fn submit(self: &Arc<SyscallPool>, inbox: InboxRef, batch: &mut Vec<u32>) {
        if batch.is_empty() {
            return;
        }
        let mut state = self.state();
        for index in batch.drain(..) {
            state.queue.queue(inbox.slots.class(index)).push_back((inbox, index));
        }
        let wanted = state.queue.len();
        let wake = wanted.min(state.idle.len());
        for _ in wake..wanted.min(self.threads_max.saturating_sub(state.threads.len()) + wake) {
            if self.spawn(&mut state).is_err() {
                break;
            }
        }
        for _ in 0..wake {
            let Some(thread) = state.idle.pop() else { break };
            thread.unpark();
        }
    }

    /// Ends an operation that no thread took up yet.
    pub(super) fn cancel(&self, inbox: InboxRef, name: u64) {
        let mut state = self.state();
        let index = name as u32;
        if !inbox.slots.is_current(name) {
            return;
        }
        let removed = state.queue.remove(|queued| *queued == (inbox, index));
        drop(state);
        if removed.is_some() {
            inbox.finish_elsewhere(index, Err(Errno::CANCELED.raw_os_error()));
        }
    }

    fn run(&self) {
        enter_engine();
        let mut state = self.state();
        loop {
            let allowed = self.background_is_allowed(&state);
            if let Some((class, (inbox, index))) = state.queue.pop(allowed) {
                state.on_background += usize::from(class == Class::Background);
                drop(state);
                perform(inbox, index);
                state = self.state();
                state.on_background -= usize::from(class == Class::Background);
            } else if state.shutdown && state.queue.is_empty() {
                return;
            } else {
                let this = std::thread::current();
                state.idle.push(this.clone());
                drop(state);
                std::thread::park();
                state = self.state();
                // Woken by nobody: then it is still in the list.
                state.idle.retain(|thread| thread.id() != this.id());
            }
        }
    }

    /// Ends the threads once the queue is empty.
    pub(crate) fn shut_down(&self) {
        let mut state = self.state();
        state.shutdown = true;
        let threads = std::mem::take(&mut state.threads);
        state.idle.drain(..).for_each(|thread| thread.unpark());
        drop(state);
        for thread in threads {
            // A thread that panicked has nothing more to say; the others must still be joined.
            let _ = thread.join();
        }
    }
}

/// One operation, of which the calling thread took hold.
fn perform(inbox: InboxRef, index: u32) {
    // SAFETY: the queue handed the slot to this thread alone, until it is reported.
    let operation = unsafe { inbox.slots.operation(index) };
    match syscall::perform(operation) {
        // A socket that took all it could: its driver waits until it can take more.
        Err(Errno::AGAIN) if socket::readiness(operation).is_some() => inbox.hand_back(index),
        outcome => inbox.finish_elsewhere(index, outcome.map_err(Errno::raw_os_error)),
    }
}
