//! Steps that are good enough, at once: the best repeat at a byte, unless the next byte has a better one.
//!
//! The idea is the "lazy matching" of zlib. What is better is told by how many bits it saves.

use super::super::find::{Buckets, Find, Found, LONG_ENOUGH, Repeat};
use super::super::grammar::{Command, History, Models, REPEAT_MAX, REPEAT_MIN, RUN_MAX};
use super::{Parse, Step, agree};

/// Bits that a literal takes, about: fewer than most do, as what is not repeated from here may be from
/// another place.
const LITERAL_BITS: usize = 4;

/// Bits that the rest of a command takes, about.
const COMMAND_BITS: usize = 4;
const RECENT_BITS: usize = 3;

/// Bits that a later repeat must save on top, for the literal in front of it.
const LATER_BITS: usize = 2;

/// Literals after which one more is passed over without a look.
const PATIENCE: usize = 256;

/// A repeat, and how many bits it saves.
#[derive(Debug, Clone, Copy)]
struct Choice {
    command: Command,
    distance: u32,
    saved: usize,
}

/// Chooses steps.
#[derive(Debug)]
pub(crate) struct Lazy<'a> {
    bytes: &'a [u8],
    find: Buckets<'a>,
    position: usize,
    /// Where nobody has searched yet.
    searched: usize,
    found: Found,
}

impl Parse for Lazy<'_> {
    fn next(&mut self, _: &mut Models, history: &History, _: usize, steps: &mut Vec<Step>) {
        steps.clear();
        let mut best = loop {
            // A step takes much more memory than a literal.
            if self.position == self.bytes.len() || steps.len() >= RUN_MAX {
                return;
            }
            if let Some(best) = self.best_at(history, self.position) {
                break best;
            }
            let left = self.bytes.len() - self.position;
            self.literals(left.min(1 + steps.len() / PATIENCE), steps);
        };
        while best.command.length() < LONG_ENOUGH && self.position + 1 < self.bytes.len() {
            let later = self.best_at(history, self.position + 1);
            let Some(later) = later.filter(|later| later.saved > best.saved + LATER_BITS) else {
                break;
            };
            best = later;
            self.literals(1, steps);
        }
        if let Command::Recent { length, .. } | Command::Repeat { length, .. } = &mut best.command
            && *length == LONG_ENOUGH
        {
            *length = agree(self.bytes, self.position, best.distance, REPEAT_MAX);
        }
        steps.push(Step::Command(best.command));
        self.position += best.command.length();
    }
}

impl<'a> Lazy<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Lazy<'a> {
        let find = Buckets::new(bytes);
        Lazy { bytes, find, position: 0, searched: 0, found: Found::NONE }
    }

    fn literals(&mut self, count: usize, steps: &mut Vec<Step>) {
        steps.extend(std::iter::repeat_n(Step::Literal, count));
        self.position += count;
    }

    /// The repeat that saves most at a position where nobody has searched yet, if one saves anything.
    #[inline(always)]
    fn best_at(&mut self, history: &History, position: usize) -> Option<Choice> {
        self.find.skip(position - self.searched);
        self.searched = position + 1;
        self.find.next(&mut self.found);
        let mut best: Option<Choice> = None;
        let mut choose = |length: usize, bits: usize, distance: u32, command: Command| {
            let saved = (LITERAL_BITS * length).saturating_sub(bits);
            if saved > best.map_or(0, |best| best.saved) {
                best = Some(Choice { command, distance, saved });
            }
        };
        for (place, distance) in history.distances.into_iter().enumerate() {
            let length = agree(self.bytes, position, distance, LONG_ENOUGH);
            if length >= REPEAT_MIN {
                let bits = RECENT_BITS + usize::from(place > 0);
                choose(length, bits, distance, Command::Recent { place, length });
            }
        }
        for Repeat { length, distance } in self.found.iter().copied() {
            let bits = COMMAND_BITS + (32 - distance.leading_zeros()) as usize;
            choose(length, bits, distance, Command::Repeat { distance, length });
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::grammar::Settings;
    use super::*;

    #[test]
    fn of_what_has_no_repeats_few_steps_are_given_at_a_time() {
        // Each two bytes come once.
        let pairs = (0..=255u8).flat_map(|high| (0..=255u8).map(move |low| [high, low]));
        let bytes: Vec<u8> = pairs.flatten().collect();
        let settings = Settings { bits_before: 0, bits_of_place: 0, farther: false };
        let (mut models, mut steps) = (Models::new(settings), Vec::new());
        let (mut lazy, mut history, mut run) = (Lazy::new(&bytes), History::NEW, 0);
        let mut made = 0;
        while made < bytes.len() {
            lazy.next(&mut models, &history, run, &mut steps);
            assert!(!steps.is_empty() && steps.len() <= RUN_MAX + RUN_MAX / PATIENCE + 2);
            for step in &steps {
                made += step.length();
                match step {
                    Step::Literal => run = (run + 1) % RUN_MAX,
                    Step::Command(command) => {
                        history = history.after(run, *command);
                        run = 0;
                    }
                }
            }
        }
        assert_eq!(made, bytes.len());
    }
}
