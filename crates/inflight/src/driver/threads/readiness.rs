//! Operations that wait until a socket is ready.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use polling::{Event, Events, Poller};

use crate::driver::syscall::socket::Readiness;

pub(super) struct Sockets {
    poller: Arc<Poller>,
    events: Events,
    waiting: HashMap<RawFd, Waiters>,
}

/// Who waits for one socket. Nearly always at most one each way.
#[derive(Default)]
struct Waiters {
    reader: Option<u32>,
    writer: Option<u32>,
    more: Vec<(Readiness, u32)>,
}

impl Waiters {
    fn place(&mut self, readiness: Readiness) -> &mut Option<u32> {
        match readiness {
            Readiness::Readable => &mut self.reader,
            Readiness::Writable => &mut self.writer,
        }
    }

    fn add(&mut self, readiness: Readiness, index: u32) {
        match self.place(readiness) {
            place @ None => *place = Some(index),
            Some(_) => self.more.push((readiness, index)),
        }
    }

    /// Moves whoever waits for this to `ready`.
    fn take(&mut self, readiness: Readiness, ready: &mut Vec<u32>) {
        ready.extend(self.place(readiness).take());
        self.more.retain(|(other, index)| {
            let stays = *other != readiness;
            if !stays {
                ready.push(*index);
            }
            stays
        });
    }

    fn remove(&mut self, readiness: Readiness, index: u32) {
        let place = self.place(readiness);
        if *place == Some(index) {
            *place = None;
        } else {
            self.more.retain(|(_, other)| *other != index);
        }
    }

    fn wants(&self, readiness: Readiness) -> bool {
        let first = match readiness {
            Readiness::Readable => self.reader,
            Readiness::Writable => self.writer,
        };
        first.is_some() || self.more.iter().any(|(other, _)| *other == readiness)
    }

    fn interest(&self, descriptor: RawFd) -> Event {
        let (reads, writes) = (self.wants(Readiness::Readable), self.wants(Readiness::Writable));
        Event::new(descriptor as usize, reads, writes)
    }
}

impl Sockets {
    pub(super) fn open() -> io::Result<Sockets> {
        let poller = Arc::new(Poller::new()?);
        Ok(Sockets { poller, events: Events::new(), waiting: HashMap::new() })
    }

    pub(super) fn poller(&self) -> &Arc<Poller> {
        &self.poller
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The operation in slot `index` waits, and holds the socket open meanwhile.
    pub(super) fn wait(
        &mut self,
        index: u32,
        socket: BorrowedFd<'_>,
        readiness: Readiness,
    ) -> io::Result<()> {
        let waiters = self.waiting.entry(socket.as_raw_fd()).or_default();
        waiters.add(readiness, index);
        let interest = waiters.interest(socket.as_raw_fd());
        let armed = arm(&self.poller, socket, interest);
        if armed.is_err() {
            self.cancel(index, socket.as_raw_fd(), readiness);
        }
        armed
    }

    /// The operation waits no more.
    pub(super) fn cancel(&mut self, index: u32, socket: RawFd, readiness: Readiness) {
        let Some(waiters) = self.waiting.get_mut(&socket) else { return };
        waiters.remove(readiness, index);
        let interest = waiters.interest(socket);
        if !interest.readable && !interest.writable {
            self.waiting.remove(&socket);
        }
    }

    /// Waits until something is ready, the alarm rings or the time is over. What is ready goes to
    /// `ready`.
    pub(super) fn poll(&mut self, time: Option<Duration>, ready: &mut Vec<u32>) {
        self.events.clear();
        // It fails only when a signal came; then nothing is ready, and the worker looks again.
        if self.poller.wait(&mut self.events, time).is_err() {
            return;
        }
        for event in self.events.iter() {
            let socket = event.key as RawFd;
            let Some(waiters) = self.waiting.get_mut(&socket) else { continue };
            if event.readable {
                waiters.take(Readiness::Readable, ready);
            }
            if event.writable {
                waiters.take(Readiness::Writable, ready);
            }
            let interest = waiters.interest(socket);
            if !interest.readable && !interest.writable {
                self.waiting.remove(&socket);
                continue;
            }
            // SAFETY: whoever still waits holds a share of the socket.
            let borrowed = unsafe { BorrowedFd::borrow_raw(socket) };
            if arm(&self.poller, borrowed, interest).is_err() {
                // It cannot be watched any more: who waits shall try, and learn why.
                waiters.take(Readiness::Readable, ready);
                waiters.take(Readiness::Writable, ready);
                self.waiting.remove(&socket);
            }
        }
    }
}

/// Tells the system of what is waited for, once. A socket stays known to it until it is closed,
/// which makes it unknown again; so a number may be new although another socket had it.
fn arm(poller: &Poller, socket: BorrowedFd<'_>, interest: Event) -> io::Result<()> {
    match poller.modify(socket.as_fd(), interest) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // SAFETY: the system forgets a socket by itself when it is closed, which is after the
            // last operation that waits for it has ended: see `Descriptor`.
            unsafe { poller.add(socket.as_raw_fd(), interest) }
        }
        other => other,
    }
}
