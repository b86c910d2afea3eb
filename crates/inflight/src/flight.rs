//! The states of one operation under way, and who may touch what in each.
//!
//! ```text
//!            begin             complete               end
//!    home ─────────► pending ────────────► completed ─────► home
//!                    ▲     │ poll        ▲
//!              claim │     ▼             │
//!                    waiting ──► waking ─┘
//!                    (holds a waker)
//!
//!    pending or waiting ── abandon ──► orphaned ── complete: the caller buries it ──► home
//! ```
//!
//! The record of the operation belongs to whoever begins it, then to the driver until it completes,
//! then to the future (completed) or again to the driver (orphaned). The waker belongs to the future,
//! except in `waiting` (nobody's: it is taken by leaving that state) and `waking` (the driver's).
//! Every hand-over is a release/acquire pair on the state. A flight costs one exchange on each side.

use std::task::Waker;

use crate::sync::{AtomicU8, Cell, Ordering, spin_loop};

const HOME: u8 = 0;
const PENDING: u8 = 1;
const WAITING: u8 = 2;
const WAKING: u8 = 3;
const COMPLETED: u8 = 4;
const ORPHANED: u8 = 5;

pub(crate) struct Flight {
    state: AtomicU8,
    waker: Cell<Option<Waker>>,
}

// SAFETY: the module's text says who touches the waker when; the state enforces it.
unsafe impl Sync for Flight {}

/// What became of a flight that somebody's part in ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum End {
    /// The other side still has its part to do.
    Shared,
    /// The other side is done: whoever is told so owns the record.
    Ours,
}

impl Flight {
    pub(crate) fn new() -> Flight {
        Flight { state: AtomicU8::new(HOME), waker: Cell::new(None) }
    }

    /// Starts a flight whose record was just filled. With `orphan` nobody will take the result.
    ///
    /// The caller is the only one who has this flight.
    #[inline]
    pub(crate) fn begin(&self, orphan: bool) {
        debug_assert_eq!(self.state.load(Ordering::Relaxed), HOME);
        self.state.store(if orphan { ORPHANED } else { PENDING }, Ordering::Release);
    }

    /// Whether a driver may still hold it.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), PENDING | WAITING | ORPHANED)
    }

    /// The driver is done with the record. [`End::Ours`]: nobody waits, so it is to be buried.
    #[inline]
    pub(crate) fn complete(&self) -> End {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let next = match state {
                PENDING => COMPLETED,
                WAITING => WAKING,
                _ => return End::Ours,
            };
            match self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(PENDING) => return End::Shared,
                Ok(_) => break,
                Err(seen) => state = seen,
            }
        }
        // SAFETY: `waking` is the driver's state, and only the driver, our caller, ends it.
        let waker = self.waker.with_mut(|waker| unsafe { (*waker).take() });
        self.state.store(COMPLETED, Ordering::Release);
        if let Some(waker) = waker {
            waker.wake();
        }
        End::Shared
    }

    /// Whether it is completed, so that the record is the caller's; else `waker` is told when it is.
    #[inline]
    pub(crate) fn poll(&self, waker: &Waker) -> bool {
        match self.state.load(Ordering::Acquire) {
            COMPLETED => return true,
            WAITING if !self.claim() => return self.poll_behind_driver(waker),
            WAKING => return self.poll_behind_driver(waker),
            _ => {}
        }
        self.waker.with_mut(|own| {
            // SAFETY: in `pending` the waker is the future's, our caller's.
            let own = unsafe { &mut *own };
            match own {
                Some(own) => own.clone_from(waker),
                None => *own = Some(waker.clone()),
            }
        });
        let wait =
            self.state.compare_exchange(PENDING, WAITING, Ordering::AcqRel, Ordering::Acquire);
        if wait.is_ok() {
            return false;
        }
        self.drop_waker();
        true
    }

    /// The driver is between taking the old waker and completing: whoever polls now is told to
    /// come again.
    fn poll_behind_driver(&self, waker: &Waker) -> bool {
        if self.state.load(Ordering::Acquire) == COMPLETED {
            return true;
        }
        waker.wake_by_ref();
        false
    }

    /// Takes the waker back from `waiting`; fails where the driver was faster.
    fn claim(&self) -> bool {
        let claim =
            self.state.compare_exchange(WAITING, PENDING, Ordering::AcqRel, Ordering::Acquire);
        claim.is_ok()
    }

    /// A waker left behind would keep its task, and that its engine, alive.
    fn drop_waker(&self) {
        // SAFETY: the caller has seen a state in which the waker is the future's.
        drop(self.waker.with_mut(|waker| unsafe { (*waker).take() }));
    }

    /// The future is gone. [`End::Ours`]: it had completed, so it is to be buried.
    pub(crate) fn abandon(&self) -> End {
        loop {
            match self.state.load(Ordering::Acquire) {
                PENDING => {
                    let orphan = self.state.compare_exchange(
                        PENDING,
                        ORPHANED,
                        Ordering::AcqRel,
                        Ordering::Acquire,
                    );
                    if orphan.is_ok() {
                        return End::Shared;
                    }
                }
                WAITING => {
                    if self.claim() {
                        self.drop_waker();
                    }
                }
                // The driver needs a few instructions more.
                WAKING => spin_loop(),
                _ => return End::Ours,
            }
        }
    }

    /// The record was emptied by its owner, who is done.
    pub(crate) fn end(&self) {
        self.state.store(HOME, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_second_owns_the_record() {
        let flight = Flight::new();
        flight.begin(false);
        assert!(flight.is_under_way());
        assert!(!flight.poll(Waker::noop()));
        assert_eq!(flight.abandon(), End::Shared);
        assert_eq!(flight.complete(), End::Ours);
        flight.end();
        flight.begin(false);
        assert_eq!(flight.complete(), End::Shared);
        assert!(!flight.is_under_way());
        assert_eq!(flight.abandon(), End::Ours);
        flight.end();
        flight.begin(true);
        assert_eq!(flight.complete(), End::Ours);
    }
}

#[cfg(all(test, loom))]
mod models {
    //! SAFETY, of all that touches the record here: that nobody else does then is what loom checks.

    use std::sync::Arc as StdArc;
    use std::task::Wake;

    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;

    use super::*;

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: StdArc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn flag() -> (StdArc<Flag>, Waker) {
        let flag = StdArc::new(Flag(AtomicBool::new(false)));
        (flag.clone(), flag.into())
    }

    struct Shared {
        flight: Flight,
        record: Cell<u32>,
    }

    // SAFETY: whoever touches the record is right to, which is what the model checks.
    unsafe impl Sync for Shared {}

    fn shared() -> Arc<Shared> {
        let shared = Arc::new(Shared { flight: Flight::new(), record: Cell::new(0) });
        shared.flight.begin(false);
        shared
    }

    fn drive(shared: &Arc<Shared>) -> loom::thread::JoinHandle<()> {
        let shared = shared.clone();
        loom::thread::spawn(move || {
            shared.record.with_mut(|record| unsafe { *record += 1 });
            if shared.flight.complete() == End::Ours {
                shared.record.with_mut(|record| unsafe { *record += 10 });
            }
        })
    }

    #[test]
    fn no_wake_up_is_lost_when_the_waker_changes() {
        loom::model(|| {
            let shared = shared();
            let driver = drive(&shared);
            let ((first, first_waker), (second, second_waker)) = (flag(), flag());
            if !shared.flight.poll(&first_waker) && !shared.flight.poll(&second_waker) {
                driver.join().unwrap();
                assert!(second.0.load(Ordering::SeqCst), "the last waker is told");
                assert!(shared.flight.poll(&first_waker));
            } else {
                driver.join().unwrap();
            }
            let _ = first;
            shared.record.with_mut(|record| unsafe { assert_eq!(*record, 1) });
        });
    }

    #[test]
    fn an_abandoned_flight_is_buried_exactly_once() {
        loom::model(|| {
            let shared = shared();
            let driver = drive(&shared);
            let (_, waker) = flag();
            let _ = shared.flight.poll(&waker);
            if shared.flight.abandon() == End::Ours {
                shared.record.with_mut(|record| unsafe { *record += 10 });
            }
            driver.join().unwrap();
            shared.record.with_mut(|record| unsafe { assert_eq!(*record, 11) });
        });
    }
}
