//! Mach-O, the container of macOS: by its load commands. A universal file holds one image for each machine.

use super::{Reader, Stretch, space};
use crate::transform::references::space::{RegionKind, Space, spots_max};

/// The most load commands, and bytes of them, that are read.
const COMMANDS_MAX: u32 = 4096;
const COMMAND_BYTES_MAX: u64 = 1 << 20;
/// The most images in a universal file.
const IMAGES_MAX: u32 = 16;

const X86_64: u32 = 0x0100_0007;
const AARCH64: u32 = 0x0100_000c;

const SEGMENT: u32 = 0x19;
const SYMBOLS: u32 = 2;

/// Of a section's flags: what it is, and whether it holds instructions.
const TYPE: u32 = 0xff;
const INSTRUCTIONS: u32 = 0x8000_0400;
/// Types of sections that are not in the file.
const ZEROED: [u32; 3] = [0x01, 0x0c, 0x12];

/// Bytes of a symbol.
const SYMBOL_BYTES: u32 = 16;

struct Section<'a> {
    name: &'a [u8],
    segment: &'a [u8],
    address: u64,
    size: u64,
    offset: u32,
    flags: u32,
}

struct Image<'a> {
    code: RegionKind,
    /// The lowest address, and how many are loaded.
    base: u64,
    loaded: u64,
    sections: Vec<Section<'a>>,
    /// Where symbols are in the file, and their names: start and length of each.
    symbols: Option<[(u32, u32); 2]>,
}

/// Whether bytes start like a 64-bit little-endian Mach-O image.
pub(super) fn starts_like_one(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xcf\xfa\xed\xfe")
}

/// Whether bytes start like a universal file.
pub(super) fn starts_like_universal(bytes: &[u8]) -> bool {
    // Class files of Java start so as well; they have other numbers where images are counted.
    bytes.starts_with(b"\xca\xfe\xba\xbe") && big_word(bytes, 4).is_some_and(|n| n <= IMAGES_MAX)
}

/// Where the images of a universal file are: start and length of each.
pub(super) fn images(bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
    let count = big_word(bytes, 4).filter(|_| starts_like_universal(bytes))?;
    let image = |number: u32| {
        let at = 8 + 20 * number as usize;
        Some((big_word(bytes, at + 8)?.into(), big_word(bytes, at + 12)?.into()))
    };
    (0..count).map(image).collect()
}

fn big_word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The regions of the Mach-O image that `bytes` are, if that is what they are.
pub(super) fn parse(bytes: &[u8]) -> Option<Space> {
    let length = u32::try_from(bytes.len()).ok()?;
    let image = read(bytes)?;
    let spots = image.loaded.checked_add(length.into())?;
    if spots > spots_max(length.into()) {
        return None;
    }
    let mut stretches = Vec::new();
    // The first section is behind the headers, which are loaded as well.
    if let Some(first) = image.sections.iter().min_by_key(|section| section.offset)
        && first.address - image.base == first.offset.into()
    {
        let (kind, length) = (RegionKind::Plain, first.offset);
        stretches.push(Stretch { kind, start: 0, length, spot: Some(0) });
    }
    for section in &image.sections {
        let end = u64::from(section.offset).checked_add(section.size)?;
        if end > length.into() {
            return None;
        }
        stretches.push(Stretch {
            kind: section.kind(image.code),
            start: section.offset,
            length: section.size as u32,
            spot: Some((section.address - image.base) as u32),
        });
    }
    if let Some(tables) = image.symbols {
        for ((start, size), kind) in
            tables.into_iter().zip([RegionKind::ShortSymbols, RegionKind::Strings])
        {
            start.checked_add(size).filter(|end| *end <= length)?;
            stretches.push(Stretch { kind, start, length: size, spot: None });
        }
    }
    stretches.retain(|stretch| stretch.length > 0);
    stretches.sort_by_key(|stretch| stretch.start);
    let mut space = space(image.base, image.loaded as u32, length, &stretches)?;
    if let Some([(symbols, size), (names, _)]) = image.symbols.filter(|[(_, size), _]| *size > 0) {
        let (symbols, names) = (space.region_at(symbols), space.region_at(names));
        space.regions.get_mut(symbols).filter(|_| size > 0)?.link = names as u32;
        space.regions.get(names)?;
    }
    Some(space)
}

fn read(bytes: &[u8]) -> Option<Image<'_>> {
    if !starts_like_one(bytes) {
        return None;
    }
    let file = Reader(bytes);
    let code = match file.word(4)? {
        X86_64 => RegionKind::CodeX86,
        AARCH64 => RegionKind::CodeArm64,
        _ => return None,
    };
    let count = file.word(16).filter(|count| *count <= COMMANDS_MAX)?;
    let mut image = Image { code, base: u64::MAX, loaded: 0, sections: Vec::new(), symbols: None };
    let (mut at, mut loaded_end) = (32, 0u64);
    for _ in 0..count {
        let (command, size) = (file.word(at)?, u64::from(file.word(at + 4)?));
        match command {
            SEGMENT => {
                let (address, memory) = (file.long(at + 24)?, file.long(at + 32)?);
                let sections = sections(&file, at, size)?;
                // One without sections is no part of the program: what is never mapped, what is for linking.
                if !sections.is_empty() {
                    image.base = image.base.min(address);
                    loaded_end = loaded_end.max(address.checked_add(memory)?);
                    let is_there = |section: &Section<'_>| {
                        !ZEROED.contains(&(section.flags & TYPE)) && section.size > 0
                    };
                    image.sections.extend(sections.into_iter().filter(is_there));
                }
            }
            SYMBOLS => {
                let word = |place: u64| file.word(at + place);
                let bytes = word(12)?.checked_mul(SYMBOL_BYTES)?;
                image.symbols = Some([(word(8)?, bytes), (word(16)?, word(20)?)]);
            }
            _ => {}
        }
        at = at.checked_add(size).filter(|end| size >= 8 && *end <= COMMAND_BYTES_MAX)?;
    }
    image.loaded = loaded_end.checked_sub(image.base)?;
    let inside = |section: &Section<'_>| {
        let end = section.address.checked_add(section.size);
        section.address >= image.base && end.is_some_and(|end| end <= loaded_end)
    };
    (image.base & 0xfff == 0 && image.sections.iter().all(inside)).then_some(image)
}

/// The sections of a segment whose command is at a place, so many bytes.
fn sections<'a>(file: &Reader<'a>, at: u64, size: u64) -> Option<Vec<Section<'a>>> {
    let count = file.word(at + 64)?;
    if 72 + 80 * u64::from(count) > size {
        return None;
    }
    let section = |number: u32| {
        let at = at + 72 + 80 * u64::from(number);
        let name = |at: u64| {
            let name = file.bytes(at, 16)?;
            name.split(|byte| *byte == 0).next()
        };
        Some(Section {
            name: name(at)?,
            segment: name(at + 16)?,
            address: file.long(at + 32)?,
            size: file.long(at + 40)?,
            offset: file.word(at + 48)?,
            flags: file.word(at + 64)?,
        })
    };
    (0..count).map(section).collect()
}

impl Section<'_> {
    fn kind(&self, code: RegionKind) -> RegionKind {
        match (self.segment, self.name) {
            _ if self.flags & INSTRUCTIONS != 0 => code,
            (_, b"__eh_frame") => RegionKind::LongUnwindEntries,
            (b"__TEXT", b"__const") => RegionKind::Constants,
            (segment, _) if segment.starts_with(b"__DATA") => RegionKind::Pointers,
            _ => RegionKind::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::program::{mac_program, universal};
    use super::super::{covers, parse as parse_any, parse_all};
    use super::*;

    fn image() -> Vec<u8> {
        mac_program(&(0..100).collect::<Vec<u32>>())
    }

    fn put(image: &mut [u8], at: usize, word: u32) {
        image[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    /// Where the header of a section of the first segment is.
    fn header(number: usize) -> usize {
        32 + 72 + 80 * number
    }

    #[test]
    fn regions_cover_the_file_and_have_their_kinds() {
        let image = image();
        let space = parse_any(&image).expect("an executable");
        assert!(covers(&space, image.len()));
        let regions = space.regions.iter().filter(|region| region.kind != RegionKind::Plain);
        let kinds: Vec<RegionKind> = regions.map(|region| region.kind).collect();
        use RegionKind::{CodeArm64, LongUnwindEntries, Pointers, ShortSymbols, Strings};
        assert_eq!(kinds, [CodeArm64, LongUnwindEntries, Pointers, ShortSymbols, Strings]);
        let symbols = space.regions.iter().find(|region| region.kind == ShortSymbols);
        let names = symbols.expect("there are").link as usize;
        assert_eq!(space.regions[names].kind, Strings);
        assert_eq!(space.base, 1 << 32);
        let pointers = space.regions.iter().find(|region| region.kind == Pointers);
        let pointers = pointers.expect("there are");
        assert_eq!(pointers.spot, pointers.start + 0x4000, "loaded behind a gap");
        let first = space.regions[0];
        assert_eq!((first.start, first.length, first.spot), (0, MAC_HEADERS, 0));
        assert_eq!(space.code.start, MAC_HEADERS);
    }

    /// Bytes before the code.
    const MAC_HEADERS: u32 = 0x1000;

    #[test]
    fn images_in_a_universal_file_are_found() {
        let (one, other) = (image(), mac_program(&[1, 2, 3]));
        let file = universal(&[&one, b"no image", &other]);
        assert!(starts_like_universal(&file));
        let found = parse_all(&file);
        let lengths: Vec<u32> = found.iter().map(|(_, space)| space.length()).collect();
        assert_eq!(lengths, [one.len() as u32, other.len() as u32]);
        for ((start, space), image) in found.into_iter().zip([&one, &other]) {
            assert_eq!(Some(space), parse(&file[start..start + image.len()]));
        }
        let mut class = file.clone();
        class[4..8].copy_from_slice(&[0, 0, 0, 52]);
        assert!(!starts_like_universal(&class), "Java 8");
        // Two that overlap: the first one counts.
        let mut twice = universal(&[&one, &one]);
        let first = twice[8 + 8..8 + 12].to_vec();
        twice[28 + 8..28 + 12].copy_from_slice(&first);
        assert_eq!(parse_all(&twice).len(), 1);
    }

    #[test]
    fn what_is_cut_off_or_of_another_machine_is_none() {
        let image = image();
        for end in [0, 3, 31, 100, 0x1000, image.len() - 1] {
            assert_eq!(parse(&image[..end]), None, "{end} bytes");
        }
        let mut other = image.clone();
        put(&mut other, 4, 12);
        assert_eq!(parse(&other), None, "ARM of 32 bits");
        put(&mut other, 4, X86_64);
        let regions = parse(&other).expect("x86-64").regions;
        assert!(regions.iter().any(|region| region.kind == RegionKind::CodeX86));
    }

    #[test]
    fn commands_and_sections_that_cannot_be_make_no_executable() {
        let symbols = image().windows(8).position(|at| at == [2, 0, 0, 0, 24, 0, 0, 0]);
        let symbols = symbols.expect("a command for symbols");
        for (at, word, what) in [
            (16, u32::MAX, "commands without end"),
            (36, 0, "a command of no length"),
            (36, u32::MAX, "a command that reaches outside"),
            (header(0) + 44, 1, "a section that is longer than its segment"),
            (header(0) + 48, u32::MAX, "one outside the file"),
            (header(1) + 48, 0x1000, "two of the same bytes"),
            (header(1) + 36, 9, "an address outside its segment"),
            (32 + 64, u32::MAX, "sections without end"),
            (32 + 24, 8, "a segment that starts in a page"),
            (32 + 28, 9, "a segment behind its sections"),
            (symbols + 8, u32::MAX, "symbols outside the file"),
            (symbols + 12, u32::MAX, "symbols without end"),
            (symbols + 16, 0, "names over everything"),
        ] {
            let mut image = image();
            put(&mut image, at, word);
            assert_eq!(parse(&image), None, "{what}");
        }
    }
}
