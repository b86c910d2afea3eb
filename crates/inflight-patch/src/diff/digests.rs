//! Gathering the digests of new files from those of their parts.

use super::known::{Known, PartDigest};
use crate::format::FileDigest;
use crate::image::Image;

#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// The parts so far of the file under way.
    open: Vec<PartDigest>,
    files: Vec<FileDigest>,
}

impl Gathering {
    /// Adds the digests of the next unit's parts.
    pub(super) fn add(&mut self, known: &Known, image: &Image, parts: &[PartDigest]) {
        for part in parts {
            self.open.push(*part);
            let span = &image.layout.files[part.file as usize];
            if self.open.len() as u64 == span.units() {
                self.files.push(known.file_digest(&self.open, span.bytes()));
                self.open.clear();
            }
        }
    }

    /// The digests of all files with data.
    pub(super) fn finish(self) -> Vec<FileDigest> {
        self.files
    }
}
