//! Two classes of work.
//!
//! Whatever is done through a handle made by [`crate::Handle::background`] gives way to the rest: its
//! operations carry the system's idle I/O priority where there is such a thing, one of them is under
//! way at a time while others are or just were, they wait behind others for the threads of the pool,
//! and its tasks run after others. They are never starved: one operation is always under way, and of
//! the tasks and the pool's work every sixteenth is theirs.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How urgent an operation or a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Foreground,
    /// It has time.
    Background,
}

/// Background operations of an engine under way at once, while foreground ones were begun lately: what
/// is in a device's queue already cannot be overtaken.
const BESIDE_MAX: usize = 1;
/// The same while none were.
const ALONE_MAX: usize = 64;
/// How long "lately" is.
const LATELY_US: u64 = 20_000;
/// Of so many things that are taken while both classes wait, one is of the background.
const TURN_OF_BACKGROUND: u32 = 16;

/// What keeps the background of one engine, on all of its workers, from being in the way.
pub(crate) struct GiveWay<W> {
    epoch: Instant,
    /// Background operations under way.
    background: AtomicUsize,
    /// When a foreground operation was begun last, in microseconds since the epoch; only kept up
    /// while there is background work.
    foreground_us: AtomicU64,
    /// Workers that hold background operations back until others have ended.
    holding: Mutex<VecDeque<W>>,
}

impl<W: PartialEq> GiveWay<W> {
    pub(crate) fn new() -> GiveWay<W> {
        GiveWay {
            epoch: Instant::now(),
            background: AtomicUsize::new(0),
            foreground_us: AtomicU64::new(0),
            holding: Mutex::default(),
        }
    }

    fn now_us(&self) -> u64 {
        // The first microsecond is no time: zero stands for never.
        self.epoch.elapsed().as_micros() as u64 + 1
    }

    /// Whether there is background work under way.
    pub(crate) fn is_needed(&self) -> bool {
        self.background.load(Relaxed) > 0
    }

    /// A foreground operation begins, while there is background work.
    pub(crate) fn note_foreground(&self) {
        self.foreground_us.store(self.now_us(), Relaxed);
    }

    /// How many background operations may be under way now.
    fn most(&self) -> usize {
        let seen = self.foreground_us.load(Relaxed);
        let lately = seen > 0 && self.now_us().saturating_sub(seen) < LATELY_US;
        if lately { BESIDE_MAX } else { ALONE_MAX }
    }

    /// Whether one more background operation may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.background.load(SeqCst) < self.most()
    }

    /// The same; then it counts as begun.
    pub(crate) fn try_begin(&self) -> bool {
        let most = self.most();
        let begin = |under_way: usize| (under_way < most).then_some(under_way + 1);
        self.background.fetch_update(SeqCst, SeqCst, begin).is_ok()
    }

    /// A worker holds operations back: it is told of the next end.
    pub(crate) fn hold(&self, worker: W) {
        let mut holding = self.holding();
        if !holding.contains(&worker) {
            holding.push_back(worker);
        }
    }

    /// A background operation has ended: tells all who wait for that, as each may have given up.
    pub(crate) fn end(&self, tell: impl FnMut(W)) {
        self.background.fetch_sub(1, SeqCst);
        self.holding().drain(..).for_each(tell);
    }

    fn holding(&self) -> MutexGuard<'_, VecDeque<W>> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two queues of which the first goes first, nearly always.
#[derive(Debug)]
pub(crate) struct TwoQueues<T> {
    foreground: VecDeque<T>,
    background: VecDeque<T>,
    turn: u32,
}

impl<T> Default for TwoQueues<T> {
    fn default() -> TwoQueues<T> {
        TwoQueues { foreground: VecDeque::new(), background: VecDeque::new(), turn: 0 }
    }
}

impl<T> TwoQueues<T> {
    pub(crate) fn queue(&mut self, class: Class) -> &mut VecDeque<T> {
        match class {
            Class::Foreground => &mut self.foreground,
            Class::Background => &mut self.background,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.foreground.len() + self.background.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what is next; of the background only if that is `allowed`.
    pub(crate) fn pop(&mut self, allowed: bool) -> Option<(Class, T)> {
        let background = allowed && !self.background.is_empty();
        if background && !self.foreground.is_empty() {
            self.turn = (self.turn + 1) % TURN_OF_BACKGROUND;
        }
        let theirs = background && (self.foreground.is_empty() || self.turn == 0);
        if theirs {
            return self.background.pop_front().map(|item| (Class::Background, item));
        }
        self.foreground.pop_front().map(|item| (Class::Foreground, item))
    }

    /// Takes one out of the middle.
    pub(crate) fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        for queue in [&mut self.foreground, &mut self.background] {
            if let Some(place) = queue.iter().position(&is_it) {
                return queue.remove(place);
            }
        }
        None
    }

    /// Moves all of another to the end of this.
    pub(crate) fn append(&mut self, other: &mut TwoQueues<T>) {
        self.foreground.append(&mut other.foreground);
        self.background.append(&mut other.background);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_beside_the_foreground() {
        let give_way: GiveWay<u32> = GiveWay::new();
        assert!(give_way.try_begin() && give_way.try_begin(), "many, alone");
        give_way.note_foreground();
        assert!(!give_way.try_begin());
        give_way.hold(7);
        give_way.hold(7);
        give_way.hold(8);
        let mut told = Vec::new();
        give_way.end(|worker| told.push(worker));
        assert_eq!(told, [7, 8]);
        assert!(!give_way.try_begin(), "one is left");
        give_way.end(|worker| told.push(worker));
        assert_eq!(told.len(), 2, "nobody waits any more");
        assert!(!give_way.is_needed());
        assert!(give_way.try_begin() && !give_way.try_begin());
    }

    #[test]
    fn the_background_gives_way_and_is_not_starved() {
        let mut queues = TwoQueues::default();
        queues.queue(Class::Background).extend(0..10);
        queues.queue(Class::Foreground).extend(100..200);
        let taken: Vec<i32> = (0..64).filter_map(|_| queues.pop(true)).map(|(_, i)| i).collect();
        let theirs: Vec<i32> = taken.iter().copied().filter(|item| *item < 100).collect();
        assert_eq!(theirs, [0, 1, 2, 3]);
        assert_eq!(queues.pop(false), Some((Class::Foreground, 160)));
        assert_eq!(queues.remove(|item| *item == 5), Some(5));
        assert_eq!(queues.len(), 44);
        queues.queue(Class::Foreground).clear();
        assert_eq!(queues.pop(false), None);
        assert_eq!(queues.pop(true), Some((Class::Background, 4)));
    }
}
