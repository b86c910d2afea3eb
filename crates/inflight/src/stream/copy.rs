//! The contents of one file into another, reads and writes at the same time.
//!
//! What is read is written from the same buffer: nothing is copied in memory. Holes stay holes.

use super::any_file::AnyFile;
use super::depth::Depth;
use super::reader::Reader;
use super::writer::Writer;
use super::{DEPTH, REQUEST_BYTES};
use crate::buffer::{AlignedOffset, BLOCK_BYTES};
use crate::error::Result;
use crate::file::File;

/// Copies the contents of a file into a new one, with several reads and several writes under way, as
/// one after the other takes as long as both together.
///
/// ```
/// # use inflight::{Engine, OpenOptions, stream::Copy};
/// # fn main() -> inflight::Result<()> {
/// # let engine = Engine::new()?;
/// # let directory = tempfile::tempdir().expect("a temporary directory");
/// # let path = directory.path().join("copy");
/// # engine.block_on(async {
/// let source = engine.open("Cargo.toml", OpenOptions::reading()).await?;
/// let target = engine.open(&path, OpenOptions::creating(0o644)).await?;
/// let mut copy = Copy::new(source, target).await?;
/// let mut copied = 0;
/// while let Some(bytes) = copy.step().await? {
///     copied += bytes; // for a progress bar; or to stop, by dropping `copy`
/// }
/// let target = copy.finish().await?;
/// assert_eq!(target.metadata().await?.size, copied);
/// # inflight::Result::Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
///
/// Where the source has less space allocated than its size, its holes are found and left out. Either
/// file may be one that goes around the page cache: for what is large and will not be read again soon
/// both should. Memory: as for a [`Reader`] and a [`Writer`].
#[derive(Debug)]
pub struct Copy {
    source: AnyFile,
    reader: Reader,
    writer: Writer,
    /// The size of a source with holes, and where the first that was not looked at may start.
    sparse: Option<(u64, u64)>,
    hole_bytes: u64,
    request_bytes: usize,
    depth: Depth,
}

impl Copy {
    /// From `source` into `target`, which is empty.
    ///
    /// # Errors
    /// The system's, while it looks at the source and allocates space for the target.
    pub async fn new(source: impl Into<AnyFile>, target: impl Into<AnyFile>) -> Result<Copy> {
        let (source, target) = (source.into(), target.into());
        let metadata = source.file().metadata().await?;
        let sparse = (metadata.allocated < metadata.size).then_some((metadata.size, 0));
        let reader = match sparse {
            // The first run of data is not looked for yet.
            Some(_) => range_of(&source, 0, 0),
            None => Reader::whole(source.clone()).await?,
        };
        let length = sparse.is_none().then_some(metadata.size);
        let writer = Writer::new(target, length).await?;
        let depth = Depth::fixed(DEPTH);
        let request_bytes = REQUEST_BYTES;
        Ok(Copy { source, reader, writer, sparse, hole_bytes: 0, request_bytes, depth })
    }

    /// Sets the size of requests, in bytes, and how many reads and how many writes are under way at
    /// most.
    ///
    /// # Panics
    /// When copying has begun.
    #[must_use]
    pub fn requests(self, bytes: usize, depth: usize) -> Copy {
        self.following(bytes, &Depth::fixed(depth))
    }

    /// Sets the size of requests, in bytes, and that as many reads and as many writes are under way as
    /// `depth` says at the time, which follows what that brings.
    ///
    /// # Panics
    /// When copying has begun.
    #[must_use]
    pub fn following(self, bytes: usize, depth: &Depth) -> Copy {
        let (reader, writer) =
            (self.reader.requests(bytes, DEPTH), self.writer.requests(bytes, DEPTH));
        let (reader, writer) = (reader.following(depth), writer.following(depth));
        Copy { reader, writer, request_bytes: bytes, depth: depth.clone(), ..self }
    }

    /// Copies a little more, a request's bytes at most, and says how many, holes included; `None` when
    /// all were. What it says may still be on its way to the target until [`Copy::finish`].
    ///
    /// # Errors
    /// The system's. After an error, and after dropping the future before it was ready, the copy is
    /// over.
    pub async fn step(&mut self) -> Result<Option<u64>> {
        loop {
            if let Some((_, buffer)) = self.reader.next().await? {
                let bytes = buffer.len() as u64;
                self.writer.write_buffer(buffer).await?;
                return Ok(Some(bytes));
            }
            match self.next_run().await? {
                None => return Ok(None),
                Some(0) => {}
                Some(hole) => {
                    self.hole_bytes += hole;
                    return Ok(Some(hole));
                }
            }
        }
    }

    /// Bytes of the holes that were found so far.
    #[must_use]
    pub fn hole_bytes(&self) -> u64 {
        self.hole_bytes
    }

    /// Goes to the next run of data; gives the bytes of the hole before it.
    async fn next_run(&mut self) -> Result<Option<u64>> {
        let Some((size, from)) = self.sparse else { return Ok(None) };
        if from >= size {
            return Ok(None);
        }
        let found = self.source.file().find_data(from).await?.filter(|(start, _)| *start < size);
        let (start, end) = match found {
            // Down to a block: around the page cache nothing less is read.
            Some((start, end)) => {
                let start = start - start % BLOCK_BYTES as u64;
                (start.max(from), end.next_multiple_of(BLOCK_BYTES as u64).min(size))
            }
            None => (size, size),
        };
        self.sparse = Some((size, end));
        self.writer.skip_to(start).await?;
        self.reader = match start < end {
            true => {
                let reader = range_of(&self.source, start, end);
                reader.requests(self.request_bytes, DEPTH).following(&self.depth)
            }
            // The end, which need not be at a block's start.
            false => range_of(&self.source, 0, 0),
        };
        Ok(Some(start - from))
    }

    /// Waits until all is written, and gives back the target, as a plain file. Nothing is made durable
    /// by that.
    ///
    /// # Errors
    /// The system's, of writes that were still under way.
    pub async fn finish(self) -> Result<File> {
        self.writer.finish().await
    }
}

fn range_of(source: &AnyFile, start: u64, end: u64) -> Reader {
    match source {
        AnyFile::Cached(file) => Reader::new(file.clone(), start..end),
        AnyFile::Direct(file) => {
            Reader::direct(file.clone(), AlignedOffset::at_or_before(start), end)
        }
    }
}
