//! A queue of slot numbers that any thread pushes to and one takes from, without memory of its own.
//!
//! Each slot carries the link, so the queue is bounded by the number of slots and a push cannot
//! fail: the back-pressure is that of the slots. Pushing is one exchange; the taker gets everything
//! there is with one more, in the order of pushing.

use crate::sync::{AtomicU32, Ordering};

/// No slot.
const NONE: u32 = u32::MAX;
/// No slot, and none will be taken any more.
const CLOSED: u32 = u32::MAX - 1;

/// The link that a slot carries for one queue.
pub(crate) struct Link(AtomicU32);

impl Link {
    pub(crate) fn new() -> Link {
        Link(AtomicU32::new(NONE))
    }
}

/// The queue's end. Whoever uses it says where a slot's link is.
pub(crate) struct Queue {
    last: AtomicU32,
}

impl Queue {
    pub(crate) fn new() -> Queue {
        Queue { last: AtomicU32::new(NONE) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last.load(Ordering::Acquire) >= CLOSED
    }

    /// Adds `index`, which is not in this queue; says whether somebody will take it.
    #[must_use]
    pub(crate) fn push(&self, index: u32, link: &Link) -> bool {
        let mut last = self.last.load(Ordering::Relaxed);
        while last != CLOSED {
            link.0.store(last, Ordering::Relaxed);
            match self.last.compare_exchange_weak(last, index, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(seen) => last = seen,
            }
        }
        false
    }

    /// Takes all, appending them to `taken`, the first pushed first. From then on each of them may
    /// be pushed again.
    pub(crate) fn take_all<'a>(&self, link: impl Fn(u32) -> &'a Link, taken: &mut Vec<u32>) {
        if !self.is_empty() {
            self.take(NONE, link, taken);
        }
    }

    /// Takes all, for the last time: from now on, pushing fails.
    pub(crate) fn close<'a>(&self, link: impl Fn(u32) -> &'a Link, taken: &mut Vec<u32>) {
        self.take(CLOSED, link, taken);
    }

    fn take<'a>(&self, left: u32, link: impl Fn(u32) -> &'a Link, taken: &mut Vec<u32>) {
        let start = taken.len();
        let mut index = self.last.swap(left, Ordering::AcqRel);
        while index < CLOSED {
            taken.push(index);
            index = link(index).0.load(Ordering::Relaxed);
        }
        taken[start..].reverse();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_first_comes_out_first() {
        let links: Vec<Link> = (0..4).map(|_| Link::new()).collect();
        let (queue, mut taken) = (Queue::new(), Vec::new());
        assert!(queue.is_empty());
        for index in [2, 0, 3] {
            assert!(queue.push(index, &links[index as usize]));
        }
        assert!(!queue.is_empty());
        queue.take_all(|index| &links[index as usize], &mut taken);
        assert!(queue.push(2, &links[2]));
        queue.close(|index| &links[index as usize], &mut taken);
        assert_eq!(taken, [2, 0, 3, 2]);
        assert!(!queue.push(1, &links[1]), "nobody would take it");
        assert!(queue.is_empty());
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;

    use super::*;

    #[test]
    fn nothing_is_lost_or_taken_twice() {
        loom::model(|| {
            let shared = Arc::new((Queue::new(), [Link::new(), Link::new(), Link::new()]));
            let pushers: Vec<_> = [vec![0], vec![1, 2]]
                .into_iter()
                .map(|indexes| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || {
                        let push = |i: u32| assert!(shared.0.push(i, &shared.1[i as usize]));
                        indexes.into_iter().for_each(push);
                    })
                })
                .collect();
            let mut taken = Vec::new();
            shared.0.take_all(|index| &shared.1[index as usize], &mut taken);
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            shared.0.take_all(|index| &shared.1[index as usize], &mut taken);
            let place = |index| taken.iter().position(|t| *t == index).unwrap();
            assert!(place(1) < place(2), "in the order of pushing");
            taken.sort_unstable();
            assert_eq!(taken, [0, 1, 2]);
        });
    }

    #[test]
    fn at_the_end_each_is_taken_or_refused() {
        loom::model(|| {
            let shared = Arc::new((Queue::new(), [Link::new(), Link::new()]));
            let pushers: Vec<_> = (0..2)
                .map(|index: u32| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || shared.0.push(index, &shared.1[index as usize]))
                })
                .collect();
            let mut taken = Vec::new();
            shared.0.take_all(|index| &shared.1[index as usize], &mut taken);
            shared.0.close(|index| &shared.1[index as usize], &mut taken);
            for (index, pusher) in pushers.into_iter().enumerate() {
                let accepted = pusher.join().unwrap();
                assert_eq!(accepted, taken.contains(&(index as u32)));
            }
        });
    }
}
