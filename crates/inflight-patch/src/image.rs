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
        let size = self.layout.files[piece.file as usize].size;
        if end == size && file.metadata().await?.size > size {
            return Err(self.mismatched(piece.file, "it is longer than it was"));
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "changes files behind the engine's back")]
mod tests {
    use inflight::Engine;

    use super::*;
    use crate::manifest::Preserve;
    use crate::tree::scan;

    /// Lists a tree of a small and a large file, lets `change` change it, and reads its image.
    fn read_after(change: impl Fn(&Path), mismatch: Mismatch) -> Result<Vec<u8>> {
        let place = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(place.path().join("large"), vec![1; 3 << 20]).expect("written");
        std::fs::write(place.path().join("small"), vec![2; 1000]).expect("written");
        let engine = Engine::new().expect("an engine");
        engine.block_on(async {
            let tree = Tree::open(engine.handle(), place.path()).await?;
            let scanned = scan(tree, Preserve::NONE).await?;
            change(place.path());
            let image = Image::new(scanned.tree, Arc::new(scanned.manifest), mismatch);
            let mut bytes = Vec::new();
            for unit in image.layout.units().collect::<Vec<_>>() {
                let buffer = engine.buffer((unit.end - unit.start) as usize).await;
                bytes.extend_from_slice(&image.read(unit, buffer).await?);
            }
            Ok(bytes)
        })
    }

    #[test]
    fn an_unchanged_tree_is_read_whole() {
        let bytes = read_after(|_| {}, Mismatch::Changed).expect("nothing changed");
        assert_eq!(bytes, [vec![1; 3 << 20], vec![2; 1000]].concat());
    }

    #[test]
    fn a_file_that_shrinks_grows_or_goes_is_noticed() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("small", |root| std::fs::write(root.join("small"), [2; 999]).unwrap()),
            ("small", |root| std::fs::write(root.join("small"), [2; 1001]).unwrap()),
            ("small", |root| std::fs::remove_file(root.join("small")).unwrap()),
            ("large", |root| std::fs::write(root.join("large"), vec![1; 2 << 20]).unwrap()),
            ("large", |root| std::fs::write(root.join("large"), vec![1; 4 << 20]).unwrap()),
            ("large", |root| {
                std::fs::remove_file(root.join("large")).unwrap();
                std::os::unix::fs::symlink("small", root.join("large")).unwrap();
            }),
        ];
        for (name, change) in changes {
            let error = read_after(change, Mismatch::Changed).unwrap_err();
            assert!(
                matches!(&error, Error::Changed { path, .. } if path.ends_with(name)),
                "{error}"
            );
            let error = read_after(change, Mismatch::OtherTree).unwrap_err();
            let told = matches!(&error, Error::OldDiffers { path, .. } if path.ends_with(name));
            assert!(told, "{error}");
        }
    }
}
