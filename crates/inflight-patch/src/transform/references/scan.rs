//! Recognising references by what stands in the bytes themselves.
//!
//! A scan sees one stretch of a region and nothing around it, so that a decoder needs no more than
//! the bytes it copies. What it takes for a reference need not be one: a wrong guess costs a few
//! bytes of the patch, never a wrong result.

use super::reference::{Origin, Reference};
use super::space::{Region, RegionKind, Space};
use super::x86;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Calls `found` for each reference in `bytes`, which are a stretch of `region` from `inside` on.
#[inline]
pub(crate) fn scan(
    space: &Space,
    region: &Region,
    inside: u32,
    bytes: &[u8],
    mut found: impl FnMut(Reference),
) {
    let spot = region.spot.wrapping_add(inside);
    match region.kind {
        RegionKind::Plain | RegionKind::Strings => {}
        RegionKind::CodeX86 => x86::scan(space, spot, bytes, found),
        RegionKind::Constants => scan_constants(space, spot, bytes, found),
        RegionKind::Pointers => {
            let mut slots = Slots { space, bytes, found };
            slots.each(inside, 8, |slots, at| slots.address(at));
        }
        RegionKind::Relocations => {
            let mut slots = Slots { space, bytes, found };
            slots.each(inside, 24, |slots, at| {
                slots.address(at);
                slots.address(at + 16);
            });
        }
        RegionKind::Symbols => {
            let mut slots = Slots { space, bytes, found };
            slots.each(inside, 24, |slots, at| {
                slots.name(at, region);
                slots.address(at + 8);
            });
        }
        RegionKind::UnwindIndex => {
            let first = (UNWIND_HEADER.saturating_sub(inside)) as usize;
            let first = first.max((inside.wrapping_neg() % 4) as usize);
            let mut at = first;
            while at + 4 <= bytes.len() {
                let target = region.spot.wrapping_add(word(bytes, at));
                if target < space.loaded {
                    found(Reference { at, width: 4, target, origin: Origin::Region });
                }
                at += 4;
            }
        }
        RegionKind::UnwindEntries => scan_unwind(space, region, inside, bytes, found),
    }
}

/// Rewrites the references in bytes that are no copy, a stretch of `region` from `inside` on, so
/// that each says where it leads.
pub(crate) fn make_absolute(space: &Space, region: &Region, inside: u32, bytes: &mut [u8]) {
    if region.kind == RegionKind::CodeX86 {
        x86::make_absolute(space, region.spot.wrapping_add(inside), bytes);
    }
}

/// Undoes [`make_absolute`].
pub(crate) fn make_relative(space: &Space, region: &Region, inside: u32, bytes: &mut [u8]) {
    if region.kind == RegionKind::CodeX86 {
        x86::make_relative(space, region.spot.wrapping_add(inside), bytes);
    }
}

/// Bytes before the table of an unwind index.
const UNWIND_HEADER: u32 = 12;

/// Reads records of a fixed length.
struct Slots<'a, F> {
    space: &'a Space,
    bytes: &'a [u8],
    found: F,
}

impl<F: FnMut(Reference)> Slots<'_, F> {
    /// Calls `record` for the start of each record, wholly here or not; the first may start before
    /// the bytes and is then left out, but for records of one slot.
    fn each(&mut self, inside: u32, stride: usize, record: impl Fn(&mut Self, usize)) {
        let skip = (stride - inside as usize % stride) % stride;
        let mut at = skip;
        while at + 8 <= self.bytes.len() {
            record(self, at);
            at += stride;
        }
    }

    fn address(&mut self, at: usize) {
        if at + 8 > self.bytes.len() {
            return;
        }
        let value = long(self.bytes, at).wrapping_sub(self.space.base);
        if value < u64::from(self.space.loaded) && value > 0 {
            let target = value as u32;
            (self.found)(Reference { at, width: 8, target, origin: Origin::Zero });
        }
    }

    fn name(&mut self, at: usize, region: &Region) {
        let Some(names) = self.space.regions.get(region.link as usize) else { return };
        let value = word(self.bytes, at);
        if value < names.length && value > 0 {
            let target = names.spot + value;
            (self.found)(Reference { at, width: 4, target, origin: Origin::Names });
        }
    }
}

/// How far apart the targets of neighbours in a jump table are, at most.
const JUMP_TABLE_REACH: u32 = 16 << 10;

/// Entries of jump tables are offsets of code from the start of their table, which is taken to be
/// where entries begin to lead to the same stretch of code.
fn scan_constants(space: &Space, spot: u32, bytes: &[u8], mut found: impl FnMut(Reference)) {
    let first = (spot.wrapping_neg() % 4) as usize;
    if first >= bytes.len() {
        return;
    }
    // Where the table starts, and the entry before.
    let mut table: Option<(u32, u32)> = None;
    for (number, word) in bytes[first..].chunks_exact(4).enumerate() {
        let at = first + 4 * number;
        let here = spot.wrapping_add(at as u32);
        let value = u32::from_le_bytes(word.try_into().expect("4 bytes"));
        let goes_on = |(_, before): &(u32, u32)| {
            value.wrapping_sub(*before).wrapping_add(JUMP_TABLE_REACH) <= 2 * JUMP_TABLE_REACH
        };
        let start = table.filter(goes_on).map_or(here, |(start, _)| start);
        let target = start.wrapping_add(value);
        table = space.code.contains(&target).then_some((start, value));
        if table.is_some() {
            found(Reference { at, width: 4, target, origin: Origin::Itself });
        }
    }
}

/// Entries of an `.eh_frame`: length, distance to the common entry, start of the function, its
/// length, and perhaps where its exception table is.
fn scan_unwind(
    space: &Space,
    region: &Region,
    inside: u32,
    bytes: &[u8],
    mut found: impl FnMut(Reference),
) {
    let mut at = (inside.wrapping_neg() % 4) as usize;
    while at + 16 <= bytes.len() {
        let here = inside + at as u32;
        let (length, distance) = (word(bytes, at), word(bytes, at + 4));
        let spot = region.spot + here;
        let start = (spot + 8).wrapping_add(word(bytes, at + 8));
        let size = word(bytes, at + 12);
        let is_entry = length.is_multiple_of(4)
            && (12..1 << 16).contains(&length)
            && distance > 0
            && distance.is_multiple_of(4)
            && distance <= here + 4
            && space.code.contains(&start)
            && size <= space.code.end - start;
        if !is_entry {
            at += 4;
            continue;
        }
        let common = spot + 4 - distance;
        found(Reference { at: at + 4, width: 4, target: common, origin: Origin::Behind });
        found(Reference { at: at + 8, width: 4, target: start, origin: Origin::Itself });
        if length >= 17 && at + 21 <= bytes.len() && bytes[at + 16] == 4 {
            let value = word(bytes, at + 17);
            let target = (spot + 17).wrapping_add(value);
            if value != 0 && target < space.loaded {
                found(Reference { at: at + 17, width: 4, target, origin: Origin::Itself });
            }
        }
        at += 4 + length as usize;
    }
}
