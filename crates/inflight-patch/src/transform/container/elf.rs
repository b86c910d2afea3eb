//! ELF: by its section table.

use super::{Reader, Stretch, space};
use crate::transform::references::space::{RegionKind, Space, spots_max};

/// The most sections read.
const SECTIONS_MAX: usize = 4096;

const X86_64: u16 = 62;
const AARCH64: u16 = 183;

/// Bytes of a name that are looked at.
const NAME_BYTES: u64 = 32;

const LOADED: u64 = 2;
const EXECUTABLE: u64 = 4;
const NOBITS: u32 = 8;
const SYMTAB: u32 = 2;
const STRTAB: u32 = 3;
const RELA: u32 = 4;
const DYNSYM: u32 = 11;
const INIT_ARRAY: u32 = 14;
const FINI_ARRAY: u32 = 15;

struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
    number: usize,
}

/// Whether bytes start like a 64-bit little-endian ELF image.
pub(super) fn starts_like_one(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02\x01\x01")
}

fn sections(file: &Reader<'_>) -> Option<Vec<Section>> {
    let (at, size, count) = (file.long(0x28)?, file.half(0x3a)?, file.half(0x3c)?);
    let count = usize::from(count);
    if size != 64 || count == 0 || count > SECTIONS_MAX {
        return None;
    }
    let read = |number: usize| {
        let at = at.checked_add(number as u64 * 64)?;
        Some(Section {
            name: file.word(at)?,
            kind: file.word(at + 4)?,
            flags: file.long(at + 8)?,
            address: file.long(at + 16)?,
            offset: file.long(at + 24)?,
            size: file.long(at + 32)?,
            link: file.word(at + 40)?,
            number,
        })
    };
    (0..count).map(read).collect()
}

/// The regions of the ELF image that `bytes` are, if that is what they are.
pub(super) fn parse(bytes: &[u8]) -> Option<Space> {
    if !starts_like_one(bytes) || u32::try_from(bytes.len()).is_err() {
        return None;
    }
    let file = Reader(bytes);
    let code = match file.half(0x12)? {
        X86_64 => RegionKind::CodeX86,
        AARCH64 => RegionKind::CodeArm64,
        _ => return None,
    };
    let mut sections = sections(&file)?;
    let names = usize::from(file.half(0x3e)?);
    let names = sections.get(names).map(|names| (names.offset, names.size));
    let loaded = |section: &&Section| section.flags & LOADED != 0 && section.size > 0;
    let base = sections.iter().filter(loaded).map(|section| section.address).min()? & !0xfff;
    let end = sections.iter().filter(loaded).map(|s| s.address.saturating_add(s.size)).max()?;
    let span = end - base;
    // What is not loaded gets spots behind all that is.
    let spots = span.checked_add(bytes.len() as u64)?;
    if spots > spots_max(bytes.len() as u64) {
        return None;
    }
    let span = span as u32;
    sections.retain(|section| {
        let inside =
            section.offset.checked_add(section.size).is_some_and(|end| end <= bytes.len() as u64);
        section.kind != NOBITS && section.kind != 0 && section.size > 0 && inside
    });
    sections.sort_by_key(|section| (section.offset, section.number));
    let stretch = |section: &Section| {
        let is_loaded = section.flags & LOADED != 0;
        Stretch {
            kind: kind(section, is_loaded, code, &file, names),
            start: section.offset as u32,
            length: section.size as u32,
            spot: is_loaded.then(|| (section.address - base) as u32),
        }
    };
    let stretches: Vec<Stretch> = sections.iter().map(stretch).collect();
    let mut space = space(base, span, bytes.len() as u32, &stretches)?;
    for section in &sections {
        let region = space.region_at(section.offset as u32);
        if space.regions[region].kind == RegionKind::Symbols {
            let names = sections.iter().find(|names| names.number == section.link as usize);
            match names {
                Some(names) => {
                    space.regions[region].link = space.region_at(names.offset as u32) as u32;
                }
                None => space.regions[region].kind = RegionKind::Plain,
            }
        }
    }
    Some(space)
}

fn kind(
    section: &Section,
    is_loaded: bool,
    code: RegionKind,
    file: &Reader<'_>,
    names: Option<(u64, u64)>,
) -> RegionKind {
    let name = names.and_then(|(offset, size)| {
        let at = u64::from(section.name);
        let rest = file.bytes(offset.checked_add(at)?, size.checked_sub(at)?.min(NAME_BYTES))?;
        rest.split(|byte| *byte == 0).next()
    });
    match section.kind {
        SYMTAB | DYNSYM => RegionKind::Symbols,
        RELA => RegionKind::Relocations,
        INIT_ARRAY | FINI_ARRAY => RegionKind::Pointers,
        STRTAB => RegionKind::Strings,
        _ if !is_loaded => RegionKind::Plain,
        _ if section.flags & EXECUTABLE != 0 => code,
        _ => match name {
            Some(b".eh_frame") => RegionKind::UnwindEntries,
            Some(b".eh_frame_hdr") => RegionKind::UnwindIndex,
            Some(name) if name.starts_with(b".rodata") => RegionKind::Constants,
            Some(name) if is_pointers(name) => RegionKind::Pointers,
            _ => RegionKind::Plain,
        },
    }
}

fn is_pointers(name: &[u8]) -> bool {
    let prefixes: [&[u8]; 4] = [b".data", b".got", b".ctors", b".dtors"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::super::covers;
    use super::super::program::program;
    use super::*;

    fn image() -> Vec<u8> {
        program(&(0..100).collect::<Vec<u32>>())
    }

    /// Where the header of a section is.
    fn header(image: &[u8], number: usize) -> usize {
        u64::from_le_bytes(image[0x28..0x30].try_into().expect("8 bytes")) as usize + 64 * number
    }

    #[test]
    fn regions_cover_the_file_and_have_their_kinds() {
        let image = image();
        let space = parse(&image).expect("an executable");
        assert!(covers(&space, image.len()));
        let kinds: Vec<RegionKind> = space
            .regions
            .iter()
            .map(|region| region.kind)
            .filter(|kind| *kind != RegionKind::Plain)
            .collect();
        use RegionKind::{CodeX86, Pointers, Relocations, Strings, Symbols, UnwindEntries};
        let expected = [CodeX86, Pointers, UnwindEntries, Relocations, Symbols, Strings, Strings];
        assert_eq!(kinds, expected);
        let symbols = space.regions.iter().find(|region| region.kind == Symbols).expect("there");
        assert_eq!(space.regions[symbols.link as usize].kind, Strings);
    }

    #[test]
    fn what_is_cut_off_or_of_another_machine_is_none() {
        let image = image();
        for end in [0, 5, 63, 64, 1000, image.len() - 64] {
            assert_eq!(parse(&image[..end]), None, "{end} bytes");
        }
        let mut other = image.clone();
        other[0x12] = 243;
        assert_eq!(parse(&other), None, "RISC-V");
        other[0x12] = 183;
        let regions = parse(&other).expect("AArch64").regions;
        assert!(regions.iter().any(|region| region.kind == RegionKind::CodeArm64));
    }

    #[test]
    fn a_section_that_wraps_around_the_address_space_makes_no_executable() {
        let mut image = image();
        let size = header(&image, 3) + 32;
        image[size..size + 8].copy_from_slice(&(-56i64).to_le_bytes());
        assert_eq!(parse(&image), None);
    }

    #[test]
    fn sections_that_overlap_make_no_executable() {
        let mut image = image();
        let (first, second) = (header(&image, 1) + 24, header(&image, 2) + 24);
        let place = image[first..first + 8].to_vec();
        image[second..second + 8].copy_from_slice(&place);
        assert_eq!(parse(&image), None);
    }
}
