//! Reading ranges of a tree's image.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use inflight::{Buffer, FilePiece, OpenOptions};

use crate::error::{Error, Result};
use crate::layout::{Layout, Piece};
use crate::manifest::{Entry, Manifest};
use crate::tree::Tree;

/// From here on a range of a single file is read by itself, not in a batch.
const ALONE_BYTES: u64 = 256 << 10;

/// A tree whose contents can be read. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) layout: Arc<Layout>,
    tree: Tree,
    /// What a file that is not as its manifest says means.
    mismatch: Mismatch,
}

/// What it means when a file is not as long as its manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The manifest was made a moment ago: somebody changed the file.
    Changed,
    /// The manifest came with a patch: this is another tree.
    OtherTree,
}

impl Image {
    pub(crate) fn new(tree: Tree, manifest: Arc<Manifest>, mismatch: Mismatch) -> Image {
        let layout = Arc::new(Layout::new(&manifest));
        Image { manifest, layout, tree, mismatch }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn entry(&self, file: u32) -> &Entry {
        &self.manifest.entries[self.layout.files[file as usize].entry as usize]
    }

    /// Where a file is, for messages.
    pub(crate) fn display_path(&self, file: u32) -> std::path::PathBuf {
        self.tree.display_path(&self.entry(file).path)
    }

    fn options(&self) -> OpenOptions {
        match self.mismatch {
            Mismatch::Changed => self.tree.reading(),
            // Nothing a patch names may lead out of the tree, not even to read.
            Mismatch::OtherTree => self.tree.reading_beneath(),
        }
    }

    /// Appends a range of the image to `buffer`.
    pub(crate) async fn read(&self, range: Range<u64>, buffer: Buffer) -> Result<Buffer> {
        self.read_ranges(std::slice::from_ref(&range), buffer).await
    }

    /// Appends ranges of the image to `buffer`, one behind the other.
    pub(crate) async fn read_ranges(
        &self,
        ranges: &[Range<u64>],
        buffer: Buffer,
    ) -> Result<Buffer> {
        let pieces: Vec<Piece> =
            ranges.iter().flat_map(|range| self.layout.pieces(range.clone())).collect();
        match &pieces[..] {
            [] => Ok(buffer),
            [piece] if piece.image.end - piece.image.start >= ALONE_BYTES => {
                self.read_alone(piece, buffer).await
            }
            _ => self.read_batch(pieces, buffer).await,
        }
    }

    async fn read_alone(&self, piece: &Piece, mut buffer: Buffer) -> Result<Buffer> {
        let path = self.tree.locate(&self.entry(piece.file).path);
        let file = self.tree.directory().open(path, self.options()).await;
        let file = file.map_err(|error| self.explain(piece.file, error))?;
        let length = (piece.image.end - piece.image.start) as usize;
        let start = buffer.len();
        buffer = file.read_full(buffer, length, piece.offset).await?;
        if buffer.len() - start < length {
            return Err(self.mismatched(piece.file, "it is shorter than it was"));
        }
        let end = piece.offset + length as u64;
        if end == self.layout.files[piece.file as usize].size {
            let probe = file.handle().buffer(1).await;
            if !file.read(probe, 1, end).await?.is_empty() {
                return Err(self.mismatched(piece.file, "it is longer than it was"));
            }
        }
        file.close().await?;
        Ok(buffer)
    }

    async fn read_batch(&self, pieces: Vec<Piece>, buffer: Buffer) -> Result<Buffer> {
        let request = |piece: &Piece| {
            let entry = self.entry(piece.file);
            let length = piece.image.end - piece.image.start;
            let path = self.tree.locate(&entry.path);
            let request = FilePiece::new(path, piece.offset, length as usize)
                .map_err(|error| inflight::Error::new("read", Some(entry.path.clone()), error))?;
            let size = self.layout.files[piece.file as usize].size;
            Ok(FilePiece { expect_end: piece.offset + length == size, ..request })
        };
        let requests = pieces.iter().map(request).collect::<inflight::Result<Vec<_>>>()?;
        let read = self.tree.directory().read_files(requests, self.options(), buffer).await;
        let (done, buffer) = match read {
            Ok(read) => read,
            Err(error) => {
                let about = |piece: &&Piece| {
                    error.path() == Some(&*self.tree.display_path(&self.entry(piece.file).path))
                };
                return match pieces.iter().find(about) {
                    Some(piece) => Err(self.explain(piece.file, error)),
                    None => Err(error.into()),
                };
            }
        };
        for (piece, request) in pieces.iter().zip(&done) {
            if request.read < request.length {
                return Err(self.mismatched(piece.file, "it is shorter than it was"));
            }
            if request.goes_on {
                return Err(self.mismatched(piece.file, "it is longer than it was"));
            }
        }
        Ok(buffer)
    }

    fn mismatched(&self, file: u32, how: &'static str) -> Error {
        let path = self.display_path(file);
        match self.mismatch {
            Mismatch::Changed => Error::Changed { path, how },
            Mismatch::OtherTree => Error::OldDiffers { path, how: how.into() },
        }
    }

    /// An error of opening or reading a file that its manifest says is there.
    fn explain(&self, file: u32, error: inflight::Error) -> Error {
        let path = self.display_path(file);
        match (error.is_not_there(), self.mismatch) {
            (true, Mismatch::Changed) => {
                Error::Changed { path, how: "it is gone or is no file any more" }
            }
            (true, Mismatch::OtherTree) => {
                Error::OldDiffers { path, how: "it is missing or is no file".into() }
            }
            (false, _) => error.into(),
        }
    }

    /// The file of this very path, if the tree has one.
    pub(crate) fn file_at(&self, path: &Path) -> Option<u32> {
        let entries = &self.manifest.entries;
        let entry = entries.binary_search_by(|entry| entry.path.as_path().cmp(path)).ok()? as u32;
        self.layout.files.binary_search_by_key(&entry, |file| file.entry).ok().map(|f| f as u32)
    }
}
