//! The contents of a tree laid end to end: its *image*.
//!
//! All data of all regular files, in the manifest's order, holes left out, is one long run of
//! bytes that offsets point into. A patch copies from anywhere in the old image, so moved, renamed
//! and duplicated files are nothing special, and an unchanged tree is a single copy.
//!
//! Work goes through an image in *units*: a few small files, or a piece of a large one.

use std::ops::Range;

use crate::manifest::{EntryKind, Manifest};

/// The most bytes of a unit: 2 MiB, a huge page and a good request size. A large file's units
/// start at multiples of it, as BLAKE3's subtrees need.
pub(crate) const UNIT_BYTES: u64 = 2 << 20;

/// Where the files of a manifest lie in its image.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) files: Vec<FileSpan>,
    extents: Vec<Extent>,
    pub(crate) bytes: u64,
}

/// One regular file in an image.
#[derive(Debug, Clone)]
pub(crate) struct FileSpan {
    /// Index of its manifest entry.
    pub(crate) entry: u32,
    /// Where its data lies in the image.
    pub(crate) image: Range<u64>,
    /// Its size, holes included.
    pub(crate) size: u64,
}

impl FileSpan {
    /// Bytes of data.
    pub(crate) fn bytes(&self) -> u64 {
        self.image.end - self.image.start
    }

    /// Whether its data is worked through in several units.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes() > UNIT_BYTES
    }

    /// How many units its data is worked through in, if it is not empty.
    pub(crate) fn units(&self) -> u64 {
        self.bytes().div_ceil(UNIT_BYTES)
    }
}

/// A run of data between holes.
#[derive(Debug, Clone)]
struct Extent {
    image: Range<u64>,
    /// Index into `files`.
    file: u32,
    /// Where the run starts in the file.
    offset: u64,
}

/// A part of one file's data that lies in a range of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Index into [`Layout::files`].
    pub(crate) file: u32,
    /// Where in the image.
    pub(crate) image: Range<u64>,
    /// Where it starts in the file.
    pub(crate) offset: u64,
}

/// What one file has in a range of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePart {
    /// Index into [`Layout::files`].
    pub(crate) file: u32,
    /// Where in the range.
    pub(crate) inside: Range<usize>,
    /// Where in the file's data.
    pub(crate) offset: u64,
    /// Bytes of the file's data in all.
    pub(crate) length: u64,
}

impl Layout {
    pub(crate) fn new(manifest: &Manifest) -> Layout {
        let mut layout = Layout { files: Vec::new(), extents: Vec::new(), bytes: 0 };
        for (entry, item) in manifest.entries.iter().enumerate() {
            let EntryKind::File { size, holes } = &item.kind else {
                continue;
            };
            let start = layout.bytes;
            let mut offset = 0;
            for (hole, length) in holes {
                layout.push_extent(offset, *hole);
                offset = hole + length;
            }
            layout.push_extent(offset, *size);
            let image = start..layout.bytes;
            layout.files.push(FileSpan { entry: entry as u32, image, size: *size });
        }
        layout
    }

    /// The files that have data, in order.
    pub(crate) fn files_with_data(&self) -> impl Iterator<Item = u32> + '_ {
        let numbered = self.files.iter().enumerate();
        numbered.filter(|(_, file)| !file.image.is_empty()).map(|(number, _)| number as u32)
    }

    fn push_extent(&mut self, from: u64, to: u64) {
        if from < to {
            let image = self.bytes..self.bytes + (to - from);
            self.bytes = image.end;
            self.extents.push(Extent { image, file: self.files.len() as u32, offset: from });
        }
    }

    /// The pieces of files that lie in a range of the image, in order.
    pub(crate) fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Piece> + '_ {
        let first = self.extents.partition_point(|extent| extent.image.end <= range.start);
        let inside = self.extents[first..].iter();
        let Range { start, end } = range;
        inside.take_while(move |extent| extent.image.start < end).map(move |extent| {
            let image = extent.image.start.max(start)..extent.image.end.min(end);
            let offset = extent.offset + (image.start - extent.image.start);
            Piece { file: extent.file, image, offset }
        })
    }

    /// The files whose data lies wholly or partly in a range of the image, empty ones left out.
    pub(crate) fn files_in(
        &self,
        range: Range<u64>,
    ) -> impl Iterator<Item = (u32, &FileSpan)> + '_ {
        let first = self.files.partition_point(|file| file.image.end <= range.start);
        let inside = self.files[first..].iter().enumerate();
        inside
            .take_while(move |(_, file)| file.image.start < range.end)
            .filter(|(_, file)| !file.image.is_empty())
            .map(move |(index, file)| ((first + index) as u32, file))
    }

    /// What each file has in a range of the image, in order.
    pub(crate) fn parts<'a>(
        &'a self,
        range: &'a Range<u64>,
    ) -> impl Iterator<Item = FilePart> + 'a {
        self.files_in(range.clone()).map(|(file, span)| {
            let from = span.image.start.max(range.start);
            let to = span.image.end.min(range.end);
            FilePart {
                file,
                inside: (from - range.start) as usize..(to - range.start) as usize,
                offset: from - span.image.start,
                length: span.bytes(),
            }
        })
    }

    /// The same units, with up to `most` that follow each other in one file together: what one
    /// request reads.
    pub(crate) fn requests(&self, most: usize) -> impl Iterator<Item = Vec<Range<u64>>> + '_ {
        let mut units = self.units().peekable();
        std::iter::from_fn(move || {
            let mut request = vec![units.next()?];
            while request.len() < most
                && let Some(next) = units.next_if(|next| {
                    let start = request[0].start;
                    self.files_in(start..next.end).take(2).count() == 1
                })
            {
                request.push(next);
            }
            Some(request)
        })
    }

    /// The ranges to work through, in order: small files together, large ones alone and in pieces.
    /// Made one by one, as a manifest may promise more of them than memory holds.
    pub(crate) fn units(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let (mut file, mut start) = (0, 0);
        std::iter::from_fn(move || {
            while file < self.files.len() {
                let span = &self.files[file];
                if span.is_large() && start >= span.image.start {
                    let end = (start + UNIT_BYTES).min(span.image.end);
                    file += usize::from(end == span.image.end);
                    return Some(std::mem::replace(&mut start, end)..end);
                }
                if span.image.end - start <= UNIT_BYTES {
                    file += 1;
                    continue;
                }
                // It does not fit any more: what was gathered is a unit.
                let end = span.image.start;
                return Some(std::mem::replace(&mut start, end)..end);
            }
            let end = self.bytes;
            (start < end).then(|| std::mem::replace(&mut start, end)..end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Entry;

    /// A file's size and its holes.
    type Shape<'a> = (u64, &'a [(u64, u64)]);

    fn manifest(files: &[Shape<'_>]) -> Manifest {
        let entry = |(number, (size, holes)): (usize, &Shape<'_>)| Entry {
            path: number.to_string().into(),
            kind: EntryKind::File { size: *size, holes: holes.to_vec() },
            mode: 0o644,
            preserved: None,
        };
        Manifest { entries: files.iter().enumerate().map(entry).collect(), ..Manifest::default() }
    }

    #[test]
    fn holes_take_no_room() {
        let layout = Layout::new(&manifest(&[
            (100, &[(10, 20), (90, 10)]),
            (0, &[]),
            (50, &[(0, 50)]),
            (5, &[]),
        ]));
        assert_eq!(layout.bytes, 75);
        let spans: Vec<_> = layout.files.iter().map(|file| file.image.clone()).collect();
        assert_eq!(spans, [0..70, 70..70, 70..70, 70..75]);
        let pieces: Vec<Piece> = layout.pieces(5..72).collect();
        assert_eq!(
            pieces,
            [
                Piece { file: 0, image: 5..10, offset: 5 },
                Piece { file: 0, image: 10..70, offset: 30 },
                Piece { file: 3, image: 70..72, offset: 0 },
            ]
        );
        let files: Vec<u32> = layout.files_in(60..71).map(|(index, _)| index).collect();
        assert_eq!(files, [0, 3]);
    }

    #[test]
    fn units_cover_the_image_and_align_with_large_files() {
        let sizes = [10, UNIT_BYTES - 10, 5, 3 * UNIT_BYTES + 7, 1, UNIT_BYTES, 0, 2];
        let files: Vec<Shape<'_>> = sizes.iter().map(|s| (*s, &[][..])).collect();
        let layout = Layout::new(&manifest(&files));
        let units: Vec<_> = layout.units().collect();
        let mut position = 0;
        for unit in &units {
            assert_eq!(unit.start, position);
            assert!(unit.end - unit.start <= UNIT_BYTES && !unit.is_empty());
            position = unit.end;
            for (_, file) in layout.files_in(unit.clone()) {
                let inside = unit.start <= file.image.start && file.image.end <= unit.end;
                let aligned = unit.start >= file.image.start
                    && (unit.start - file.image.start).is_multiple_of(UNIT_BYTES);
                assert!(inside || (file.is_large() && aligned), "{unit:?} {file:?}");
            }
        }
        assert_eq!(position, layout.bytes);
    }
}
