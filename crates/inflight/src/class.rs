//! Two classes of work.
//!
//! Whatever is done through a handle made by [`crate::Handle::background`] gives way to the rest: its
//! operations carry the system's idle I/O priority where there is such a thing, few of them are
//! under way while others are, they wait behind others for the threads of the pool, and its tasks run
//! after others. They are never starved: a few operations are always under way, and of the tasks and
//! the pool's work every sixteenth is theirs.

use std::collections::VecDeque;

/// How urgent an operation or a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Foreground,
    /// It has time.
    Background,
}

/// Background operations of a worker under way at once, while foreground ones are.
pub(crate) const BACKGROUND_BESIDE_MAX: usize = 2;
/// The same while none are.
pub(crate) const BACKGROUND_ALONE_MAX: usize = 64;
/// Of so many things that are taken while both classes wait, one is of the background.
const TURN_OF_BACKGROUND: u32 = 16;

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
