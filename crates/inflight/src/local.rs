//! What a worker's own thread submits: straight into its queue, without a lock or a wake-up.

use std::cell::{Cell, RefCell};

use crate::inbox::InboxRef;

thread_local! {
    /// The worker this thread is, and what it submitted to itself.
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
    /// Whether this thread belongs to an engine, as a worker or in its pool.
    static OF_ENGINE: Cell<bool> = const { Cell::new(false) };
    /// Which worker this thread's next remote submission goes to.
    static TURN: Cell<usize> = const { Cell::new(0) };
}

struct Local {
    inbox: InboxRef,
    submitted: Vec<u32>,
}

/// Marks this thread as one that an engine waits for when it ends.
pub(crate) fn enter_engine() {
    OF_ENGINE.set(true);
}

/// Whether an engine waits for this thread when it ends.
pub(crate) fn is_engine_thread() -> bool {
    OF_ENGINE.try_with(Cell::get).unwrap_or(false)
}

/// Makes this thread the worker of `inbox`.
pub(crate) fn enter_worker(inbox: InboxRef) {
    enter_engine();
    let submitted = Vec::with_capacity(inbox.slots.count());
    LOCAL.with_borrow_mut(|local| *local = Some(Local { inbox, submitted }));
}

/// Ends that; gives what was submitted and not yet taken up.
pub(crate) fn leave_worker() -> Vec<u32> {
    LOCAL.take().map(|local| local.submitted).unwrap_or_default()
}

/// Hands what this worker submitted to itself to `scratch`, keeping the array.
pub(crate) fn take_submitted(scratch: &mut Vec<u32>) {
    LOCAL.with_borrow_mut(|local| {
        if let Some(local) = local {
            std::mem::swap(scratch, &mut local.submitted);
        }
    });
}

/// Whether this thread is a worker of some engine.
pub(crate) fn on_worker() -> bool {
    LOCAL.try_with(|local| local.borrow().is_some()).unwrap_or(false)
}

/// The worker of an engine that this thread's next operation goes to: itself, if it is one of
/// them, else each in turn.
pub(crate) fn choose(inboxes: &[InboxRef]) -> InboxRef {
    // A thread that is ending has lost its locals: it is no worker any more.
    let own = LOCAL.try_with(|local| local.borrow().as_ref().map(|local| local.inbox));
    let own = own.ok().flatten();
    if let Some(own) = own.filter(|own| inboxes.contains(own)) {
        return own;
    }
    let turn = TURN.try_with(|turn| turn.replace(turn.get().wrapping_add(1))).unwrap_or(0);
    inboxes[turn % inboxes.len()]
}

/// Queues a filled slot.
pub(crate) fn enqueue(inbox: InboxRef, index: u32) {
    let own = LOCAL.try_with(|local| match &mut *local.borrow_mut() {
        Some(local) if local.inbox == inbox => {
            local.submitted.push(index);
            true
        }
        _ => false,
    });
    if !own.unwrap_or(false) {
        inbox.submit_remotely(index);
    }
}
