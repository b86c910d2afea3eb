//! References in x86-64 machine code: calls, jumps and operands relative to the instruction
//! pointer, told by the bytes before them. Instructions are not decoded: a scan starts anywhere.
//!
//! The places worth a look are found 32 bytes at a time where the processor can; the result is
//! the same without.

use super::reference::{Field, Origin, Reference, word};
use super::space::Space;
#[cfg(target_arch = "x86_64")]
use crate::instructions::Instructions;

/// Calls `found` for each reference in `bytes`, whose first has this spot.
#[inline]
pub(super) fn scan(space: &Space, spot: u32, bytes: &[u8], mut found: impl FnMut(Reference)) {
    let reach = (space.loaded >> 24).min(126) as u8 + 1;
    let mut next = 0;
    let mut look = |at: usize| {
        if at >= next
            && let Some(reference) = reference(space, spot, bytes, at, reach)
        {
            next = reference.at + 4;
            found(reference);
        }
    };
    let places = bytes.len().saturating_sub(4);
    #[cfg(target_arch = "x86_64")]
    if Instructions::used() >= Instructions::Avx2 {
        let mut list = [0; wide::LIST];
        for start in (0..places).step_by(wide::BLOCK_BYTES) {
            let count = (places - start).min(wide::BLOCK_BYTES);
            // SAFETY: the processor has the instructions.
            let found = unsafe { wide::list(&bytes[start..], count, reach, &mut list) };
            for place in &list[..found] {
                look(start + usize::from(*place));
            }
        }
        return;
    }
    (0..places).for_each(look);
}

/// The reference whose opcode ends, or whose ModR/M byte is, at `at`.
#[inline]
fn reference(space: &Space, spot: u32, bytes: &[u8], at: usize, reach: u8) -> Option<Reference> {
    let (field, near) = match bytes[at] {
        0xe8 | 0xe9 => (at + 1, true),
        0x0f if bytes[at + 1] & 0xf0 == 0x80 => (at + 2, true),
        byte if byte & 0xc7 == 5 => (at + 1, false),
        _ => return None,
    };
    let value = u32::from_le_bytes(bytes.get(field..field + 4)?.try_into().expect("4 bytes"));
    // Nothing in the executable is farther away than that.
    if ((value >> 24) as u8).wrapping_add(reach) >= 2 * reach {
        return None;
    }
    let immediate = if near { 0 } else { immediate_bytes(bytes, at)? };
    let behind = spot.wrapping_add((field + 4 + immediate) as u32);
    let target = behind.wrapping_add(value);
    let plausible = match near {
        true => space.code.contains(&target),
        false => target < space.loaded,
    };
    plausible.then_some(Reference { at: field, field: Field::Word, target, origin: Origin::Itself })
}

/// Spots up to which addresses and distances can be told apart.
const ABSOLUTE_SPOTS_MAX: u32 = 1 << 31;

/// Rewrites the values of what may be calls and operands in code that is no copy, so that each says
/// where it leads in place of how far: then the same target is the same bytes wherever it is used.
/// Jumps stay as they are, as most of them lead to what is near.
pub(super) fn make_absolute(space: &Space, spot: u32, bytes: &mut [u8]) {
    let loaded = space.loaded;
    // Recognised by what was there: that is what who undoes this sees before each value.
    let original = bytes.to_vec();
    let mut at = 0;
    while let Some((place, behind)) = next_value(loaded, spot, &original, at) {
        let value = word(&original, place);
        let target = behind.wrapping_add(value);
        let stored = match (target < loaded, value < loaded) {
            (true, _) => target,
            // A target is written like that: it gets the number that no value has any more.
            (false, true) => value.wrapping_sub(loaded),
            (false, false) => value,
        };
        bytes[place..place + 4].copy_from_slice(&stored.to_le_bytes());
        at = place + 4;
    }
}

/// Undoes [`make_absolute`].
pub(super) fn make_relative(space: &Space, spot: u32, bytes: &mut [u8]) {
    let loaded = space.loaded;
    let mut at = 0;
    while let Some((place, behind)) = next_value(loaded, spot, bytes, at) {
        let stored = word(bytes, place);
        let value = match (stored < loaded, stored >= behind.wrapping_neg()) {
            (true, _) => stored.wrapping_sub(behind),
            (false, true) => stored.wrapping_add(loaded),
            (false, false) => stored,
        };
        bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
        at = place + 4;
    }
}

/// The first value, from `at` on, of what may be a call or an operand by the bytes before it: its
/// place, and the spot that it is counted from.
#[inline]
fn next_value(loaded: u32, spot: u32, bytes: &[u8], at: usize) -> Option<(usize, u32)> {
    if loaded > ABSOLUTE_SPOTS_MAX {
        return None;
    }
    (at..bytes.len().saturating_sub(4)).find_map(|at| {
        let immediate = match bytes[at] {
            0xe8 => 0,
            byte if byte & 0xc7 == 5 => immediate_bytes(bytes, at)?,
            _ => return None,
        };
        let behind = spot.wrapping_add((at + 5 + immediate) as u32);
        (1..=loaded).contains(&behind).then_some((at + 1, behind))
    })
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi8, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256,
        _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    };

    use crate::instructions::{BITS_MORE, list_bits};

    /// Places among which candidates are listed at a time.
    pub(super) const BLOCK_BYTES: usize = 256;
    /// Room for a list.
    pub(super) const LIST: usize = BLOCK_BYTES + BITS_MORE;

    /// Places that are told at a time.
    const STEP_BYTES: usize = 32;
    /// Bytes that are looked at for them.
    const READ_BYTES: usize = STEP_BYTES + 5;

    /// Lists the candidates among the first `count` places of `bytes`, at most [`BLOCK_BYTES`]; gives
    /// how many there are. As good as without branches: no processor foresees which places they are.
    #[target_feature(enable = "avx2,bmi1,popcnt")]
    pub(super) fn list(bytes: &[u8], count: usize, reach: u8, list: &mut [u8; LIST]) -> usize {
        let (mut found, mut at) = (0, 0);
        while at < count {
            let mut mask = match bytes.get(at..at + READ_BYTES) {
                Some(bytes) => candidates(bytes, reach),
                None => {
                    let mut padded = [0; READ_BYTES];
                    padded[..bytes.len() - at].copy_from_slice(&bytes[at..]);
                    candidates(&padded, reach)
                }
            };
            mask &= !0 >> STEP_BYTES.saturating_sub(count - at);
            found = list_bits(mask, at, list, found);
            at += STEP_BYTES;
        }
        found
    }

    /// The first places, a bit for each, at which there may be a reference: every one that
    /// `reference` accepts, and few others.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn candidates(bytes: &[u8], reach: u8) -> u32 {
        assert!(bytes.len() >= READ_BYTES);
        let load = |at: usize| -> __m256i {
            assert!(at + 32 <= READ_BYTES);
            // SAFETY: 32 bytes from `at` on lie in `bytes`, as asserted.
            unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at).cast()) }
        };
        let all = |byte: u8| _mm256_set1_epi8(byte as i8);
        // The highest byte of a displacement is near zero, from either side.
        let near = |highest: __m256i| {
            let shifted = _mm256_add_epi8(highest, all(reach));
            _mm256_cmpeq_epi8(_mm256_min_epu8(shifted, all(2 * reach - 1)), shifted)
        };
        let here = load(0);
        let branch = _mm256_cmpeq_epi8(_mm256_or_si256(here, all(1)), all(0xe9));
        let operand = _mm256_cmpeq_epi8(_mm256_and_si256(here, all(0xc7)), all(5));
        let short = _mm256_and_si256(_mm256_or_si256(branch, operand), near(load(4)));
        let escape = _mm256_cmpeq_epi8(here, all(0x0f));
        let condition = _mm256_cmpeq_epi8(_mm256_and_si256(load(1), all(0xf0)), all(0x80));
        let long = _mm256_and_si256(_mm256_and_si256(escape, condition), near(load(5)));
        _mm256_movemask_epi8(_mm256_or_si256(short, long)) as u32
    }
}

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
#[inline]
fn immediate_bytes(bytes: &[u8], at: usize) -> Option<usize> {
    // Most opcodes are one byte, behind none that could be a part of a longer one.
    if let Some(before) = at.checked_sub(5).and_then(|start| bytes[start..].first_chunk::<5>()) {
        let [fifth, fourth, third, second, opcode] = *before;
        let is_longer = (second == 0x0f)
            | (third == 0x0f && second & !2 == 0x38)
            | (third == 0xc5)
            | (fourth == 0xc4)
            | (fifth == 0x62);
        if !is_longer {
            return after_one_byte(opcode, bytes[at]);
        }
    }
    after_any(bytes, at)
}

/// The same behind any opcode.
#[inline(never)]
fn after_any(bytes: &[u8], at: usize) -> Option<usize> {
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
    after_one_byte(opcode, bytes[at])
}

/// The same behind an opcode of one byte.
#[inline]
fn after_one_byte(opcode: u8, modrm: u8) -> Option<usize> {
    let immediate = ONE_BYTE[usize::from(opcode)];
    // `test` has an immediate, the others of its group do not.
    if opcode & 0xfe == 0xf6 && modrm >> 3 & 7 == 0 {
        return Some(if opcode == 0xf6 { 1 } else { 4 });
    }
    (immediate != 0xff).then_some(usize::from(immediate))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> Space {
        Space { loaded: 100 << 20, code: 10 << 20..90 << 20, ..Space::default() }
    }

    fn scanned(spot: u32, bytes: &[u8]) -> Vec<Reference> {
        let mut found = Vec::new();
        scan(&space(), spot, bytes, |reference| found.push(reference));
        found
    }

    /// Bytes in which instructions with references are likely.
    fn code() -> impl Strategy<Value = Vec<u8>> {
        let opcodes: [&[u8]; 8] = [
            b"\xe8",
            b"\xe9",
            b"\x0f\x84",
            b"\x48\x8b\x05",
            b"\x48\x8d\x3d",
            b"\xff\x15",
            b"\xc7\x05",
            b"\xc5\xf8\x28\x05",
        ];
        let instruction = (0..opcodes.len(), -50i32 << 20..50 << 20)
            .prop_map(move |(opcode, value)| [opcodes[opcode], &value.to_le_bytes()].concat());
        let piece = prop_oneof![instruction, prop::collection::vec(any::<u8>(), 0..12)];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn wide_steps_find_what_single_ones_do(bytes in code(), spot in 0u32..100 << 20) {
            let found = scanned(spot, &bytes);
            let (mut next, mut expected) = (0, Vec::new());
            for at in 0..bytes.len().saturating_sub(4) {
                if at >= next && let Some(found) = reference(&space(), spot, &bytes, at, 7) {
                    next = found.at + 4;
                    expected.push(found);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }

    proptest! {
        #[test]
        fn bytes_before_tell_the_same_wherever_they_are_looked_at(
            bytes in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(b"\x0f\x38\x3a\xc4\xc5\x62\xf6\xf7\x8b\x80".to_vec()),
                    any::<u8>(),
                ],
                1..12,
            ),
        ) {
            for at in 0..bytes.len() {
                prop_assert_eq!(immediate_bytes(&bytes, at), after_any(&bytes, at));
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_made_absolute_is_made_relative_again(
            bytes in code(),
            spot in 0u32..110 << 20,
            loaded in prop_oneof![1u32..200 << 20, Just(1 << 31), Just(u32::MAX)],
        ) {
            let space = Space { loaded, ..space() };
            let mut changed = bytes.clone();
            make_absolute(&space, spot, &mut changed);
            make_relative(&space, spot, &mut changed);
            prop_assert_eq!(changed, bytes);
        }
    }

    #[test]
    fn the_same_target_is_the_same_bytes() {
        let call = |spot: u32| {
            let mut bytes = b"\x90\xe8".to_vec();
            bytes.extend_from_slice(&(20u32 << 20).wrapping_sub(spot + 6).to_le_bytes());
            make_absolute(&space(), spot, &mut bytes);
            bytes
        };
        assert_eq!(call(11 << 20), call(80 << 20));
        assert_eq!(call(11 << 20), b"\x90\xe8\0\0\x40\x01");
    }

    #[test]
    fn calls_jumps_and_operands_are_found() {
        let mut bytes = Vec::new();
        for opcode in [
            &b"\xe8"[..],
            b"\xe9",
            b"\x0f\x85",
            b"\x48\x8b\x05",
            b"\x8d\x0d",
            b"\xff\x25",
            b"\xf3\x0f\x10\x05",
            b"\xc5\xfa\x10\x05",
            b"\x0f\xb6\x05",
        ] {
            bytes.extend_from_slice(opcode);
            bytes.extend_from_slice(&0x10_0000u32.to_le_bytes());
        }
        // One with an immediate: its target is counted from behind that.
        bytes.extend_from_slice(b"\x80\x3d\x00\x00\x10\x00\x01");
        let found = scanned(20 << 20, &bytes);
        assert_eq!(found.len(), 10);
        let ends = (20 << 20) + bytes.len() as u32;
        assert_eq!(found[9].target, ends + 0x10_0000);
        assert!(scanned(95 << 20, b"\xe8\0\0\x10\0\0\0").is_empty(), "not into code");
        assert!(scanned(20 << 20, b"\x40\x41\x05\0\0\x10\0").is_empty(), "no such opcode");
    }
}
