//! Wakes a worker that sleeps, and does nothing to one that does not.
//!
//! A worker announces its sleep, looks at its queues once more, and sleeps; whoever queues something
//! looks afterwards if it sleeps. A fence on each side makes sure that at least one of the two sees
//! the other. So a busy worker costs those who submit to it a load and no system call.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use polling::Poller;

use crate::sync::{AtomicBool, Ordering, fence};

/// Whether somebody sleeps, agreed on with those who wake.
pub(crate) struct Sleep {
    asleep: AtomicBool,
}

impl Sleep {
    pub(crate) fn new() -> Sleep {
        Sleep { asleep: AtomicBool::new(false) }
    }

    /// Announces sleep. The caller must look at its queues once more before it sleeps.
    pub(crate) fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Whether the caller, who has queued something, is the one to wake the sleeper.
    pub(crate) fn must_wake(&self) -> bool {
        // Pairs with the fence in `fall_asleep`: either the sleeper sees what was queued, or we
        // see that it sleeps.
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}

/// How a driver's worker is woken.
#[derive(Debug)]
pub(crate) enum Bell {
    /// It waits in a kernel queue that watches this event.
    Event(OwnedFd),
    /// It waits for sockets, if it said so before it announced its sleep; else it is parked.
    Either { thread: Thread, poller: Arc<Poller>, polls: AtomicBool },
}

impl Bell {
    /// The bell of the calling thread.
    pub(crate) fn either(poller: Arc<Poller>) -> Bell {
        Bell::Either { thread: std::thread::current(), poller, polls: AtomicBool::new(false) }
    }
}

/// The alarm of one worker.
pub(crate) struct Alarm {
    sleep: Sleep,
    bell: OnceLock<Bell>,
    /// When it went to sleep last, on a clock that counts the sleeps of all the engine's workers.
    slept_at: Stamp,
}

/// How many sleeps of an engine's workers there were so far.
pub(crate) type Sleeps = Arc<Stamp>;
pub(crate) type Stamp = std::sync::atomic::AtomicU64;

impl Alarm {
    pub(crate) fn new() -> Alarm {
        Alarm { sleep: Sleep::new(), bell: OnceLock::new(), slept_at: Stamp::new(0) }
    }

    /// Says how the worker is woken; once.
    pub(crate) fn set(&self, bell: Bell) {
        let _ = self.bell.set(bell);
    }

    pub(crate) fn bell(&self) -> Option<&Bell> {
        self.bell.get()
    }

    /// The worker is going to sleep, as far as it knows.
    pub(crate) fn note_sleep(&self, sleeps: &Sleeps) {
        let now = sleeps.fetch_add(1, Ordering::Relaxed) + 1;
        self.slept_at.store(now, Ordering::Relaxed);
    }

    /// When it went to sleep, if it sleeps.
    pub(crate) fn asleep_since(&self) -> Option<u64> {
        self.sleep.is_asleep().then(|| self.slept_at.load(Ordering::Relaxed))
    }

    pub(crate) fn ring(&self) {
        if !self.sleep.must_wake() {
            return;
        }
        match self.bell.get() {
            // A full counter means that it is signalled already.
            Some(Bell::Event(event)) => {
                let _ = rustix::io::write(event, &1u64.to_ne_bytes());
            }
            Some(Bell::Either { thread, poller, polls }) => {
                if polls.load(Ordering::Relaxed) {
                    // It fails only where the system's queue is broken; then the worker's next
                    // look at it fails too, and it goes round at once.
                    let _ = poller.notify();
                } else {
                    thread.unpark();
                }
            }
            None => {}
        }
    }

    /// Says whether the worker is going to wait for sockets when it sleeps; before it falls asleep.
    pub(crate) fn set_polls(&self, on: bool) {
        if let Some(Bell::Either { polls, .. }) = self.bell.get() {
            polls.store(on, Ordering::Relaxed);
        }
    }

    /// What was said last.
    pub(crate) fn polls(&self) -> bool {
        matches!(self.bell.get(), Some(Bell::Either { polls, .. }) if polls.load(Ordering::Relaxed))
    }

    pub(crate) fn fall_asleep(&self) {
        self.sleep.fall_asleep();
    }

    pub(crate) fn wake_up(&self) {
        self.sleep.wake_up();
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn a_sleeper_sees_the_work_or_is_woken() {
        loom::model(|| {
            let shared = Arc::new((Sleep::new(), AtomicU32::new(0), AtomicU32::new(0)));
            let pushers: Vec<_> = (0..2)
                .map(|_| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || {
                        shared.1.fetch_add(1, Ordering::Relaxed);
                        if shared.0.must_wake() {
                            shared.2.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            shared.0.fall_asleep();
            let seen = shared.1.load(Ordering::Relaxed);
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            let woken = shared.2.load(Ordering::Relaxed);
            assert!(seen == 2 || woken == 1, "seen {seen}, woken {woken}");
        });
    }
}
