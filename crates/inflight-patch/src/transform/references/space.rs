//! The address space of an executable: which of its bytes lie at which address, and what kind of
//! references they hold.
//!
//! Everything that a program can point to has a *spot*: its address less the lowest one. Bytes
//! that are never loaded (symbol names, say) get spots behind all that is, so that references to
//! them can be followed just as well. A patch carries these tables. So a decoder knows nothing of
//! ELF or any other container; only `diff` reads those.

use std::ops::Range;

/// Spots are below this, so that a little can be added to one.
pub(crate) const SPOT_MAX: u64 = u32::MAX as u64 - (1 << 16);

/// Spots that an executable of so many bytes has at most: what is kept for each of them is then in
/// proportion to its file.
pub(crate) fn spots_max(bytes: u64) -> u64 {
    (16 * bytes + (1 << 20)).min(SPOT_MAX)
}

/// What a region's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RegionKind {
    /// Bytes without references that could be recognised.
    Plain = 0,
    /// x86-64 machine code.
    CodeX86 = 1,
    /// Eight-byte slots, of which some hold addresses.
    Pointers = 2,
    /// ELF relocations with addends, 24 bytes each.
    Relocations = 3,
    /// ELF symbols, 24 bytes each; names are looked up in the region `link`.
    Symbols = 4,
    /// The sorted table of an `.eh_frame_hdr`.
    UnwindIndex = 5,
    /// The entries of an `.eh_frame`.
    UnwindEntries = 6,
    /// Names and other text: where a byte of it differs, the new one is told as it is.
    Strings = 7,
    /// Constants, jump tables among them.
    Constants = 8,
    /// The same, with eight-byte addresses among them.
    MixedConstants = 9,
    /// Four-byte slots, of which some hold spots.
    Offsets = 10,
    /// Records of 12 bytes: where a function starts and ends, and where its unwind information is.
    Functions = 11,
    /// What functions say about unwinding them, with spots in between.
    UnwindInformation = 12,
    /// AArch64 machine code.
    CodeArm64 = 13,
    /// Mach-O symbols, 16 bytes each; names are looked up in the region `link`.
    ShortSymbols = 14,
    /// The entries of an `.eh_frame` with addresses of eight bytes.
    LongUnwindEntries = 15,
}

impl RegionKind {
    const ALL: [RegionKind; 16] = [
        RegionKind::Plain,
        RegionKind::CodeX86,
        RegionKind::Pointers,
        RegionKind::Relocations,
        RegionKind::Symbols,
        RegionKind::UnwindIndex,
        RegionKind::UnwindEntries,
        RegionKind::Strings,
        RegionKind::Constants,
        RegionKind::MixedConstants,
        RegionKind::Offsets,
        RegionKind::Functions,
        RegionKind::UnwindInformation,
        RegionKind::CodeArm64,
        RegionKind::ShortSymbols,
        RegionKind::LongUnwindEntries,
    ];

    pub(crate) fn from_number(number: u8) -> Option<RegionKind> {
        RegionKind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether the bytes are machine code.
    pub(crate) fn is_code(self) -> bool {
        matches!(self, RegionKind::CodeX86 | RegionKind::CodeArm64)
    }

    /// Whether the bytes are symbols, whose names are in another region.
    pub(crate) fn has_names(self) -> bool {
        matches!(self, RegionKind::Symbols | RegionKind::ShortSymbols)
    }

    /// Whether the bytes are a table whose entries are matched by what they refer to.
    pub(crate) fn is_table(self) -> bool {
        matches!(
            self,
            RegionKind::Pointers
                | RegionKind::Relocations
                | RegionKind::Symbols
                | RegionKind::UnwindIndex
                | RegionKind::UnwindEntries
                | RegionKind::Constants
                | RegionKind::MixedConstants
                | RegionKind::Offsets
                | RegionKind::Functions
                | RegionKind::UnwindInformation
                | RegionKind::ShortSymbols
                | RegionKind::LongUnwindEntries
        )
    }
}

/// A stretch of an executable's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) kind: RegionKind,
    /// Where it starts in the file.
    pub(crate) start: u32,
    pub(crate) length: u32,
    /// The spot of its first byte.
    pub(crate) spot: u32,
    /// For symbols, the number of the region with the names.
    pub(crate) link: u32,
}

impl Region {
    pub(crate) fn end(&self) -> u32 {
        self.start + self.length
    }
}

/// An executable's regions, in order and without gaps, and what its references may point to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Space {
    pub(crate) regions: Vec<Region>,
    /// The address of spot 0.
    pub(crate) base: u64,
    /// Spots that are loaded: below this.
    pub(crate) loaded: u32,
    /// Spots of code: from the first to behind the last.
    pub(crate) code: Range<u32>,
}

impl Space {
    /// Bytes of the file.
    pub(crate) fn length(&self) -> u32 {
        self.regions.last().map_or(0, Region::end)
    }

    /// The number of the region that a byte lies in.
    pub(crate) fn region_at(&self, place: u32) -> usize {
        self.regions.partition_point(|region| region.end() <= place)
    }

    /// The same where it probably is the region of a number; that becomes the one that it is.
    #[inline]
    pub(crate) fn region_near(&self, place: u32, near: &mut usize) -> usize {
        let holds = |region: &Region| region.start <= place && place < region.end();
        if !self.regions.get(*near).is_some_and(holds) {
            *near = self.region_at(place);
        }
        *near
    }

    /// Cuts a range of the file at the ends of regions.
    pub(crate) fn cut(&self, range: Range<u32>) -> impl Iterator<Item = (&Region, Range<u32>)> {
        self.cut_near(range, &mut 0)
    }

    /// The same where the range probably starts in the region of a number, as
    /// [`region_near`](Space::region_near) has it.
    pub(crate) fn cut_near<'a>(
        &'a self,
        range: Range<u32>,
        near: &mut usize,
    ) -> impl Iterator<Item = (&'a Region, Range<u32>)> + use<'a> {
        let Range { start, end } = range;
        self.regions[self.region_near(start, near)..]
            .iter()
            .take_while(move |region| region.start < end)
            .map(move |region| (region, region.start.max(start)..region.end().min(end)))
    }
}

/// An executable in the old image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OldExecutable {
    /// Where it starts in the image.
    pub(crate) start: u64,
    pub(crate) space: Space,
}

impl OldExecutable {
    pub(crate) fn end(&self) -> u64 {
        self.start + u64::from(self.space.length())
    }
}

/// Cuts a range of the old image at the ends of executables: the parts that lie in one, each with
/// the executable's number and its place there.
pub(crate) fn cut_image(
    executables: &[OldExecutable],
    range: Range<u64>,
) -> impl Iterator<Item = (u32, Range<u32>)> {
    cut_image_near(executables, range, &mut 0)
}

/// The same where the range probably starts in the executable of a number; that becomes the one in
/// which it does, or the first behind.
pub(crate) fn cut_image_near<'a>(
    executables: &'a [OldExecutable],
    range: Range<u64>,
    near: &mut usize,
) -> impl Iterator<Item = (u32, Range<u32>)> + use<'a> {
    let Range { start, end } = range;
    let holds = |executable: &OldExecutable| (executable.start..executable.end()).contains(&start);
    if !executables.get(*near).is_some_and(holds) {
        *near = executables.partition_point(|executable| executable.end() <= start);
    }
    let first = *near;
    let inside = executables[first..].iter().enumerate();
    inside.take_while(move |(_, executable)| executable.start < end).map(move |(at, executable)| {
        let from = start.max(executable.start) - executable.start;
        let to = end.min(executable.end()) - executable.start;
        ((first + at) as u32, from as u32..to as u32)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_cut_alike_wherever_they_are_looked_for_first(
            lengths in prop::collection::vec(1u32..20, 1..10),
            from: prop::sample::Index,
            length in 1u32..60,
            near in 0usize..12,
        ) {
            let mut space = Space::default();
            for length in lengths {
                let start = space.length();
                let region = Region { kind: RegionKind::Plain, start, length, spot: 0, link: 0 };
                space.regions.push(region);
            }
            let start = from.index(space.length() as usize) as u32;
            let range = start..(start + length).min(space.length());
            let mut near = near;
            let parts: Vec<_> = space.cut_near(range.clone(), &mut near).collect();
            let expected: Vec<_> = space
                .regions
                .iter()
                .map(|region| (region, region.start.max(range.start)..region.end().min(range.end)))
                .filter(|(_, part)| !part.is_empty())
                .collect();
            prop_assert_eq!(parts, expected);
            prop_assert_eq!(near, space.region_at(start));
        }

        #[test]
        fn images_are_cut_alike_wherever_they_are_looked_at_first(
            executables in prop::collection::vec((0u64..9, 1u32..20), 0..6),
            start in 0u64..120,
            length in 0u64..60,
            near in 0usize..8,
        ) {
            let mut old: Vec<OldExecutable> = Vec::new();
            for (gap, length) in executables {
                let start = old.last().map_or(0, OldExecutable::end) + gap;
                let region = Region { kind: RegionKind::Plain, start: 0, length, spot: 0, link: 0 };
                let space = Space { regions: vec![region], ..Space::default() };
                old.push(OldExecutable { start, space });
            }
            let range = start..start + length;
            let mut near = near;
            let parts: Vec<_> = cut_image_near(&old, range.clone(), &mut near).collect();
            let inside = |(number, executable): (usize, &OldExecutable)| {
                let from = range.start.max(executable.start);
                let to = range.end.min(executable.end());
                let part = (from..to).contains(&from);
                let place = |place: u64| (place - executable.start) as u32;
                part.then(|| (number as u32, place(from)..place(to)))
            };
            let expected: Vec<_> = old.iter().enumerate().filter_map(inside).collect();
            let parts: Vec<_> = parts.into_iter().filter(|(_, part)| !part.is_empty()).collect();
            prop_assert_eq!(parts, expected);
        }
    }
}
