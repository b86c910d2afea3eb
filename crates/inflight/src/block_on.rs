//! Running a future on a plain thread.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::local::{on_worker, turning};

/// Wakes a thread that waits in [`block_on`].
struct Parked {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

thread_local! {
    /// Made once for each thread, so that waiting allocates nothing; taken while in use.
    static PARKED: RefCell<Option<Arc<Parked>>> = const { RefCell::new(None) };
}

/// Runs a future on the calling thread, which sleeps while the future waits.
///
/// # Panics
/// When called on a worker of an engine: it would wait for itself.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let turning = turning();
    assert!(
        turning.is_some() || !on_worker(),
        "block_on on a worker would wait for itself; await the future instead"
    );
    let parked = PARKED.take().unwrap_or_else(|| {
        Arc::new(Parked { thread: std::thread::current(), woken: AtomicBool::new(false) })
    });
    parked.woken.store(false, Ordering::Relaxed);
    let waker = Waker::from(parked.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            PARKED.set(Some(parked));
            return output;
        }
        while !parked.woken.swap(false, Ordering::AcqRel) {
            match turning {
                Some((turn, simulation)) => turn(simulation),
                None => std::thread::park(),
            }
        }
    }
}
