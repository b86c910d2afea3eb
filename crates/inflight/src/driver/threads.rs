//! The thread-pool driver: operations on files are system calls on pool threads; sockets are asked
//! when the system says that they are ready.
//!
//! It works wherever threads do: in containers that forbid io_uring, on old kernels, on other
//! systems. Operations pass to the pool in batches, one lock and at most a few wake-ups each; the
//! pool's threads report the ends themselves, so this worker sleeps until the alarm rings. With
//! operations on sockets, or timers, under way it sleeps in the system's queue of readiness.

mod readiness;
mod timers;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use self::readiness::Sockets;
use self::timers::Timers;
use super::interpreter::Driver;
use super::pool::SyscallPool;
use super::syscall;
use super::syscall::socket::{self, Readiness};
use crate::alarm::Bell;
use crate::buffer::Pool;
use crate::inbox::InboxRef;
use crate::operation::Operation;

pub(super) struct Threads {
    inbox: InboxRef,
    pool: Arc<SyscallPool>,
    accepted: Vec<u32>,
    buffers: Pool,
    sockets: Sockets,
    timers: Timers,
    /// Where the operation in each slot is, by index.
    places: Vec<Place>,
    /// What became ready or due.
    ready: Vec<u32>,
}

/// Where an operation is.
#[derive(Clone, Copy)]
enum Place {
    /// With the pool, or nowhere yet.
    Pool,
    /// Waiting for a socket.
    Socket(RawFd, Readiness),
    /// Waiting for its time.
    Timer,
}

impl Threads {
    pub(super) fn open(
        inbox: InboxRef,
        pool: Arc<SyscallPool>,
        buffers: Pool,
    ) -> io::Result<Threads> {
        let sockets = Sockets::open()?;
        inbox.alarm.set(Bell::either(sockets.poller().clone()));
        let (accepted, places, ready) = (Vec::new(), Vec::new(), Vec::new());
        let timers = Timers::default();
        Ok(Threads { inbox, pool, accepted, buffers, sockets, timers, places, ready })
    }

    fn place(&mut self, index: u32) -> &mut Place {
        let index = index as usize;
        if self.places.len() <= index {
            self.places.resize((index + 1).next_multiple_of(256), Place::Pool);
        }
        &mut self.places[index]
    }

    /// Tries an operation on a socket; if that is not ready, the operation waits until it is.
    fn try_socket(&mut self, index: u32) {
        let inbox = self.inbox;
        *self.place(index) = Place::Pool;
        // SAFETY: the slot is this driver's, and no pool thread has it.
        let operation = unsafe { inbox.slots.operation(index) };
        let outcome = match operation {
            // It may wait for a disk before it waits for the socket.
            Operation::SendFile { .. } => return self.accepted.push(index),
            Operation::ReceivePooled { socket, buffer } => {
                socket::receive_pooled(socket, buffer, &self.buffers)
            }
            other => socket::perform(other),
        };
        match outcome {
            Err(Errno::AGAIN) => self.wait_for_socket(index),
            other => inbox.finish(index, other.map_err(Errno::raw_os_error)),
        }
    }

    fn wait_for_socket(&mut self, index: u32) {
        let inbox = self.inbox;
        // SAFETY: as above.
        let operation = unsafe { inbox.slots.operation(index) };
        let Some((socket, readiness)) = socket::waits_for(operation) else {
            return inbox.finish(index, Err(Errno::BADF.raw_os_error()));
        };
        *self.place(index) = Place::Socket(socket.as_raw_fd(), readiness);
        if let Err(error) = self.sockets.wait(index, socket, readiness) {
            *self.place(index) = Place::Pool;
            let code = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            inbox.finish(index, Err(code));
        }
    }

    /// Says how to wake this worker the next time that it sleeps.
    fn set_bell(&self) {
        let polls = !self.sockets.is_empty() || !self.timers.is_empty();
        self.inbox.alarm.set_polls(polls);
    }
}

impl Driver for Threads {
    fn submit(&mut self, index: u32) {
        self.inbox.start(index);
        *self.place(index) = Place::Pool;
        // SAFETY: the slot was just handed to this driver.
        let operation = unsafe { self.inbox.slots.operation(index) };
        if !operation.is_valid() || !operation.is_for_system() {
            return self.inbox.finish(index, Err(Errno::INVAL.raw_os_error()));
        }
        match operation {
            Operation::Nop => self.inbox.finish(index, Ok(0)),
            Operation::Sleep { duration } => {
                self.timers.add(self.inbox.slots.name(index), *duration);
                *self.place(index) = Place::Timer;
            }
            // New, or handed back by the pool: the pool sends once the socket can take something.
            Operation::SendFile { .. } => self.wait_for_socket(index),
            other if socket::readiness(other).is_some() => self.try_socket(index),
            other if syscall::is_instant(other) => {
                let outcome = syscall::perform(other).map_err(Errno::raw_os_error);
                self.inbox.finish(index, outcome);
            }
            _ => self.accepted.push(index),
        }
        self.set_bell();
    }

    fn cancel(&mut self, name: u64) {
        if !self.inbox.slots.is_current(name) {
            return;
        }
        let index = name as u32;
        let place = *self.place(index);
        match place {
            // A system call under way cannot be taken back; one that no thread took up yet can.
            Place::Pool => return self.pool.cancel(self.inbox, name),
            Place::Socket(socket, readiness) => self.sockets.cancel(index, socket, readiness),
            Place::Timer => {}
        }
        self.inbox.finish(index, Err(Errno::CANCELED.raw_os_error()));
        if matches!(place, Place::Timer) {
            self.timers.cancel(self.inbox);
        }
        *self.place(index) = Place::Pool;
        self.set_bell();
    }

    fn turn(&mut self, wait: bool) {
        self.pool.submit(self.inbox, &mut self.accepted);
        if !self.inbox.alarm.polls() {
            if wait {
                std::thread::park();
            }
            return;
        }
        let time = if wait { self.timers.time_left() } else { Some(Duration::ZERO) };
        let mut ready = std::mem::take(&mut self.ready);
        self.sockets.poll(time, &mut ready);
        // Awake: what ends here need not ring the alarm.
        self.inbox.alarm.wake_up();
        for index in ready.drain(..) {
            self.try_socket(index);
        }
        self.timers.take_due(self.inbox, &mut ready);
        for index in ready.drain(..) {
            *self.place(index) = Place::Pool;
            self.inbox.finish(index, Ok(0));
        }
        self.ready = ready;
        self.set_bell();
    }
}
