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
    /// Their places in the stretch, and their values.
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
    work.into_par_iter()
        .map(|(at, space, region, inside, bytes)| {
            let mut places = Vec::with_capacity(bytes.len() / 32);
            scan(space, region, inside, bytes, |reference| places.push(reference.at as u16));
            places.shrink_to_fit();
            let take = |place: &u16| {
                let field = &mut bytes[usize::from(*place)..usize::from(*place) + 4];
                let value = u32::from_le_bytes((&*field).try_into().expect("4 bytes"));
                field.fill(0);
                value
            };
            let values = places.iter().map(take).collect();
            Saved { range: at..at + bytes.len(), places, values }
        })
        .collect()
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
