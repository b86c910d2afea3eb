//! Recognising references by what stands in the bytes themselves.
//!
//! A scan sees one stretch of a region and nothing around it, so that a decoder needs no more than
//! the bytes it copies. What it takes for a reference need not be one: a wrong guess costs a few
//! bytes of the patch, never a wrong result.

use super::reference::{Field, Origin, Reference, word};
use super::space::{Region, RegionKind, Space};
use super::{arm64, functions, x86};

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
        RegionKind::CodeArm64 => arm64::scan(space, spot, bytes, found),
        RegionKind::Constants => scan_constants(space, spot, bytes, false, found),
        RegionKind::MixedConstants => scan_constants(space, spot, bytes, true, found),
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
        RegionKind::ShortSymbols => {
            let mut slots = Slots { space, bytes, found };
            slots.each(inside, 16, |slots, at| {
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
                    found(Reference { at, field: Field::Word, target, origin: Origin::Region });
                }
                at += 4;
            }
        }
        RegionKind::UnwindEntries => scan_unwind(space, region, inside, bytes, Field::Word, found),
        RegionKind::LongUnwindEntries => {
            scan_unwind(space, region, inside, bytes, Field::Long, found)
        }
        RegionKind::Offsets => {
            let first = (inside.wrapping_neg() % 4) as usize;
            let places = (first..bytes.len().saturating_sub(3)).step_by(4);
            places.filter_map(|at| Reference::offset(space, bytes, at)).for_each(found);
        }
        RegionKind::Functions => functions::scan(space, inside, bytes, found),
        RegionKind::UnwindInformation => functions::scan_unwind(space, spot, bytes, found),
    }
}

/// Rewrites the references in bytes that are no copy, a stretch of `region` from `inside` on, so
/// that the same is said in the same way: of code, where each leads; of functions and what is said about
/// unwinding them, how far each is from the one before.
pub(crate) fn make_alike(space: &Space, region: &Region, inside: u32, bytes: &mut [u8]) {
    let spot = region.spot.wrapping_add(inside);
    match region.kind {
        RegionKind::CodeX86 => x86::make_absolute(space, spot, bytes),
        RegionKind::CodeArm64 => arm64::make_absolute(spot, bytes),
        RegionKind::Functions => functions::make_alike(inside, bytes),
        RegionKind::UnwindInformation => functions::make_unwind_alike(space, spot, bytes),
        _ => {}
    }
}

/// Undoes [`make_alike`].
pub(crate) fn make_different(space: &Space, region: &Region, inside: u32, bytes: &mut [u8]) {
    let spot = region.spot.wrapping_add(inside);
    match region.kind {
        RegionKind::CodeX86 => x86::make_relative(space, spot, bytes),
        RegionKind::CodeArm64 => arm64::make_relative(spot, bytes),
        RegionKind::Functions => functions::make_different(inside, bytes),
        RegionKind::UnwindInformation => functions::make_unwind_different(space, spot, bytes),
        _ => {}
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
            (self.found)(Reference { at, field: Field::Long, target, origin: Origin::Zero });
        }
    }

    fn name(&mut self, at: usize, region: &Region) {
        let Some(names) = self.space.regions.get(region.link as usize) else { return };
        let value = word(self.bytes, at);
        if value < names.length && value > 0 {
            let target = names.spot + value;
            (self.found)(Reference { at, field: Field::Word, target, origin: Origin::Names });
        }
    }
}

/// How far apart the targets of neighbours in a jump table are, at most.
const JUMP_TABLE_REACH: u32 = 16 << 10;

/// Entries of jump tables are offsets of code from the start of their table, which is taken to be
/// where entries begin to lead to the same stretch of code. Where constants are `mixed`, there are
/// addresses of eight bytes as well.
fn scan_constants(
    space: &Space,
    spot: u32,
    bytes: &[u8],
    mixed: bool,
    mut found: impl FnMut(Reference),
) {
    let mut at = (spot.wrapping_neg() % 4) as usize;
    // Where the table starts, and the entry before.
    let mut table: Option<(u32, u32)> = None;
    while at + 4 <= bytes.len() {
        let here = spot.wrapping_add(at as u32);
        if mixed && here.is_multiple_of(8) && at + 8 <= bytes.len() {
            let target = long(bytes, at).wrapping_sub(space.base);
            if (u64::from(space.code.start)..u64::from(space.loaded)).contains(&target) {
                let target = target as u32;
                found(Reference { at, field: Field::Long, target, origin: Origin::Zero });
                table = None;
                at += 8;
                continue;
            }
        }
        let value = word(bytes, at);
        let goes_on = |(_, before): &(u32, u32)| {
            value.wrapping_sub(*before).wrapping_add(JUMP_TABLE_REACH) <= 2 * JUMP_TABLE_REACH
        };
        let start = table.filter(goes_on).map_or(here, |(start, _)| start);
        let target = start.wrapping_add(value);
        table = space.code.contains(&target).then_some((start, value));
        if table.is_some() {
            found(Reference { at, field: Field::Word, target, origin: Origin::Itself });
        }
        at += 4;
    }
}

/// Entries of an `.eh_frame`: length, distance to the common entry, start of the function, its
/// length, and perhaps where its exception table is; the last three as `field` has it.
#[inline]
fn scan_unwind(
    space: &Space,
    region: &Region,
    inside: u32,
    bytes: &[u8],
    field: Field,
    mut found: impl FnMut(Reference),
) {
    let width = field.bytes();
    let number = |at: usize| field.read(bytes, at, 0);
    // Where the value at a place leads, whose spot that is.
    let target = |at: usize, spot: u32| match field {
        Field::Word => u64::from(spot.wrapping_add(word(bytes, at))),
        _ => u64::from(spot).wrapping_add(number(at)),
    };
    let code = u64::from(space.code.start)..u64::from(space.code.end);
    let mut at = (inside.wrapping_neg() % 4) as usize;
    while at + 8 + 2 * width <= bytes.len() {
        let here = inside + at as u32;
        let (length, distance) = (word(bytes, at), word(bytes, at + 4));
        let spot = region.spot + here;
        let (start, size) = (target(at + 8, spot + 8), number(at + 8 + width));
        let is_entry = length.is_multiple_of(4)
            && (4 + 2 * width..1 << 16).contains(&(length as usize))
            && distance > 0
            && distance.is_multiple_of(4)
            && distance <= here + 4
            && code.contains(&start)
            && size <= code.end - start;
        if !is_entry {
            at += 4;
            continue;
        }
        let common = spot + 4 - distance;
        found(Reference { at: at + 4, field: Field::Word, target: common, origin: Origin::Behind });
        let mut lead = |at: usize, target: u64| {
            found(Reference { at, field, target: target as u32, origin: Origin::Itself });
        };
        lead(at + 8, start);
        // Behind a byte that says how long it is.
        let table = 9 + 2 * width;
        let has_table = length as usize + 4 >= table + width
            && at + table + width <= bytes.len()
            && usize::from(bytes[at + table - 1]) == width;
        if has_table {
            let target = target(at + table, spot + table as u32);
            if number(at + table) != 0 && target < space.loaded.into() {
                lead(at + table, target);
            }
        }
        at += 4 + length as usize;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space(kind: RegionKind, length: u32) -> (Space, Region) {
        let region = Region { kind, start: 0, length, spot: 0x40_0000, link: 0 };
        let code = 0x1000..0x30_0000;
        (Space { regions: vec![region], base: 1 << 32, loaded: 0x50_0000, code }, region)
    }

    fn scanned(kind: RegionKind, inside: u32, words: &[u32]) -> Vec<(usize, usize, u32)> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (space, region) = space(kind, inside + bytes.len() as u32);
        let mut found = Vec::new();
        scan(&space, &region, inside, &bytes, |reference| {
            found.push((reference.at, reference.field.bytes(), reference.target));
        });
        found
    }

    #[test]
    fn spots_are_where_code_or_what_is_behind_it_is() {
        let words = [0xfff, 0x1000, 0x4f_ffff, 0x50_0000, u32::MAX];
        let expected = [(4, 4, 0x1000), (8, 4, 0x4f_ffff)];
        assert_eq!(scanned(RegionKind::Offsets, 8, &words), expected);
    }

    #[test]
    fn long_unwind_entries_say_where_functions_and_their_tables_are() {
        let spot = |at: u32| 0x40_0000 + at;
        let away = |target: u32, at: u32| u64::from(target).wrapping_sub(spot(at).into());
        // A common entry, and one for a function of 16 bytes with a table.
        let mut bytes = [&12u32.to_le_bytes()[..], &[0; 12]].concat();
        bytes.extend([32u32, 20].map(u32::to_le_bytes).concat());
        bytes.extend([away(0x2000, 24), 16].map(u64::to_le_bytes).concat());
        bytes.push(8);
        bytes.extend(away(0x41_0000, 41).to_le_bytes());
        bytes.extend([0; 3]);
        let scanned = |bytes: &[u8]| {
            let (space, region) = space(RegionKind::LongUnwindEntries, bytes.len() as u32);
            let mut found = Vec::new();
            scan(&space, &region, 0, bytes, |it| found.push((it.at, it.field, it.target)));
            found
        };
        let entry = [(20, Field::Word, spot(0)), (24, Field::Long, 0x2000)];
        let table = [(41, Field::Long, 0x41_0000)];
        assert_eq!(scanned(&bytes), [&entry[..], &table].concat());
        assert_eq!(scanned(&bytes[..49]), [&entry[..], &table].concat());
        assert_eq!(scanned(&bytes[..48]), entry, "of the table, not all is there");
        assert_eq!(scanned(&bytes[..39]), [], "of the entry, not all is there");
        bytes[40] = 0;
        assert_eq!(scanned(&bytes), entry, "it has no table");
    }

    #[test]
    fn addresses_and_jump_tables_are_found_among_constants() {
        let table = |at: u32| 0x2000u32.wrapping_sub(0x40_0000 + at);
        let words = [0x2000, 1, 77, 1, table(16), table(16) + 8, 0x2040, 1];
        let tables = [(16, 4, 0x2000), (20, 4, 0x2008)];
        let mixed = [&[(0, 8, 0x2000)], &tables[..], &[(24, 8, 0x2040)]].concat();
        // 77 is no spot of code, though a spot.
        assert_eq!(scanned(RegionKind::MixedConstants, 0, &words), mixed);
        assert_eq!(scanned(RegionKind::Constants, 0, &words), tables);
    }

    /// Words among which spots are likely, near each other and far, and some instructions.
    fn words() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            any::<u32>(),
            0u32..0x60_0000,
            0x20_0000u32..0x22_0000,
            any::<u32>().prop_map(|word| word >> 4 | 0x9000_0000),
        ];
        let bytes = |words: Vec<u32>| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        prop::collection::vec(word, 0..80).prop_map(bytes)
    }

    proptest! {
        #[test]
        fn what_was_made_alike_is_made_different_again(
            kind in prop::sample::select(&[
                RegionKind::CodeX86,
                RegionKind::CodeArm64,
                RegionKind::Functions,
                RegionKind::UnwindInformation,
            ][..]),
            bytes in words(),
            cut in 0usize..4,
            inside in 0u32..100,
            loaded in prop_oneof![Just(0x50_0000u32), 0u32..0x60_0000],
            start in 0u32..0x1000,
        ) {
            let bytes = &bytes[cut.min(bytes.len())..];
            let (mut space, region) = space(kind, inside + bytes.len() as u32);
            (space.loaded, space.code.start) = (loaded, start);
            let mut changed = bytes.to_vec();
            make_alike(&space, &region, inside, &mut changed);
            make_different(&space, &region, inside, &mut changed);
            prop_assert_eq!(&changed[..], bytes);
        }
    }
}
