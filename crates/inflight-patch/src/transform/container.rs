//! The containers that executables come in, read for what lies where in them. Only `diff` does this;
//! whatever is odd about a file makes it no executable for us, which costs nothing but a larger patch.

mod elf;
mod macho;
mod pe;
pub(crate) mod tar;

use std::ops::Range;

use super::references::space::{Region, RegionKind, Space};

/// Whether bytes start like an executable in a container that is known.
pub(crate) fn starts_like_one(bytes: &[u8]) -> bool {
    elf::starts_like_one(bytes)
        || pe::starts_like_one(bytes)
        || macho::starts_like_one(bytes)
        || macho::starts_like_universal(bytes)
}

/// The regions of the executable that `bytes` are, if they are one whose code can be read.
pub(crate) fn parse(bytes: &[u8]) -> Option<Space> {
    elf::parse(bytes).or_else(|| pe::parse(bytes)).or_else(|| macho::parse(bytes))
}

/// The executables that the file `bytes` are, and where in it they start: one, or those of a universal file.
pub(crate) fn parse_all(bytes: &[u8]) -> Vec<(usize, Space)> {
    let Some(images) = macho::images(bytes) else {
        return parse(bytes).map(|space| (0, space)).into_iter().collect();
    };
    let mut all = Vec::new();
    let mut position = 0;
    for (start, length) in images {
        let end = start.saturating_add(length);
        if start < position || end > bytes.len() as u64 {
            continue;
        }
        if let Some(space) = parse(&bytes[start as usize..end as usize]) {
            all.push((start as usize, space));
            position = end;
        }
    }
    all
}

/// Little-endian numbers anywhere in a file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&self, at: u64, count: u64) -> Option<&'a [u8]> {
        let end = at.checked_add(count)?;
        self.0.get(usize::try_from(at).ok()?..usize::try_from(end).ok()?)
    }

    fn half(&self, at: u64) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(at, 2)?.try_into().ok()?))
    }

    fn word(&self, at: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(at, 4)?.try_into().ok()?))
    }

    fn long(&self, at: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(at, 8)?.try_into().ok()?))
    }
}

/// A stretch of a file that something is known about.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    kind: RegionKind,
    start: u32,
    length: u32,
    /// The spot of its first byte, if it is loaded.
    spot: Option<u32>,
}

/// The space of a file of so many bytes, made of stretches in order. What lies between them is plain.
/// None where they overlap, which is nothing that a linker makes, or where none is code.
fn space(base: u64, loaded: u32, bytes: u32, stretches: &[Stretch]) -> Option<Space> {
    let mut space = Space { base, loaded, ..Space::default() };
    let behind = Stretch { kind: RegionKind::Plain, start: bytes, length: 0, spot: None };
    for stretch in stretches.iter().chain([&behind]) {
        let position = space.length();
        let length = stretch.start.checked_sub(position)?;
        let before = Stretch { kind: RegionKind::Plain, start: position, length, spot: None };
        for Stretch { kind, start, length, spot } in [before, *stretch] {
            if length == 0 {
                continue;
            }
            // What is not loaded has spots behind all that is.
            let spot = spot.unwrap_or(loaded + start);
            space.regions.push(Region { kind, start, length, spot, link: 0 });
            if kind.is_code() {
                let Range { start, end } = space.code;
                let start = if start == end { spot } else { start.min(spot) };
                space.code = start..end.max(spot + length);
            }
        }
    }
    (!space.code.is_empty()).then_some(space)
}

#[cfg(test)]
#[path = "../../tests/support/program.rs"]
#[allow(clippy::duplicate_mod, dead_code, reason = "tests from outside use it as well")]
mod program;

/// Whether regions follow each other from the first to the last of so many bytes.
#[cfg(test)]
fn covers(space: &Space, bytes: usize) -> bool {
    let follow = space.regions.windows(2).all(|two| two[0].end() == two[1].start);
    follow && space.regions[0].start == 0 && space.length() as usize == bytes
}
