//! Tables of functions, and what functions say about unwinding them, as PE images have both.

use super::reference::{Field, Origin, Reference, word};
use super::space::Space;

/// Bytes of a record of a function: its start, its end, and where its unwind information is.
const RECORD_BYTES: usize = 12;

/// The first record that starts among bytes from `inside` the table on.
fn first(inside: u32) -> usize {
    (RECORD_BYTES - inside as usize % RECORD_BYTES) % RECORD_BYTES
}

/// Calls `found` for each spot in records that are wholly among `bytes`. A function ends behind its last
/// byte, and where that went is where it ends.
pub(super) fn scan(space: &Space, inside: u32, bytes: &[u8], mut found: impl FnMut(Reference)) {
    let skip = first(inside);
    let records = bytes.get(skip..).unwrap_or_default().chunks_exact(RECORD_BYTES);
    for (number, record) in records.enumerate() {
        let at = skip + RECORD_BYTES * number;
        for (inside, last) in [(0, 0), (4, 1), (8, 0)] {
            let target = word(record, inside).wrapping_sub(last);
            if (space.code.start..space.loaded).contains(&target) {
                found(Reference {
                    at: at + inside,
                    field: Field::Word,
                    target,
                    origin: Origin::Base,
                });
            }
        }
    }
}

/// The same of unwind information: a header with codes behind it, and then spots, counts and flags,
/// whatever the language wants. Headers look like spots; they are told by their first code, which is of
/// the prologue's end.
pub(super) fn scan_unwind(
    space: &Space,
    spot: u32,
    bytes: &[u8],
    mut found: impl FnMut(Reference),
) {
    let mut at = (spot.wrapping_neg() % 4) as usize;
    while at + 4 <= bytes.len() {
        let [flags, prologue, count, _] = word(bytes, at).to_le_bytes();
        let first = bytes.get(at + 4).copied();
        let is_header =
            matches!(flags & 7, 1 | 2) && flags >> 3 <= 4 && count > 0 && first == Some(prologue);
        match is_header {
            true => at += 4 + 4 * usize::from(count).div_ceil(2),
            false => {
                Reference::offset(space, bytes, at).into_iter().for_each(&mut found);
                at += 4;
            }
        }
    }
}

/// Rewrites records that are no copy: each start as the distance from the end before, each end as the
/// length, and so on; most of them are the same then.
pub(super) fn make_alike(inside: u32, bytes: &mut [u8]) {
    let mut before = (0u32, 0u32);
    each_record(inside, bytes, |[start, end, unwind]| {
        let (last, last_unwind) = std::mem::replace(&mut before, (end, unwind));
        [start.wrapping_sub(last), end.wrapping_sub(start), unwind.wrapping_sub(last_unwind)]
    });
}

/// Undoes [`make_alike`].
pub(super) fn make_different(inside: u32, bytes: &mut [u8]) {
    let (mut last, mut last_unwind) = (0u32, 0u32);
    each_record(inside, bytes, |[distance, length, unwind]| {
        let start = last.wrapping_add(distance);
        last = start.wrapping_add(length);
        last_unwind = last_unwind.wrapping_add(unwind);
        [start, last, last_unwind]
    });
}

/// Changes the words of each record that is wholly among these bytes.
fn each_record(inside: u32, bytes: &mut [u8], mut change: impl FnMut([u32; 3]) -> [u32; 3]) {
    let records = bytes.get_mut(first(inside)..).unwrap_or_default();
    for record in records.chunks_exact_mut(RECORD_BYTES) {
        let words = change([0, 4, 8].map(|at| word(record, at)));
        for (bytes, word) in record.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// Rewrites spots in unwind information that is no copy, where they are near the one before: as how far
/// they are from it. Their lowest byte stays.
pub(super) fn make_unwind_alike(space: &Space, spot: u32, bytes: &mut [u8]) {
    let mut before = 0;
    each_high(space, spot, bytes, |real, count| {
        let stored = exchanged(real, before, count);
        before = real;
        stored
    });
}

/// Undoes [`make_unwind_alike`].
pub(super) fn make_unwind_different(space: &Space, spot: u32, bytes: &mut [u8]) {
    let mut before = 0;
    each_high(space, spot, bytes, |stored, count| {
        before = exchanged(stored, before, count);
        before
    });
}

/// What is above the lowest byte of words that are no spots, but two codes of unwinding with nothing
/// behind them, is below this.
const HIGH_MIN: u32 = 1 << 9;

/// Changes what is above the lowest byte of each word that may be a spot, counted from the first such
/// number, of so many. What it becomes is one of them again.
fn each_high(space: &Space, spot: u32, bytes: &mut [u8], mut change: impl FnMut(u32, u32) -> u32) {
    let first = HIGH_MIN.max(space.code.start >> 8);
    let count = (space.loaded >> 8).saturating_sub(first);
    let skip = (spot.wrapping_neg() % 4) as usize;
    for bytes in bytes.get_mut(skip..).unwrap_or_default().chunks_exact_mut(4) {
        let [lowest, ..] = *bytes else { continue };
        let high = (word(bytes, 0) >> 8).wrapping_sub(first);
        if high < count {
            let high = first + change(high, count);
            bytes.copy_from_slice(&(high << 8 | u32::from(lowest)).to_le_bytes());
        }
    }
}

/// How many numbers are near one: those of 64 KiB on either side of a spot.
const NEAR: u32 = 1 << 9;

/// Gives the numbers around the one `before` to the first ones, and theirs to those; done again,
/// that is undone.
fn exchanged(high: u32, before: u32, count: u32) -> u32 {
    let near = before.wrapping_sub(NEAR / 2);
    if near < NEAR || near.checked_add(NEAR).is_none_or(|end| end > count) {
        return high;
    }
    match high {
        high if high < NEAR => near + high,
        high if (near..near + NEAR).contains(&high) => high - near,
        high => high,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOT: u32 = 0x40_0000;

    fn space() -> Space {
        Space { loaded: 0x50_0000, code: 0x1000..0x30_0000, ..Space::default() }
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks_exact(4).map(|four| word(four, 0)).collect()
    }

    /// Where references were found, and what to.
    fn found(scan: impl FnOnce(&mut dyn FnMut(Reference))) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        scan(&mut |reference| found.push((reference.at, reference.target)));
        found
    }

    #[test]
    fn functions_end_where_their_last_byte_is() {
        let records = [0x2000, 0x2010, SPOT, 0x2010, 0x2040, 7];
        let scanned = |inside, words: &[u32]| {
            let bytes = bytes(words);
            found(|found| scan(&space(), inside, &bytes, found))
        };
        let all = [(0, 0x2000), (4, 0x200f), (8, SPOT), (12, 0x2010), (16, 0x203f)];
        assert_eq!(scanned(24, &records), all);
        // The first record starts before the bytes.
        assert_eq!(scanned(28, &records[1..]), [(8, 0x2010), (12, 0x203f)]);
        assert_eq!(scanned(28, &records[1..5]), []);
    }

    #[test]
    fn headers_of_unwind_information_are_no_spots() {
        let scanned = |words: &[u32]| {
            let bytes = bytes(words);
            found(|found| scan_unwind(&space(), SPOT + 8, &bytes, found))
        };
        // Three codes and one for the alignment, a handler, what it wants.
        let header = u32::from_le_bytes([0x11, 0x0a, 3, 0]);
        let words = [header, 0x3204_320a, 0x3000, 0x2000, 0x2080, 0, 5];
        assert_eq!(scanned(&words), [(12, 0x2000), (16, 0x2080)]);
        // The first code is not of the prologue's end: this is no header.
        let words = [header, 0x3204_3209, 0x3000, 0x2000];
        assert_eq!(scanned(&words), [(0, header), (8, 0x3000), (12, 0x2000)]);
    }

    #[test]
    fn functions_and_spots_that_follow_each_other_are_said_in_the_same_way() {
        let mut records = bytes(&[0x2000, 0x2010, SPOT, 0x2020, 0x2040, SPOT + 12]);
        make_alike(0, &mut records);
        assert_eq!(words(&records), [0x2000, 0x10, SPOT, 0x10, 0x20, 12]);

        let mut spots = bytes(&[0x2f_0044, 3, 0x2f_0144, 0x2e_ff44]);
        make_unwind_alike(&space(), SPOT, &mut spots);
        // So far from the middle of what is near.
        let near = |change: i32| ((HIGH_MIN + NEAR / 2) << 8).wrapping_add_signed(change);
        assert_eq!(words(&spots), [0x2f_0044, 3, near(0x144), near(0x44 - 0x200)]);
    }
}
