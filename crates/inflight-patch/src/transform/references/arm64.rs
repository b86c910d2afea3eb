//! References in AArch64 machine code: branches, and addresses that take two instructions. Every
//! instruction is four bytes, so all are looked at.

use super::reference::{Field, Origin, Reference, put_word, word};
use super::space::Space;

/// Words behind a page among which the instruction is that says where in it.
const PAGE_REACH: usize = 16;

/// Calls `found` for each reference in `bytes`, whose first has this spot.
#[inline]
pub(super) fn scan(space: &Space, spot: u32, bytes: &[u8], mut found: impl FnMut(Reference)) {
    for at in instructions(spot, bytes) {
        let instruction = word(bytes, at);
        let reference = |field: Field| {
            let here = spot.wrapping_add(at as u32);
            let target = here.wrapping_add(distance(field, bytes, at, here));
            Reference { at, field, target, origin: Origin::Itself }
        };
        if let Some(field) = branch(instruction) {
            let reference = reference(field);
            if space.code.contains(&reference.target) {
                found(reference);
            }
        } else if is_page(instruction)
            && let Some(field) = page(bytes, at)
        {
            let reference = reference(field);
            if reference.target < space.loaded {
                found(reference);
            }
        }
    }
}

/// How far a reference leads, modulo 2^32: what its instructions are besides stands above that.
fn distance(field: Field, bytes: &[u8], at: usize, here: u32) -> u32 {
    field.read(bytes, at, here) as u32
}

/// Where the instructions among bytes are that start at a spot.
fn instructions(spot: u32, bytes: &[u8]) -> impl Iterator<Item = usize> + use<> {
    ((spot.wrapping_neg() % 4) as usize..bytes.len().saturating_sub(3)).step_by(4)
}

/// Where the distance of a branch stands, if this is one.
fn branch(instruction: u32) -> Option<Field> {
    match instruction >> 24 {
        // B, BL
        0x14..=0x17 | 0x94..=0x97 => Some(Field::Branch { first_bit: 0, bits: 26 }),
        // B.cond, CBZ, CBNZ
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Some(Field::Branch { first_bit: 5, bits: 19 }),
        // TBZ, TBNZ
        0x36 | 0x37 | 0xb6 | 0xb7 => Some(Field::Branch { first_bit: 5, bits: 14 }),
        _ => None,
    }
}

/// Whether this is ADRP.
fn is_page(instruction: u32) -> bool {
    instruction & 0x9f00_0000 == 0x9000_0000
}

/// The address that starts with the ADRP at a place, if what says where in the page it is, the next
/// to use its register so, is near.
fn page(bytes: &[u8], at: usize) -> Option<Field> {
    let register = word(bytes, at) & 0x1f;
    let behind = bytes[at + 4..].chunks_exact(4).take(PAGE_REACH);
    for (number, instruction) in behind.enumerate() {
        let instruction = word(instruction, 0);
        if is_page(instruction) && instruction & 0x1f == register {
            return None;
        }
        if instruction >> 5 & 0x1f != register {
            continue;
        }
        let unit_bits = match instruction {
            // ADD
            it if it & 0xffc0_0000 == 0x9100_0000 => 0,
            // Loads and stores: those of vectors of 16 bytes, and others, by their size.
            it if it & 0xff80_0000 == 0x3d80_0000 => 4,
            it if it & 0x3b00_0000 == 0x3900_0000 => (it >> 30) as u8,
            _ => continue,
        };
        return Some(Field::Page { words_behind: number as u8 + 1, unit_bits });
    }
    None
}

/// Rewrites calls and pages in code that is no copy, so that each says where it leads in place of how
/// far: then the same target is the same bits wherever it is used.
pub(super) fn make_absolute(spot: u32, bytes: &mut [u8]) {
    change(spot, bytes, u32::wrapping_add);
}

/// Undoes [`make_absolute`].
pub(super) fn make_relative(spot: u32, bytes: &mut [u8]) {
    change(spot, bytes, u32::wrapping_sub);
}

/// Changes numbers of words in calls and of pages by that of where they stand.
fn change(spot: u32, bytes: &mut [u8], change: fn(u32, u32) -> u32) {
    for at in instructions(spot, bytes) {
        let (instruction, here) = (word(bytes, at), spot.wrapping_add(at as u32));
        let changed = match instruction {
            it if it & 0xfc00_0000 == 0x9400_0000 => {
                it & 0xfc00_0000 | change(it, here >> 2) & 0x03ff_ffff
            }
            it if is_page(it) => {
                let pages = change(it >> 29 & 3 | it >> 3 & 0x1f_fffc, here >> 12);
                it & 0x9f00_001f | pages << 29 & 0x6000_0000 | pages << 3 & 0x00ff_ffe0
            }
            _ => continue,
        };
        put_word(bytes, at, changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOT: u32 = 0x1000;

    fn bytes(instructions: &[u32]) -> Vec<u8> {
        instructions.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn scanned(instructions: &[u32]) -> Vec<(usize, u32)> {
        let space = Space { loaded: 0x9000, code: 0x800..0x8000, ..Space::default() };
        let mut found = Vec::new();
        scan(&space, SPOT, &bytes(instructions), |reference| {
            found.push((reference.at, reference.target));
        });
        found
    }

    #[test]
    fn branches_are_found() {
        let found = scanned(&[0x9400_0001, 0x17ff_ffff, 0x54ff_ffc1, 0xb400_0040, 0x3600_0041]);
        let expected = [(0, 0x1004), (4, 0x1000), (8, 0x1000), (12, 0x1014), (16, 0x1018)];
        assert_eq!(found, expected);
        assert_eq!(scanned(&[0x9500_0000, 0xd65f_03c0]), [], "not in code, and no branch");
    }

    #[test]
    fn addresses_of_two_instructions_are_found() {
        // ADRP X0 three pages on; an addition of others; LDR X1, [X0, #0x128].
        assert_eq!(scanned(&[0xf000_0000, 0x8b02_0043, 0xf940_9401]), [(0, 0x4128)]);
        // ADD X0, X0, #0x128; LDRB W1, [X0, #0x4a]; LDR Q1, [X0, #0x250].
        assert_eq!(scanned(&[0xf000_0000, 0x9104_a000]), [(0, 0x4128)]);
        assert_eq!(scanned(&[0xf000_0000, 0x3941_2801]), [(0, 0x404a)]);
        assert_eq!(scanned(&[0xf000_0000, 0x3dc0_9401]), [(0, 0x4250)]);
        // Two at once, each with its register.
        let two = [0xf000_0000, 0xf000_0021, 0x9104_a021, 0x9104_a000];
        assert_eq!(scanned(&two), [(0, 0x4128), (4, 0x8128)]);
    }

    #[test]
    fn pages_that_nobody_uses_are_none() {
        assert_eq!(scanned(&[0xf000_0000, 0x9104_a021]), [], "another register");
        assert_eq!(scanned(&[0xf000_0000, 0xf000_0000, 0x9104_a000]), [(4, 0x4128)]);
        let far = [&[0xf000_0000], &[0x8b02_0043; PAGE_REACH][..], &[0x9104_a000]].concat();
        assert_eq!(scanned(&far), [], "too far");
        assert_eq!(scanned(&far[..PAGE_REACH]), [], "cut off");
        assert_eq!(scanned(&[0xf000_0000, 0xf940_0000 | 0x3f_fc00]), [(0, 0x4fff)], "turned");
        assert_eq!(scanned(&[0x9004_0000, 0x9104_a000]), [], "not loaded");
    }

    #[test]
    fn the_same_target_is_the_same_bits() {
        // Two calls of one function, and one page, from two places.
        let mut code = bytes(&[0x9400_0010, 0xf000_0000, 0x9400_000e, 0xf000_0000]);
        make_absolute(SPOT, &mut code);
        assert_eq!(word(&code, 0), 0x9400_0410);
        assert_eq!(word(&code, 0), word(&code, 8));
        assert_eq!(word(&code, 4), 0x9000_0020, "page 4");
        assert_eq!(word(&code, 4), word(&code, 12));
    }
}
