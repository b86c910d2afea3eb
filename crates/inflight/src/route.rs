//! Which of an engine's workers an operation, or a task, goes to.

use crate::class::Class;
use crate::inbox::InboxRef;
use crate::local;
use crate::operation::Operation;
use crate::slot::Placed;

/// The inbox of an engine that this thread's next operation goes to: its own, if it is one of the
/// workers; else the worker that went to sleep last, whose caches are the warmest, so that the others
/// can sleep on; else, if none sleeps, each in turn.
#[inline]
pub(crate) fn choose(inboxes: &[InboxRef]) -> InboxRef {
    match own(inboxes) {
        Some(own) => own,
        None if inboxes.len() == 1 => inboxes[0],
        None => match last_asleep(inboxes.iter().map(|inbox| inbox.alarm.asleep_since())) {
            Some(number) => inboxes[number],
            None => inboxes[local::next_turn() % inboxes.len()],
        },
    }
}

/// Which of them went to sleep last, of those that sleep.
fn last_asleep(asleep_since: impl Iterator<Item = Option<u64>>) -> Option<usize> {
    let asleep = asleep_since.enumerate().filter_map(|(number, since)| Some((since?, number)));
    asleep.max().map(|(_, number)| number)
}

/// A free slot for this thread's next operation: one of its own, if it is a worker; else of any. If
/// all are out, the inbox whose next one is to be waited for.
#[inline]
pub(crate) fn acquire(inboxes: &[InboxRef]) -> Result<(InboxRef, u32), InboxRef> {
    let chosen = choose(inboxes);
    match chosen.slots.try_acquire() {
        Some(index) => Ok((chosen, index)),
        None if chosen.is_worker_here() => Err(chosen),
        None => {
            let others = inboxes.iter().copied().filter(|other| *other != chosen);
            let mut with_slot =
                others.filter_map(|other| Some((other, other.slots.try_acquire()?)));
            with_slot.next().ok_or(chosen)
        }
    }
}

/// Submits an operation: says which slot of which inbox it is in, or waits for.
#[inline]
pub(crate) fn start_operation(
    inboxes: &[InboxRef],
    make: impl FnOnce() -> Operation,
    class: Class,
) -> (InboxRef, Placed) {
    let (inbox, placed) = match acquire(inboxes) {
        Ok((inbox, index)) => {
            inbox.slots.put_new(index, make, class);
            (inbox, Placed::In(index))
        }
        Err(inbox) => (inbox, inbox.slots.wait(make(), class)),
    };
    match placed {
        Placed::In(index) => inbox.submit(index),
        // The worker may be keeping free slots to itself.
        Placed::Waiting(_) => inbox.alarm.ring(),
    }
    (inbox, placed)
}

/// The inbox for a new task: the calling worker's own, else each in turn, as a task never leaves it.
pub(crate) fn for_task(inboxes: &[InboxRef]) -> InboxRef {
    own(inboxes).unwrap_or_else(|| inboxes[local::next_turn() % inboxes.len()])
}

/// That of the calling thread, if it is one of the engine's workers.
#[inline]
fn own(inboxes: &[InboxRef]) -> Option<InboxRef> {
    let (address, number) = local::worker();
    inboxes.get(number).copied().filter(|own| own.address() == address)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::last_asleep;

    #[test]
    fn who_went_to_sleep_last_is_woken_first() {
        assert_eq!(last_asleep([Some(3), None, Some(7), Some(5)].into_iter()), Some(2));
        assert_eq!(last_asleep([None, None].into_iter()), None);
    }
}
