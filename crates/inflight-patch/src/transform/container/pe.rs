//! PE, the container of Windows: by its sections, and by the directories that say where tables are in
//! them.

use std::ops::Range;

use super::{Reader, Stretch, space};
use crate::transform::references::space::{RegionKind, Space, spots_max};

/// The most sections read: no more than Windows loads.
const SECTIONS_MAX: usize = 96;

/// Bytes at the start that most images have their headers in.
const HEADERS_AT_MAX: u32 = 1 << 12;

const X86_64: u16 = 0x8664;
const AARCH64: u16 = 0xaa64;
/// What optional headers of 64-bit images start with.
const PE32_PLUS: u16 = 0x20b;

const EXECUTABLE: u32 = 0x2000_0000;
const WRITABLE: u32 = 0x8000_0000;
const DISCARDABLE: u32 = 0x0200_0000;

/// Numbers of directories.
const EXPORTS: usize = 0;
const IMPORTS: usize = 1;
const RESOURCES: usize = 2;
const FUNCTIONS: usize = 3;
const IMPORTED_ADDRESSES: usize = 12;
const DELAYED_IMPORTS: usize = 13;
const DIRECTORIES: usize = 16;

/// Bytes of a record of the table of functions.
const FUNCTION_BYTES: u32 = 12;

struct Section {
    /// Where it is in the file, and its spots: as many as there are bytes.
    file: Range<u32>,
    spot: u32,
    flags: u32,
}

impl Section {
    fn spots(&self) -> Range<u32> {
        self.spot..self.spot + (self.file.end - self.file.start)
    }
}

struct Image {
    /// What its code is.
    code: RegionKind,
    base: u64,
    /// Bytes that it takes when it is loaded.
    loaded: u32,
    sections: Vec<Section>,
    /// Spots of each directory.
    directories: [Range<u32>; DIRECTORIES],
}

/// Whether bytes start like a PE image, as far as there are any.
pub(super) fn starts_like_one(bytes: &[u8]) -> bool {
    let file = Reader(bytes);
    if !bytes.starts_with(b"MZ") {
        return false;
    }
    let Some(at) = file.word(0x3c).filter(|at| (0x40..HEADERS_AT_MAX).contains(at)) else {
        return false;
    };
    match file.bytes(at.into(), 4) {
        Some(signature) => signature == b"PE\0\0",
        None => (bytes.len() as u32) < at + 4,
    }
}

/// The regions of the PE image that `bytes` are, if that is what they are.
pub(super) fn parse(bytes: &[u8]) -> Option<Space> {
    if u32::try_from(bytes.len()).is_err() {
        return None;
    }
    let image = read(bytes)?;
    if u64::from(image.loaded) + bytes.len() as u64 > spots_max(bytes.len() as u64) {
        return None;
    }
    let mut position = 0;
    for section in &image.sections {
        let is_inside =
            section.file.end as usize <= bytes.len() && section.spots().end <= image.loaded;
        if section.file.start < position || !is_inside {
            return None;
        }
        position = section.file.end;
    }
    let tables = image.tables(bytes);
    let mut stretches = Vec::new();
    for section in &image.sections {
        let spots = section.spots();
        let mut position = spots.start;
        let mut push = |kind, to: u32| {
            let (start, length) = (section.file.start + (position - spots.start), to - position);
            stretches.push(Stretch { kind, start, length, spot: Some(position) });
            position = to;
        };
        let inside = |(range, _): &&(Range<u32>, RegionKind)| {
            spots.start <= range.start && range.start < spots.end
        };
        for (range, kind) in tables.iter().filter(inside) {
            push(section.kind(image.code), range.start);
            push(*kind, range.end.min(spots.end));
        }
        push(section.kind(image.code), spots.end);
    }
    space(image.base, image.loaded, bytes.len() as u32, &stretches)
}

fn read(bytes: &[u8]) -> Option<Image> {
    if !starts_like_one(bytes) {
        return None;
    }
    let file = Reader(bytes);
    let at = u64::from(file.word(0x3c)?);
    let (machine, count) = (file.half(at + 4)?, usize::from(file.half(at + 6)?));
    let (optional, optional_bytes) = (at + 24, u64::from(file.half(at + 20)?));
    let code = match machine {
        X86_64 => RegionKind::CodeX86,
        AARCH64 => RegionKind::CodeArm64,
        _ => return None,
    };
    if count > SECTIONS_MAX || file.half(optional)? != PE32_PLUS {
        return None;
    }
    let told = (file.word(optional + 108)? as usize).min(DIRECTORIES);
    let mut directories = [const { 0..0 }; DIRECTORIES];
    for (number, directory) in directories.iter_mut().enumerate().take(told) {
        let at = optional + 112 + 8 * number as u64;
        let (start, length) = (file.word(at)?, file.word(at + 4)?);
        *directory = start..start.checked_add(length)?;
    }
    let section = |number: usize| {
        let at = optional + optional_bytes + 40 * number as u64;
        // What is in the file is rounded up, or less than what is in memory.
        let length = file.word(at + 8)?.min(file.word(at + 16)?);
        let (spot, place) = (file.word(at + 12)?, file.word(at + 20)?);
        spot.checked_add(length)?;
        let file_range = place..place.checked_add(length)?;
        Some(Section { file: file_range, spot, flags: file.word(at + 36)? })
    };
    let mut sections = (0..count).map(section).collect::<Option<Vec<_>>>()?;
    sections.retain(|section| !section.file.is_empty());
    sections.sort_by_key(|section| section.file.start);
    let (base, loaded) = (file.long(optional + 24)?, file.word(optional + 56)?);
    Some(Image { code, base, loaded, sections, directories })
}

impl Section {
    /// What its bytes are that are in no table.
    fn kind(&self, code: RegionKind) -> RegionKind {
        match self.flags {
            flags if flags & EXECUTABLE != 0 => code,
            flags if flags & DISCARDABLE != 0 => RegionKind::Plain,
            flags if flags & WRITABLE != 0 => RegionKind::Pointers,
            _ => RegionKind::MixedConstants,
        }
    }
}

impl Image {
    /// Where in the file a spot is, and how many bytes of its section are from there on.
    fn place(&self, spot: u32) -> Option<Range<u64>> {
        let section = self.sections.iter().find(|section| section.spots().contains(&spot))?;
        let start = section.file.start + (spot - section.spot);
        Some(start.into()..section.file.end.into())
    }

    /// Where tables are, in spots, in order and apart, and what they are.
    fn tables(&self, bytes: &[u8]) -> Vec<(Range<u32>, RegionKind)> {
        // Of AArch64, records are of another form, and say all about unwinding in most cases.
        let (functions, has_unwind_information) = match self.code {
            RegionKind::CodeX86 => (RegionKind::Functions, true),
            _ => (RegionKind::Offsets, false),
        };
        let mut tables = vec![
            (self.directories[FUNCTIONS].clone(), functions),
            (self.directories[IMPORTS].clone(), RegionKind::Offsets),
            (self.directories[IMPORTED_ADDRESSES].clone(), RegionKind::Offsets),
            (self.directories[DELAYED_IMPORTS].clone(), RegionKind::Offsets),
            (self.directories[RESOURCES].clone(), RegionKind::Plain),
        ];
        let exports = self.exports(bytes).unwrap_or_default();
        tables.extend(exports.into_iter().map(|range| (range, RegionKind::Offsets)));
        let is_sound = |(range, _): &(Range<u32>, RegionKind)| {
            !range.is_empty() && self.place(range.start).is_some()
        };
        tables.retain(is_sound);
        let mut ends: Vec<u32> = tables.iter().map(|(range, _)| range.start).collect();
        ends.push(self.directories[EXPORTS].start);
        if let Some(range) =
            self.unwind_information(bytes, &ends).filter(|_| has_unwind_information)
        {
            tables.push((range, RegionKind::UnwindInformation));
        }
        tables.sort_by_key(|(range, _)| (range.start, range.end));
        let mut position = 0;
        tables.retain(|(range, _)| {
            let is_behind = range.start >= position;
            position = if is_behind { range.end } else { position };
            is_behind
        });
        tables
    }

    /// The tables of exported functions and of their names, one spot each.
    fn exports(&self, bytes: &[u8]) -> Option<[Range<u32>; 2]> {
        let file = Reader(bytes);
        let at = self.place(self.directories[EXPORTS].start)?.start;
        let table = |count: u64, table: u64| {
            let (count, start) = (file.word(at + count)?, file.word(at + table)?);
            Some(start..start.checked_add(count.checked_mul(4)?)?)
        };
        Some([table(20, 28)?, table(24, 32)?])
    }

    /// What functions say about unwinding them: from the first such piece in its section to the table
    /// behind the last, of which these are the starts.
    fn unwind_information(&self, bytes: &[u8], tables: &[u32]) -> Option<Range<u32>> {
        let functions = &self.directories[FUNCTIONS];
        let place = self.place(functions.start)?;
        let length = u64::from(functions.end - functions.start).min(place.end - place.start);
        let records = bytes.get(place.start as usize..(place.start + length) as usize)?;
        let records = records.chunks_exact(FUNCTION_BYTES as usize);
        let spots = records.map(|record| {
            u32::from_le_bytes(*record.last_chunk().expect("a record is longer")) & !3
        });
        let first = spots.clone().find(|spot| *spot > 0)?;
        let section = self.sections.iter().find(|section| section.spots().contains(&first))?;
        let inside = || spots.clone().filter(|spot| section.spots().contains(spot));
        let (start, last) = (inside().min()?, inside().max()?);
        let behind = tables.iter().copied().filter(|table| *table > last);
        Some(start..behind.min().unwrap_or(u32::MAX).min(section.spots().end))
    }
}

#[cfg(test)]
mod tests {
    use super::super::program::windows_program;
    use super::super::{covers, parse as parse_any};
    use super::*;

    fn image() -> Vec<u8> {
        windows_program(&(0..100).collect::<Vec<u32>>())
    }

    /// Where the header of a section is.
    fn header(number: usize) -> usize {
        0x98 + 240 + 40 * number
    }

    fn put(image: &mut [u8], at: usize, word: u32) {
        image[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    #[test]
    fn regions_cover_the_file_and_have_their_kinds() {
        let image = image();
        let space = parse_any(&image).expect("an executable");
        assert!(covers(&space, image.len()));
        let regions = space.regions.iter().filter(|region| region.kind != RegionKind::Plain);
        let kinds: Vec<RegionKind> = regions.clone().map(|region| region.kind).collect();
        use RegionKind::{CodeX86, Functions, MixedConstants, Offsets, UnwindInformation};
        // Exported functions and their names are next to each other, with more behind them.
        let expected = [
            CodeX86,
            MixedConstants,
            UnwindInformation,
            MixedConstants,
            Offsets,
            Offsets,
            MixedConstants,
            Functions,
        ];
        assert_eq!(kinds, expected);
        let lengths: Vec<u32> = regions.map(|region| region.length).collect();
        assert_eq!(lengths[1..6], [800, 2400, 40, 400, 400]);
        assert_eq!(lengths[7], 1200);
        assert_eq!(space.base, 0x1_8000_0000);
        assert_eq!(space.code.start, 0x1000);
    }

    #[test]
    fn what_is_cut_off_or_of_another_machine_is_none() {
        let image = image();
        // Behind the last record are zeros.
        let records = 1200;
        let last = image[header(2) + 20..].first_chunk().expect("a place");
        let end = u32::from_le_bytes(*last) as usize + records;
        assert!(parse(&image[..end]).is_some());
        for end in [0, 1, 2, 63, 64, 0x83, 0x97, 0x200, 1000, end - 1] {
            assert_eq!(parse(&image[..end]), None, "{end} bytes");
        }
        for (at, byte) in [(0, b'X'), (0x81, b'X'), (0x84, 0x4c), (0x99, 1), (0x3d, 0xff)] {
            let mut other = image.clone();
            other[at] = byte;
            assert_eq!(parse(&other), None, "{byte} at {at}");
        }
    }

    #[test]
    fn images_for_aarch64_have_records_of_another_form() {
        let mut image = image();
        image[0x84..0x86].copy_from_slice(&AARCH64.to_le_bytes());
        let space = parse(&image).expect("an executable");
        let kinds: Vec<RegionKind> = space.regions.iter().map(|region| region.kind).collect();
        assert!(kinds.contains(&RegionKind::CodeArm64));
        assert_eq!(kinds.iter().filter(|kind| **kind == RegionKind::Offsets).count(), 3);
        assert!(!kinds.contains(&RegionKind::Functions));
        assert!(!kinds.contains(&RegionKind::UnwindInformation));
    }

    #[test]
    fn headers_behind_what_was_read_may_be_there() {
        let mut start = image()[..512].to_vec();
        assert!(starts_like_one(&start));
        put(&mut start, 0x3c, 510);
        assert!(starts_like_one(&start), "the signature is not all there");
        put(&mut start, 0x3c, 508);
        assert!(!starts_like_one(&start), "no signature");
        put(&mut start, 0x3c, 1 << 20);
        assert!(!starts_like_one(&start), "no image has it so far behind");
    }

    #[test]
    fn sections_that_overlap_or_lie_outside_make_no_executable() {
        let (second, third) = (header(1), header(2));
        let place = image()[header(0) + 20..][..4].to_vec();
        for (at, bytes) in [
            (second + 20, &place[..]),
            // Spots that wrap around, and behind all that is loaded.
            (third + 12, &[0xff; 4]),
            (third + 12, &[0, 0, 0xff, 0]),
            (third + 20, &[0xf0, 0xff, 0xff, 0xff]),
        ] {
            let mut image = image();
            image[at..at + 4].copy_from_slice(bytes);
            assert_eq!(parse(&image), None, "{bytes:?} at {at}");
        }
        let mut image = image();
        put(&mut image, 0x98 + 56, u32::MAX);
        assert_eq!(parse(&image), None, "far larger in memory than in its file");
    }

    #[test]
    fn directories_say_where_imports_and_resources_are() {
        let mut image = image();
        let word = |at: usize| Reader(&image).word(at as u64).expect("it is there");
        let (section, start) = (word(header(1) + 12), word(header(1) + 20));
        let tables = [IMPORTS, RESOURCES, IMPORTED_ADDRESSES, DELAYED_IMPORTS];
        for (place, number) in tables.into_iter().enumerate() {
            put(&mut image, 0x98 + 112 + 8 * number, section + 200 * place as u32);
            put(&mut image, 0x98 + 116 + 8 * number, 100);
        }
        let space = parse(&image).expect("an executable");
        assert!(covers(&space, image.len()));
        let first = space.region_at(start);
        let found: Vec<_> = space.regions[first..].iter().map(|it| (it.kind, it.length)).collect();
        use RegionKind::{MixedConstants, Offsets, Plain};
        let constants = (MixedConstants, 100);
        let expected =
            [[(Offsets, 100), constants], [(Plain, 100), constants], [(Offsets, 100), constants]];
        assert_eq!(found[..6], *expected.as_flattened());
        assert_eq!(found[6], (Offsets, 100));
    }

    #[test]
    fn directories_that_lie_nowhere_or_overlap_are_left_out() {
        let directory = |number: usize| 0x98 + 112 + 8 * number;
        let kinds = |change: &dyn Fn(&mut [u8])| {
            let mut image = image();
            change(&mut image);
            let space = parse(&image).expect("an executable");
            assert!(covers(&space, image.len()));
            space.regions.iter().map(|region| region.kind).collect::<Vec<_>>()
        };
        let nowhere = kinds(&|image| put(image, directory(FUNCTIONS), 0x00f0_0000));
        assert!(!nowhere.contains(&RegionKind::Functions));
        assert!(!nowhere.contains(&RegionKind::UnwindInformation), "nobody says where it is");
        // In the middle of exported names.
        let inside = kinds(&|image| {
            let exports = image[directory(EXPORTS)..][..4].to_vec();
            let exports = u32::from_le_bytes(exports.try_into().expect("4 bytes"));
            put(image, directory(IMPORTS), exports + 40 + 100);
            put(image, directory(IMPORTS) + 4, 1 << 20);
        });
        assert_eq!(inside.iter().filter(|kind| **kind == RegionKind::Offsets).count(), 2);
        let without = kinds(&|image| put(image, 0x98 + 108, 0));
        assert!(without.iter().all(|kind| !matches!(kind, RegionKind::Offsets)));
    }
}
