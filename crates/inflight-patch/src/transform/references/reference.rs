//! A reference: a value that leads to a place in an executable.

use super::space::Space;

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
    /// Spot 0.
    Base,
}

/// How a value stands in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// Four bytes.
    Word,
    /// Eight bytes.
    Long,
    /// A distance in an instruction of AArch64: so many bits of it, in words.
    Branch { first_bit: u8, bits: u8 },
    /// A distance in two instructions of AArch64. The first one has it in pages, from its own; the other,
    /// so many words behind, has where in the page that is, in units of so many bits.
    Page { words_behind: u8, unit_bits: u8 },
}

/// Of an instruction with a page: the bits of its number, the lowest two apart from the others.
const PAGE_BITS: u32 = 0x60ff_ffe0;
/// Of an instruction with a place in a page: the bits of it.
const IN_PAGE_BITS: u32 = 0x003f_fc00;

impl Field {
    /// Whether values are counted modulo 2^32.
    pub(crate) fn is_word(self) -> bool {
        self == Field::Word
    }

    /// The bytes of a value that stands in them alone.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Field::Word => 4,
            _ => 8,
        }
    }

    /// The words with a value that starts at `at`, and a mask of its bits in each.
    pub(crate) fn words(self, at: usize) -> impl Iterator<Item = (usize, u32)> {
        let (first, second) = match self {
            Field::Word => ((at, u32::MAX), None),
            Field::Long => ((at, u32::MAX), Some((at + 4, u32::MAX))),
            Field::Branch { first_bit, bits } => ((at, ((1 << bits) - 1) << first_bit), None),
            Field::Page { words_behind, .. } => {
                let second = at + 4 * usize::from(words_behind);
                ((at, PAGE_BITS), Some((second, IN_PAGE_BITS)))
            }
        };
        std::iter::once(first).chain(second)
    }

    /// The value that starts at `at`, whose spot is `spot`. What an instruction is besides stands above
    /// the distance, so that numbers that are added to a value change the distance alone.
    #[inline]
    pub(crate) fn read(self, bytes: &[u8], at: usize, spot: u32) -> u64 {
        match self {
            // Not a copy of so many bytes: that would be a call.
            Field::Word => word(bytes, at).into(),
            Field::Long => u64::from_le_bytes(*bytes[at..].first_chunk().expect("8 bytes")),
            Field::Branch { first_bit, bits } => {
                let instruction = word(bytes, at);
                let unused = 32 - u32::from(bits);
                let words = ((instruction >> first_bit) << unused) as i32 >> unused;
                let mask = ((1 << bits) - 1) << first_bit;
                (u64::from(instruction & !mask) << 32).wrapping_add_signed(4 * i64::from(words))
            }
            Field::Page { words_behind, unit_bits } => {
                let first = word(bytes, at);
                let second = word(bytes, at + 4 * usize::from(words_behind));
                let pages = (first << 8 & 0xffff_e000 | first >> 18 & 0x1800) as i32 >> 11;
                let inside = rotated(second >> 10 & 0xfff, unit_bits.into());
                let distance = i64::from(pages) << 12 | i64::from(inside);
                let distance = distance - i64::from(spot & 0xfff);
                (besides(first, second) << 33).wrapping_add_signed(distance)
            }
        }
    }

    /// Puts another value there.
    #[inline]
    pub(crate) fn write(self, bytes: &mut [u8], at: usize, spot: u32, value: u64) {
        match self {
            Field::Word => put_word(bytes, at, value as u32),
            Field::Long => {
                *bytes[at..].first_chunk_mut().expect("8 bytes") = value.to_le_bytes();
            }
            Field::Branch { first_bit, bits } => {
                let distance = value as i32;
                let rest = (value.wrapping_sub(distance as u64) >> 32) as u32;
                let mask = ((1 << bits) - 1) << first_bit;
                let words = ((distance >> 2) as u32) << first_bit;
                put_word(bytes, at, rest & !mask | words & mask);
            }
            Field::Page { words_behind, unit_bits } => {
                let value = value.wrapping_add(u64::from(spot & 0xfff));
                // The lower 33 bits, with a sign.
                let distance = (value << 31) as i64 >> 31;
                let rest = value.wrapping_sub(distance as u64) >> 33;
                let pages = (distance >> 12) as u32;
                let inside = rotated(distance as u32 & 0xfff, 12 - u32::from(unit_bits));
                let (first, second) = apart(rest);
                let first = first | pages << 29 & 0x6000_0000 | pages << 3 & 0x00ff_ffe0;
                put_word(bytes, at, first);
                put_word(bytes, at + 4 * usize::from(words_behind), second | inside << 10);
            }
        }
    }
}

/// Twelve bits, turned to the left.
fn rotated(bits: u32, count: u32) -> u32 {
    (bits << count | bits >> (12 - count)) & 0xfff
}

/// What two instructions are besides a page and a place in it: 11 and 20 bits.
fn besides(first: u32, second: u32) -> u64 {
    let first = first >> 31 << 10 | first >> 24 << 5 & 0x3e0 | first & 0x1f;
    let second = second >> 22 << 10 | second & 0x3ff;
    u64::from(first) << 20 | u64::from(second)
}

/// Undoes [`besides`].
fn apart(rest: u64) -> (u32, u32) {
    let (first, second) = ((rest >> 20) as u32, rest as u32 & 0xf_ffff);
    let first = first >> 10 << 31 | (first >> 5 & 0x1f) << 24 | first & 0x1f;
    (first, second >> 10 << 22 | second & 0x3ff)
}

/// A reference in the bytes that were scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Where its value starts.
    pub(crate) at: usize,
    pub(crate) field: Field,
    /// The spot that it refers to.
    pub(crate) target: u32,
    pub(crate) origin: Origin,
}

impl Reference {
    /// The reference that four bytes are, if they can be a spot: below code are headers only, and
    /// small numbers.
    pub(super) fn offset(space: &Space, bytes: &[u8], at: usize) -> Option<Reference> {
        let target = word(bytes, at);
        let is_spot = (space.code.start..space.loaded).contains(&target);
        is_spot.then_some(Reference { at, field: Field::Word, target, origin: Origin::Base })
    }
}

/// The four bytes at a place, as a number.
#[inline]
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("4 bytes"))
}

#[inline]
pub(super) fn put_word(bytes: &mut [u8], at: usize, word: u32) {
    *bytes[at..].first_chunk_mut().expect("4 bytes") = word.to_le_bytes();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field() -> impl Strategy<Value = Field> {
        let branch = prop::sample::select(&[(0, 26), (5, 19), (5, 14)][..]);
        prop_oneof![
            Just(Field::Word),
            Just(Field::Long),
            branch.prop_map(|(first_bit, bits)| Field::Branch { first_bit, bits }),
            (1u8..4, 0u8..5)
                .prop_map(|(words_behind, unit_bits)| Field::Page { words_behind, unit_bits }),
        ]
    }

    /// What is left without the bits of a value.
    fn besides(field: Field, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (at, mask) in field.words(4) {
            let rest = word(&bytes, at) & !mask;
            put_word(&mut bytes, at, rest);
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_as_it_was(
            field in field(),
            bytes: [u8; 24],
            spot: u32,
            garbage: [u8; 24],
        ) {
            let value = field.read(&bytes, 4, spot);
            let mut written = bytes;
            let words: Vec<(usize, u32)> = field.words(4).collect();
            for (at, _) in &words {
                written[*at..at + 4].copy_from_slice(&garbage[*at..at + 4]);
            }
            field.write(&mut written, 4, spot, value);
            prop_assert_eq!(written, bytes);
        }

        #[test]
        fn what_is_added_moves_the_target_alone(
            field in field(),
            bytes: [u8; 24],
            spots: [u32; 2],
            units in -200i64..200,
        ) {
            let unit = match field {
                Field::Word | Field::Long => 1,
                Field::Branch { .. } => 4,
                Field::Page { unit_bits, .. } => 1 << unit_bits,
            };
            // Distances in the middle of what there is room for, in whole units.
            let mut bytes = bytes;
            match field {
                Field::Word | Field::Long => {}
                Field::Branch { first_bit, bits } => {
                    let top = 3 << (first_bit + bits - 2);
                    let near = word(&bytes, 4) & !top;
                    put_word(&mut bytes, 4, near);
                }
                Field::Page { words_behind, unit_bits } => {
                    let near = word(&bytes, 4) & !0x00f0_0000;
                    put_word(&mut bytes, 4, near);
                    let second = 4 + 4 * usize::from(words_behind);
                    let inside = word(&bytes, second) & !(IN_PAGE_BITS << (12 - unit_bits) & IN_PAGE_BITS);
                    put_word(&mut bytes, second, inside);
                }
            }
            let [from, to] = spots.map(|spot| spot & !15);
            let value = field.read(&bytes, 4, from);
            let moved = value.wrapping_add_signed(unit * units);
            let mut written = bytes;
            field.write(&mut written, 4, to, moved);
            let again = field.read(&written, 4, to);
            match field.is_word() {
                true => prop_assert_eq!(again as u32, moved as u32),
                false => prop_assert_eq!(again, moved),
            }
            prop_assert_eq!(besides(field, &written), besides(field, &bytes));
        }

        #[test]
        fn any_values_are_written(field in field(), mut bytes: [u8; 24], spot: u32, value: u64) {
            field.write(&mut bytes, 4, spot, value);
        }
    }

    #[test]
    fn distances_are_those_of_the_instructions() {
        let read = |field: Field, words: &[u32], spot: u32| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            field.read(&bytes, 0, spot) as u32
        };
        let call = Field::Branch { first_bit: 0, bits: 26 };
        assert_eq!(read(call, &[0x9400_0001], 0), 4);
        assert_eq!(read(call, &[0x97ff_ffff], 0), -4i32 as u32);
        let condition = Field::Branch { first_bit: 5, bits: 19 };
        assert_eq!(read(condition, &[0x54ff_ffc1], 0), -8i32 as u32);
        // ADRP three pages on, and the eight bytes at 0x128 of that, from 0x40 of a page.
        let page = Field::Page { words_behind: 1, unit_bits: 3 };
        assert_eq!(read(page, &[0xf000_0000, 0xf940_9400], 0x5040), 0x3000 + 0x128 - 0x40);
        let back = Field::Page { words_behind: 1, unit_bits: 0 };
        assert_eq!(read(back, &[0xf0ff_ffe0, 0x9100_4000], 0x5000), 0x10u32.wrapping_sub(0x1000));
    }
}
