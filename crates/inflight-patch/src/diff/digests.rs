//! Gathering the digests of new files from those of their parts, and finding what both trees have.

use super::known::PartDigest;
use crate::digest::{self, UnitDigest};
use crate::image::Image;
use crate::manifest::{Digest, EntryKind};

#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// The parts so far of the file under way.
    open: Vec<PartDigest>,
    files: Vec<Digest>,
}

impl Gathering {
    /// Adds the digests of the next unit's parts.
    pub(super) fn add(&mut self, image: &Image, parts: &[PartDigest]) {
        for part in parts {
            self.open.push(*part);
            let span = &image.layout.files[part.file as usize];
            if self.open.len() as u64 == span.units() {
                let units: Vec<UnitDigest> = self.open.drain(..).map(|part| part.digest).collect();
                self.files.push(digest::whole(&units, span.bytes()));
            }
        }
    }

    /// The digests of all files with data.
    pub(super) fn finish(self) -> Vec<Digest> {
        self.files
    }
}

/// The digests of both trees' files with data: files of the same path and contents, without holes,
/// are in both and are listed once.
#[derive(Debug, Default)]
pub(super) struct Digested {
    /// Whether each entry of a manifest is a file that both trees have.
    pub(super) old_kept: Vec<bool>,
    pub(super) new_kept: Vec<bool>,
    pub(super) kept: Vec<Digest>,
    pub(super) old: Vec<Digest>,
    pub(super) new: Vec<Digest>,
}

impl Digested {
    /// Of images, and the digests of their files with data in order.
    pub(super) fn new(
        (old, old_digests): (&Image, &[Digest]),
        (new, new_digests): (&Image, &[Digest]),
    ) -> Digested {
        let mut digested = Digested {
            old_kept: vec![false; old.manifest.entries.len()],
            new_kept: vec![false; new.manifest.entries.len()],
            ..Digested::default()
        };
        let mut old = old
            .layout
            .files_with_data()
            .zip(old_digests)
            .map(|(file, digest)| {
                (old.layout.files[file as usize].entry as usize, old.entry(file), *digest)
            })
            .peekable();
        for (file, digest) in new.layout.files_with_data().zip(new_digests) {
            let entry = new.entry(file);
            while let Some((_, _, digest)) = old.next_if(|(_, other, _)| other.path < entry.path) {
                digested.old.push(digest);
            }
            let is_whole = matches!(&entry.kind, EntryKind::File { holes, .. } if holes.is_empty());
            let same = old.next_if(|(_, other, other_digest)| {
                is_whole
                    && other.kind == entry.kind
                    && other.path == entry.path
                    && other_digest == digest
            });
            match same {
                Some((number, ..)) => {
                    digested.old_kept[number] = true;
                    digested.new_kept[new.layout.files[file as usize].entry as usize] = true;
                    digested.kept.push(*digest);
                }
                None => digested.new.push(*digest),
            }
        }
        digested.old.extend(old.map(|(.., digest)| digest));
        digested
    }
}
