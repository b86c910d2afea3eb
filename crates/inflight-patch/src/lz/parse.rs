//! In which steps to say some bytes: two ways, for two amounts of time.

mod lazy;
mod optimal;

pub(super) use lazy::Lazy;
pub(super) use optimal::Optimal;

use super::find::common;
use super::grammar::{Command, History, Models};

/// Chooses steps.
pub(super) trait Parse {
    /// The next steps, at least one, after this past and a run of literals.
    fn next(&mut self, models: &mut Models, history: &History, run: usize, steps: &mut Vec<Step>);
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Literal,
    Command(Command),
}

impl Step {
    pub(super) fn length(&self) -> usize {
        match self {
            Step::Literal => 1,
            Step::Command(command) => command.length(),
        }
    }
}

/// How many bytes from a position on are like those so far before, of so many at most.
#[inline(always)]
fn agree(bytes: &[u8], position: usize, distance: u32, limit: usize) -> usize {
    let Some(place) = position.checked_sub(distance as usize) else { return 0 };
    let (there, here) = (&bytes[place..], &bytes[position..]);
    common(there, here, 0, limit.min(here.len()))
}

/// The two bytes before a position, the nearest first; zeros where there is nothing.
#[inline(always)]
pub(super) fn before(bytes: &[u8], position: usize) -> [u8; 2] {
    match bytes.get(..position).and_then(<[u8]>::last_chunk::<2>) {
        Some([second, first]) => [*first, *second],
        None => [bytes[..position].last().copied().unwrap_or(0), 0],
    }
}

/// The byte that a repeat would have gone on with.
#[inline(always)]
pub(super) fn expected(bytes: &[u8], position: usize, distance: u32) -> Option<u8> {
    position.checked_sub(distance as usize).map(|place| bytes[place])
}
