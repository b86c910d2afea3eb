//! What a thread is to an engine: one of its workers, one of its pool, or a stranger.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// The address of the inbox this thread is the worker of, and the worker's number.
    static WORKER: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    /// Whether this thread belongs to an engine, as a worker or in its pool.
    static OF_ENGINE: Cell<bool> = const { Cell::new(false) };
    /// Which worker this thread's next remote submission goes to.
    static TURN: Cell<usize> = const { Cell::new(0) };
}

/// What to call, and with what, where this thread would sleep.
pub(crate) type Turning = (fn(usize), usize);

thread_local! {
    /// Set while this thread is the worker of a simulated engine.
    static TURNING: Cell<Option<Turning>> = const { Cell::new(None) };
}

/// What this thread does in place of sleeping.
pub(crate) fn turning() -> Option<Turning> {
    TURNING.get()
}

/// Sets that; gives what it was.
pub(crate) fn set_turning(turning: Option<Turning>) -> Option<Turning> {
    TURNING.replace(turning)
}

/// Marks this thread as one that an engine waits for when it ends.
pub(crate) fn enter_engine() {
    OF_ENGINE.set(true);
}

/// Whether an engine waits for this thread when it ends.
pub(crate) fn is_engine_thread() -> bool {
    OF_ENGINE.get()
}

/// Makes this thread the worker of the inbox at `address`, which is number `number` of its engine.
pub(crate) fn enter_worker(address: usize, number: usize) {
    enter_engine();
    WORKER.set((address, number));
}

/// Ends that.
pub(crate) fn leave_worker() {
    WORKER.set((0, 0));
}

/// Whether this thread is a worker of some engine.
pub(crate) fn on_worker() -> bool {
    WORKER.get().0 != 0
}

/// Whose worker this thread is, if it is one: address of the inbox, and number.
pub(crate) fn worker() -> (usize, usize) {
    WORKER.get()
}

/// A number that goes up by one at each call on this thread.
pub(crate) fn next_turn() -> usize {
    TURN.replace(TURN.get().wrapping_add(1))
}

/// A number that no other living thread has.
#[inline]
fn token() -> usize {
    WORKER.with(|worker| std::ptr::from_ref(worker) as usize)
}

/// Something that only one thread, its owner, may touch; for others it is not there.
pub(crate) struct WorkerOnly<T> {
    owner: AtomicUsize,
    value: RefCell<T>,
}

// SAFETY: `with` hands the value to the owner's thread alone, `set_owner` is called by that thread
// at its beginning and its end, and `T` may go from thread to thread.
unsafe impl<T: Send> Sync for WorkerOnly<T> {}

impl<T> WorkerOnly<T> {
    pub(crate) fn new(value: T) -> WorkerOnly<T> {
        WorkerOnly { owner: AtomicUsize::new(0), value: RefCell::new(value) }
    }

    /// Makes the calling thread the owner, or, as the owner, gives that up.
    pub(crate) fn set_owner(&self, here: bool) {
        let (from, to) = if here { (0, token()) } else { (token(), 0) };
        let change = self.owner.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        assert!(change.is_ok(), "a worker's own things have one owner at a time");
    }

    /// `None` on all threads but the owner's. `f` must not come back here.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        (self.owner.load(Ordering::Relaxed) == token()).then(|| f(&mut self.value.borrow_mut()))
    }
}
