//! Code without its references: zeroed in place, and put back.

use std::ops::Range;

use rayon::prelude::*;

use crate::transform::references::scan::scan;
use crate::transform::references::space::Space;

/// Bytes of code scanned as one piece of work: places in it fit into 16 bits, as there are millions
/// of them.
const SCAN_BYTES: usize = 1 << 16;

/// References that were zeroed in one stretch.
#[derive(Debug)]
pub(super) struct Saved {
    range: Range<usize>,
    /// The places in the stretch of words with them, and what stood there.
    places: Vec<u16>,
    values: Vec<u32>,
}

/// Zeroes the references in all code of an image.
pub(super) fn zero<'a>(
    image: &mut [u8],
    executables: impl Iterator<Item = (u64, &'a Space)>,
) -> Vec<Saved> {
    let mut work = Vec::new();
    let mut rest = image;
    let mut position = 0;
    for (start, space) in executables {
        for region in space.regions.iter().filter(|region| region.kind.is_code()) {
            let mut inside = 0;
            while inside < region.length {
                let length = (region.length - inside).min(SCAN_BYTES as u32);
                let at = start as usize + (region.start + inside) as usize;
                let (_, behind) = rest.split_at_mut(at - position);
                let (bytes, behind) = behind.split_at_mut(length as usize);
                work.push((at, space, region, inside, bytes));
                position = at + length as usize;
                rest = behind;
                inside += length;
            }
        }
    }
    let zero = |fields: &mut Vec<(u16, u32)>, (at, space, region, inside, bytes)| {
        let bytes: &mut [u8] = bytes;
        fields.clear();
        scan(space, region, inside, bytes, |reference| {
            let words = reference.field.words(reference.at);
            fields.extend(words.map(|(place, mask)| (place as u16, mask)));
        });
        let take = |(place, mask): &(u16, u32)| {
            let field = &mut bytes[usize::from(*place)..usize::from(*place) + 4];
            let word = u32::from_le_bytes((&*field).try_into().expect("4 bytes"));
            field.copy_from_slice(&(word & !mask).to_le_bytes());
            word
        };
        let values = fields.iter().map(take).collect();
        let places = fields.iter().map(|(place, _)| *place).collect();
        Saved { range: at..at + bytes.len(), places, values }
    };
    work.into_par_iter().map_init(Vec::new, zero).collect()
}

/// Puts back what was zeroed.
pub(super) fn restore(image: &mut [u8], saved: Vec<Saved>) {
    let mut work = Vec::with_capacity(saved.len());
    let mut rest = image;
    let mut position = 0;
    for stretch in saved {
        let (_, behind) = rest.split_at_mut(stretch.range.start - position);
        let (bytes, behind) = behind.split_at_mut(stretch.range.len());
        position = stretch.range.end;
        rest = behind;
        work.push((bytes, stretch.places, stretch.values));
    }
    work.into_par_iter().for_each(|(bytes, places, values)| {
        for (place, value) in places.into_iter().zip(values) {
            bytes[usize::from(place)..usize::from(place) + 4].copy_from_slice(&value.to_le_bytes());
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transform::references::space::{Region, RegionKind};

    proptest! {
        #[test]
        fn what_was_zeroed_is_put_back(
            kind in prop::sample::select(&[RegionKind::CodeX86, RegionKind::CodeArm64][..]),
            words in prop::collection::vec(
                prop_oneof![
                    any::<u32>(),
                    // What leads to what is near; pages, and what is in them.
                    any::<u32>().prop_map(|it| it & 0x97ff_ffff & !0x03ff_0000 | 0x9400_0000),
                    any::<u32>().prop_map(|it| it & 0x6000_0001 | 0x9000_0000),
                    any::<u32>().prop_map(|it| it & 0x003f_fc3f | 0x9100_0000),
                    any::<u32>().prop_map(|it| it & 0xff | 0xe8 << 24),
                ],
                0..300,
            ),
            start in 0usize..9,
            // So far from the end of a stretch.
            before in prop::option::of(0usize..600),
        ) {
            let before = before.map_or(0, |before| (SCAN_BYTES - before) / 4);
            let words = std::iter::repeat_n(&0xd503_201fu32, before).chain(&words);
            let code: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
            let length = code.len() as u32;
            let region = Region { kind, start: 0, length, spot: 0, link: 0 };
            let space =
                Space { regions: vec![region], loaded: 1 << 20, code: 0..1 << 19, ..Space::default() };
            let image = [&[7; 9][..start], &code].concat();
            let mut changed = image.clone();
            let saved = zero(&mut changed, std::iter::once((start as u64, &space)));
            for saved in &saved {
                for (place, value) in saved.places.iter().zip(&saved.values) {
                    let at = saved.range.start + usize::from(*place);
                    prop_assert_eq!(&image[at..at + 4], value.to_le_bytes());
                    let zeroed = u32::from_le_bytes(changed[at..at + 4].try_into().expect("4 bytes"));
                    prop_assert!(zeroed & value == zeroed);
                    prop_assert!(zeroed == 0 || kind != RegionKind::CodeX86);
                }
            }
            restore(&mut changed, saved);
            prop_assert_eq!(changed, image);
        }
    }
}
