//! Reading ranges of a tree's image.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use inflight::{AlignedOffset, BLOCK_BYTES, Buffer, BufferList, File, FilePiece, OpenOptions};

use crate::error::{Error, Result};
use crate::layout::{Layout, Piece};
use crate::manifest::{Entry, Manifest};
use crate::tree::Tree;

/// From here on a range of a single file is read by itself, not in a batch.
const ALONE_BYTES: u64 = 256 << 10;

/// From this size on a file may be read around the page cache.
const DIRECT_BYTES: u64 = 64 << 20;

/// What came of reading around the page cache.
enum Direct {
    Read(Buffer),
    /// It is to be read as usual.
    Not(Buffer),
}

/// A tree whose contents can be read. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) layout: Arc<Layout>,
    tree: Tree,
    /// What a file that is not as its manifest says means.
    mismatch: Mismatch,
    /// For each file, whether it is read around the page cache, once that is known; empty where
    /// none is.
    direct: Arc<[OnceLock<bool>]>,
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
        Image { manifest, layout, tree, mismatch, direct: Arc::default() }
    }

    /// The same, for reading it once and not all into memory: large files that the page cache does
    /// not have are read around it. That takes half of the processor time, and the cache keeps what
    /// others need.
    pub(crate) fn for_one_pass(self) -> Image {
        let direct = self.layout.files.iter().map(|_| OnceLock::new()).collect();
        Image { direct, ..self }
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
                let buffer = match self.read_direct(piece, buffer).await? {
                    Direct::Read(buffer) => return Ok(buffer),
                    Direct::Not(buffer) => buffer,
                };
                let file = self.open(piece.file).await?;
                let length = (piece.image.end - piece.image.start) as usize;
                let buffer = self.fill(&file, piece, buffer, length, piece.offset).await?;
                self.close(file, piece).await?;
                Ok(buffer)
            }
            _ => self.read_batch(pieces, buffer).await,
        }
    }

    /// Reads units that follow each other into a buffer each: with one request where they lie in
    /// one file.
    pub(crate) async fn read_units(
        &self,
        units: &[Range<u64>],
        buffers: Vec<Buffer>,
    ) -> Result<Vec<Buffer>> {
        let all = units[0].start..units[units.len() - 1].end;
        let pieces: Vec<Piece> = self.layout.pieces(all).take(2).collect();
        if let [piece] = &pieces[..]
            && units.len() > 1
        {
            return self.read_together(piece, units, buffers).await;
        }
        let mut read = Vec::with_capacity(units.len());
        for (unit, buffer) in units.iter().zip(buffers) {
            read.push(self.read(unit.clone(), buffer).await?);
        }
        Ok(read)
    }

    async fn read_together(
        &self,
        piece: &Piece,
        units: &[Range<u64>],
        buffers: Vec<Buffer>,
    ) -> Result<Vec<Buffer>> {
        let file = self.open(piece.file).await?;
        let mut list = BufferList::new();
        buffers.into_iter().for_each(|buffer| list.push(buffer));
        let (mut list, _) = file.read_vectored(list, piece.offset).await?;
        let mut buffers: Vec<Buffer> = std::iter::from_fn(|| list.pop()).collect();
        buffers.reverse();
        let mut read = Vec::with_capacity(units.len());
        for (unit, mut buffer) in units.iter().zip(buffers) {
            // The last one may have room for more than its unit. Of each, some may be missing.
            buffer.truncate((unit.end - unit.start) as usize);
            let (done, length) = (buffer.len(), (unit.end - unit.start) as usize);
            let offset = piece.offset + (unit.start - piece.image.start) + done as u64;
            read.push(self.fill(&file, piece, buffer, length - done, offset).await?);
        }
        self.close(file, piece).await?;
        Ok(read)
    }

    /// Whether the file at a place of the image is known to be read around the page cache: then it
    /// costs something to read it again.
    pub(crate) fn is_around_cache(&self, place: u64) -> bool {
        let file = self.layout.files_in(place..place + 1).next();
        let known = file.and_then(|(file, _)| self.direct.get(file as usize)?.get());
        known.is_some_and(|direct| *direct)
    }

    /// Reads a piece of a file around the page cache, if that is what is done with it and can be.
    async fn read_direct(&self, piece: &Piece, buffer: Buffer) -> Result<Direct> {
        let length = (piece.image.end - piece.image.start) as usize;
        let fits = buffer.is_empty() && length.next_multiple_of(BLOCK_BYTES) == buffer.capacity();
        let (Some(offset), true, true) =
            (AlignedOffset::new(piece.offset), fits, buffer.is_pooled())
        else {
            return Ok(Direct::Not(buffer));
        };
        if !self.is_direct(piece.file).await? {
            return Ok(Direct::Not(buffer));
        }
        let path = self.tree.locate(&self.entry(piece.file).path);
        let opened = self.tree.directory().open_direct(path, self.options()).await;
        // Not every file system can do it; what else is wrong shows when it is opened as usual.
        let Ok(file) = opened else { return Ok(Direct::Not(buffer)) };
        let capacity = buffer.capacity();
        let mut buffer = match file.read(buffer, offset).await {
            Ok(buffer) => buffer,
            // Opened, and yet it cannot be done. The buffer went back to the pool.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                return Ok(Direct::Not(self.tree.directory().handle().buffer(capacity).await));
            }
            Err(error) => return Err(error.into()),
        };
        if buffer.len() < length {
            // Cut short, perhaps by the end of the file: that is told where it is read as usual.
            buffer.clear();
            return Ok(Direct::Not(buffer));
        }
        let end = piece.offset + length as u64;
        let size = self.layout.files[piece.file as usize].size;
        if end == size && (buffer.len() > length || file.metadata().await?.size > size) {
            return Err(self.mismatched(piece.file, "it is longer than it was"));
        }
        buffer.truncate(length);
        Ok(Direct::Read(buffer))
    }

    /// Whether a file is read around the page cache: a large one of which the cache has little.
    async fn is_direct(&self, file: u32) -> Result<bool> {
        let Some(known) = self.direct.get(file as usize) else { return Ok(false) };
        if let Some(direct) = known.get() {
            return Ok(*direct);
        }
        let span = &self.layout.files[file as usize];
        let direct = span.size >= DIRECT_BYTES && {
            let opened = self.open(file).await?;
            let cached = opened.cached_bytes(span.size).await?;
            opened.close().await?;
            cached < span.size / 4
        };
        Ok(*known.get_or_init(|| direct))
    }

    async fn open(&self, file: u32) -> Result<File> {
        let path = self.tree.locate(&self.entry(file).path);
        let opened = self.tree.directory().open(path, self.options()).await;
        opened.map_err(|error| self.explain(file, error))
    }

    /// Appends `length` bytes of a piece's file, which must have them.
    async fn fill(
        &self,
        file: &File,
        piece: &Piece,
        buffer: Buffer,
        length: usize,
        offset: u64,
    ) -> Result<Buffer> {
        let start = buffer.len();
        let buffer = file.read_full(buffer, length, offset).await?;
        match buffer.len() - start < length {
            true => Err(self.mismatched(piece.file, "it is shorter than it was")),
            false => Ok(buffer),
        }
    }

    /// Closes a file of which a piece was read, which must end where it should if the piece does.
    async fn close(&self, file: File, piece: &Piece) -> Result<()> {
        let end = piece.offset + (piece.image.end - piece.image.start);
        let size = self.layout.files[piece.file as usize].size;
        if end == size && file.metadata().await?.size > size {
            return Err(self.mismatched(piece.file, "it is longer than it was"));
        }
        Ok(file.close().await?)
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
        let one = read_by(1, &change, mismatch);
        let several = read_by(5, &change, mismatch);
        // Each was in a place of its own.
        let kind =
            |result: &Result<Vec<u8>>| result.as_ref().map_err(std::mem::discriminant).cloned();
        assert_eq!(kind(&one), kind(&several), "unit by unit, or several with one request");
        one
    }

    /// The same, with at most so many units read by one request.
    fn read_by(units: usize, change: impl Fn(&Path), mismatch: Mismatch) -> Result<Vec<u8>> {
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
            for units in image.layout.requests(units) {
                let mut buffers = Vec::new();
                for unit in &units {
                    buffers.push(engine.buffer((unit.end - unit.start) as usize).await);
                }
                for buffer in image.read_units(&units, buffers).await? {
                    bytes.extend_from_slice(&buffer);
                }
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
