//! What a worker's own thread submits: straight into its queue, without a lock or a wake-up.

use std::cell::{Cell, RefCell};

use crate::inbox::InboxRef;

thread_local! {
    /// The worker this thread is, and what it submitted to itself.
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
    /// Which worker this thread's next remote submission goes to.
    static TURN: Cell<usize> = const { Cell::new(0) };
}

struct Local {
    inbox: InboxRef,
    submitted: Vec<u32>,
}

/// Makes this thread the worker of `inbox`.
pub(crate) fn enter_worker(inbox: InboxRef) {
    let submitted = Vec::with_capacity(inbox.slots.count());
    LOCAL.with_borrow_mut(|local| *local = Some(Local { inbox, submitted }));
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
    LOCAL.with_borrow(Option::is_some)
}

/// The worker of an engine that this thread's next operation goes to: itself, if it is one of
/// them, else each in turn.
pub(crate) fn choose(inboxes: &[InboxRef]) -> InboxRef {
    let own = LOCAL.with_borrow(|local| local.as_ref().map(|local| local.inbox));
    if let Some(own) = own.filter(|own| inboxes.contains(own)) {
        return own;
    }
    let turn = TURN.get();
    TURN.set(turn.wrapping_add(1));
    inboxes[turn % inboxes.len()]
}

/// Queues a filled slot.
pub(crate) fn enqueue(inbox: InboxRef, index: u32) {
    let own = LOCAL.with_borrow_mut(|local| match local {
        Some(local) if local.inbox == inbox => {
            local.submitted.push(index);
            true
        }
        _ => false,
    });
    if !own {
        inbox.submit_remotely(index);
    }
}
