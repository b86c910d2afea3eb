//! Steps that are good enough, at once: the best repeat at a byte, unless the next byte has a better one.
//!
//! The idea is the "lazy matching" of zlib. What is better is told by how many bits it saves.

use super::super::find::{Find, Found, LONG_ENOUGH, Repeat, common};
use super::super::grammar::{Command, History, Models, REPEAT_MAX, REPEAT_MIN};
use super::{Parse, Step};

/// Bits that a literal takes, about: fewer than most do, as what is not repeated from here may be from
/// another place.
const LITERAL_BITS: usize = 4;

/// Bits that the rest of a command takes, about.
const COMMAND_BITS: usize = 4;
const RECENT_BITS: usize = 3;

/// Bits that a later repeat must save on top, for the literal in front of it.
const LATER_BITS: usize = 2;

/// A repeat, and how many bits it saves.
#[derive(Debug, Clone, Copy)]
struct Choice {
    command: Command,
    saved: usize,
}

/// Chooses steps.
#[derive(Debug)]
pub(crate) struct Lazy<'a, F> {
    bytes: &'a [u8],
    find: F,
    position: usize,
    /// Where nobody has searched yet.
    searched: usize,
    found: Found,
}

impl<'a, F: Find<'a>> Parse for Lazy<'a, F> {
    fn next(&mut self, _: &mut Models, history: &History, _: usize, steps: &mut Vec<Step>) {
        steps.clear();
        let mut best = loop {
            if self.position == self.bytes.len() {
                return;
            }
            if let Some(best) = self.best_at(history, self.position) {
                break best;
            }
            steps.push(Step::Literal);
            self.position += 1;
        };
        while best.command.length() < LONG_ENOUGH && self.position + 1 < self.bytes.len() {
            let later = self.best_at(history, self.position + 1);
            let Some(later) = later.filter(|later| later.saved > best.saved + LATER_BITS) else {
                break;
            };
            best = later;
            steps.push(Step::Literal);
            self.position += 1;
        }
        steps.push(Step::Command(best.command));
        self.position += best.command.length();
    }
}

impl<'a, F: Find<'a>> Lazy<'a, F> {
    pub(crate) fn new(bytes: &'a [u8]) -> Lazy<'a, F> {
        Lazy { bytes, find: F::new(bytes), position: 0, searched: 0, found: Found::NONE }
    }

    /// The repeat that saves most at a position where nobody has searched yet, if one saves anything.
    #[inline(always)]
    fn best_at(&mut self, history: &History, position: usize) -> Option<Choice> {
        self.find.skip(position - self.searched);
        self.searched = position + 1;
        self.find.next(&mut self.found);
        let agree = |distance: u32, known: usize, limit: usize| {
            let Some(there) = position.checked_sub(distance as usize) else { return 0 };
            let limit = limit.min(self.bytes.len() - position);
            common(&self.bytes[there..], &self.bytes[position..], known, limit)
        };
        let mut best: Option<Choice> = None;
        let mut choose = |length: usize, bits: usize, command: Command| {
            let saved = (LITERAL_BITS * length).saturating_sub(bits);
            if saved > best.map_or(0, |best| best.saved) {
                best = Some(Choice { command, saved });
            }
        };
        for (place, distance) in history.distances.into_iter().enumerate() {
            let length = agree(distance, 0, LONG_ENOUGH);
            if length >= REPEAT_MIN {
                let bits = RECENT_BITS + usize::from(place > 0);
                choose(length, bits, Command::Recent { place, length });
            }
        }
        for Repeat { length, distance } in self.found.iter().copied() {
            let bits = COMMAND_BITS + (32 - distance.leading_zeros()) as usize;
            choose(length, bits, Command::Repeat { distance, length });
        }
        let mut best = best?;
        if best.command.length() == LONG_ENOUGH {
            match &mut best.command {
                Command::Recent { place, length } => {
                    *length = agree(history.distances[*place], LONG_ENOUGH, REPEAT_MAX);
                }
                Command::Repeat { distance, length } => {
                    *length = agree(*distance, LONG_ENOUGH, REPEAT_MAX);
                }
                Command::Again => {}
            }
        }
        Some(best)
    }
}
