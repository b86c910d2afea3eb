//! Recognising references by what stands in the bytes themselves.
//!
//! A scan sees one stretch of a region and nothing around it, so that a decoder needs no more than
//! the bytes it copies. What it takes for a reference need not be one: a wrong guess costs a few
//! bytes of the patch, never a wrong result.

use super::space::{Region, RegionKind, Space};

/// What the value of a reference is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The address 0.
    Zero,
    /// The reference's own place.
    Itself,
    /// The reference's own place, backwards.
    Behind,
    /// The start of the region it is in.
    Region,
    /// The start of the region with the names.
    Names,
}

/// A reference in the bytes that were scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Where its value starts.
    pub(crate) at: usize,
    /// Bytes of the value: 4 or 8, little-endian.
    pub(crate) width: usize,
    /// The spot that it refers to.
    pub(crate) target: u32,
    pub(crate) origin: Origin,
}

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
        RegionKind::Plain => {}
        RegionKind::CodeX86 => scan_code(space, spot, bytes, found),
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

/// Calls, jumps and operands relative to the instruction pointer.
fn scan_code(space: &Space, spot: u32, bytes: &[u8], mut found: impl FnMut(Reference)) {
    let mut at = 0;
    let limit = bytes.len().saturating_sub(4);
    while at < limit {
        let class = CLASSES[usize::from(bytes[at])];
        if class == NOTHING {
            at += 1;
            continue;
        }
        let (field, behind, near) = match class {
            BRANCH => (at + 1, 0, true),
            ESCAPE => {
                if bytes[at + 1] & 0xf0 != 0x80 || at + 6 > bytes.len() {
                    at += 1;
                    continue;
                }
                (at + 2, 0, true)
            }
            _ => match immediate_bytes(bytes, at) {
                Some(count) => (at + 1, count, false),
                None => {
                    at += 1;
                    continue;
                }
            },
        };
        let next = spot.wrapping_add((field + 4 + behind) as u32);
        let target = next.wrapping_add(word(bytes, field));
        let plausible = match near {
            true => space.code.contains(&target),
            false => target < space.loaded,
        };
        if plausible {
            found(Reference { at: field, width: 4, target, origin: Origin::Itself });
            at = field + 4;
        } else {
            at += 1;
        }
    }
}

const NOTHING: u8 = 0;
const BRANCH: u8 = 1;
const ESCAPE: u8 = 2;
const OPERAND: u8 = 3;

/// What a byte may start.
static CLASSES: [u8; 256] = {
    let mut classes = [NOTHING; 256];
    classes[0xe8] = BRANCH;
    classes[0xe9] = BRANCH;
    classes[0x0f] = ESCAPE;
    // ModR/M bytes that mean «relative to the instruction pointer».
    let mut register = 0;
    while register < 8 {
        classes[register << 3 | 5] = OPERAND;
        register += 1;
    }
    classes
};

/// One-byte opcodes with an operand, by the bytes of immediate that follow it; 0xff for others.
static ONE_BYTE: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut row = 0;
    while row < 0x40 {
        let mut column = 0;
        while column < 4 {
            table[row + column] = 0;
            column += 1;
        }
        row += 8;
    }
    let plain = [0x63, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0x8f];
    let mut index = 0;
    while index < plain.len() {
        table[plain[index]] = 0;
        index += 1;
    }
    let mut shift = 0xd0;
    while shift <= 0xdf {
        if shift <= 0xd3 || shift >= 0xd8 {
            table[shift] = 0;
        }
        shift += 1;
    }
    table[0xf6] = 0;
    table[0xf7] = 0;
    table[0xfe] = 0;
    table[0xff] = 0;
    table[0x6b] = 1;
    table[0x80] = 1;
    table[0x83] = 1;
    table[0xc0] = 1;
    table[0xc1] = 1;
    table[0xc6] = 1;
    table[0x69] = 4;
    table[0x81] = 4;
    table[0xc7] = 4;
    table
};

/// Whether the byte at `at` may be the ModR/M byte of an instruction, and then how many bytes of
/// immediate follow its displacement.
fn immediate_bytes(bytes: &[u8], at: usize) -> Option<usize> {
    let before = |count: usize| at.checked_sub(count).map(|place| bytes[place]);
    let opcode = before(1)?;
    let second = before(2);
    if second == Some(0x0f) {
        return match opcode {
            0x80..=0x8f | 0x05 | 0x0b | 0x31 | 0xa2 | 0x38 | 0x3a | 0xc8..=0xcf => None,
            0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => Some(1),
            _ => Some(0),
        };
    }
    if let (Some(map @ (0x38 | 0x3a)), Some(0x0f)) = (second, before(3)) {
        return Some(usize::from(map == 0x3a));
    }
    if before(3) == Some(0xc5) || before(4) == Some(0xc4) || before(5) == Some(0x62) {
        let third = before(4) == Some(0xc4) && before(3).is_some_and(|b| b & 0x1f == 3);
        let immediate = third || matches!(opcode, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6);
        return Some(usize::from(immediate));
    }
    let immediate = ONE_BYTE[usize::from(opcode)];
    if immediate == 0xff {
        return None;
    }
    // `test` has an immediate, the others of its group do not.
    let test = bytes[at] >> 3 & 7 == 0;
    match opcode {
        0xf6 if test => Some(1),
        0xf7 if test => Some(4),
        _ => Some(usize::from(immediate)),
    }
}
