//! Reading a file, or a range of it, in order, with several requests ahead of the user.

use std::ops::Range;

use super::any_file::AnyFile;
use super::depth::Depth;
use super::ordered::Ordered;
use super::turns::Turns;
use super::{DEPTH, REQUEST_BYTES};
use crate::buffer::{AlignedOffset, BLOCK_BYTES, Buffer};
use crate::error::{Error, Result};
use crate::file::{DirectFile, File};
use crate::pending::Pending;

/// How often a direct read may end inside the block it began in before that is an error.
const READS_IN_VAIN_MAX: u32 = 16;

/// Reads in order, with several requests ahead of its user: [`DEPTH`] of [`REQUEST_BYTES`], or what
/// [`Reader::requests`] says.
///
/// ```
/// # use inflight::{Engine, OpenOptions, stream::Reader};
/// # fn main() -> inflight::Result<()> {
/// # let engine = Engine::new()?;
/// # engine.block_on(async {
/// let file = engine.open("Cargo.toml", OpenOptions::reading()).await?;
/// let mut reader = Reader::whole(file).await?;
/// let mut lines = 0;
/// while let Some((_offset, buffer)) = reader.next().await? {
///     lines += buffer.iter().filter(|byte| **byte == b'\n').count();
/// }
/// assert!(lines > 10);
/// # inflight::Result::Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
///
/// Memory: one buffer of a request's size, and up to `depth` more ahead where the engine's budget has
/// them to spare: see [`Pool::try_get_ahead`](crate::Pool::try_get_ahead).
#[derive(Debug)]
pub struct Reader {
    source: AnyFile,
    request_bytes: usize,
    /// Where the next request starts.
    ahead: u64,
    /// Where the next buffer handed out starts.
    position: u64,
    end: u64,
    /// Whatever is behind `end` is wanted too.
    to_end: bool,
    in_flight: Ordered<Pending<Buffer>>,
    /// Is told what was read.
    depth: Option<Depth>,
    turns: Turns,
    /// A read failed, or its future was dropped: nothing says what is missing.
    interrupted: bool,
}

impl Reader {
    /// Reads all of `file`, a [`File`] or a [`DirectFile`], to where it ends when that is reached: so
    /// also what has no size (`/proc`), or grows meanwhile.
    ///
    /// # Errors
    /// The system's; `IsADirectory` for a directory.
    pub async fn whole(file: impl Into<AnyFile>) -> Result<Reader> {
        let source = file.into();
        let metadata = source.file().metadata().await?;
        if metadata.kind == crate::FileKind::Directory {
            let error = std::io::ErrorKind::IsADirectory.into();
            return Err(Error::new("read", Some(source.file().path().into()), error));
        }
        Ok(Reader { to_end: true, ..Reader::of(source, 0..metadata.size) })
    }

    /// Reads a range of `file` through the page cache.
    #[must_use]
    pub fn new(file: File, range: Range<u64>) -> Reader {
        Reader::of(file.into(), range)
    }

    /// Reads bytes `start..end` of `file` around the page cache. Requests are rounded up to whole
    /// blocks; the bytes handed out are exactly those asked for.
    #[must_use]
    pub fn direct(file: DirectFile, start: AlignedOffset, end: u64) -> Reader {
        Reader::of(file.into(), start.bytes()..end)
    }

    fn of(source: AnyFile, range: Range<u64>) -> Reader {
        Reader {
            source,
            request_bytes: REQUEST_BYTES,
            ahead: range.start,
            position: range.start,
            end: range.end,
            to_end: false,
            in_flight: Ordered::new(DEPTH),
            depth: None,
            turns: Turns::default(),
            interrupted: false,
        }
    }

    /// Sets the size of requests, in bytes, and how many are under way at most. The size is rounded
    /// up to one that buffers come in, a power of two from 4 KiB on.
    ///
    /// # Panics
    /// When reading has begun.
    #[must_use]
    pub fn requests(self, bytes: usize, depth: usize) -> Reader {
        assert!(self.in_flight.is_empty() && self.ahead == self.position, "reading has begun");
        // So a direct read fills its whole buffer.
        let request_bytes = bytes.max(BLOCK_BYTES).next_power_of_two();
        Reader { request_bytes, in_flight: Ordered::new(depth), ..self }
    }

    /// Sets that as many requests are under way as `depth` says at the time, which follows what this brings.
    /// (Not on a simulated disk, where time is another one.)
    ///
    /// # Panics
    /// When reading has begun.
    #[must_use]
    pub fn following(self, depth: &Depth) -> Reader {
        assert!(self.in_flight.is_empty() && self.ahead == self.position, "reading has begun");
        let is_real = self.file().handle().shared.simulation.is_none();
        let in_flight = Ordered::following(depth);
        Reader { in_flight, depth: is_real.then(|| depth.clone()), ..self }
    }

    fn file(&self) -> &File {
        self.source.file()
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::new("read", Some(self.file().path().into()), error)
    }

    /// Starts reads ahead. Waits for memory only while nothing is in flight: what is in flight
    /// holds memory that only our user can free.
    async fn fill(&mut self) {
        while self.ahead < self.end && self.in_flight.has_room() {
            let pool = self.file().handle().pool().clone();
            let buffer = match self.in_flight.is_empty() {
                true => pool.get(self.request_bytes).await,
                false => match pool.try_get_ahead(self.request_bytes) {
                    Some(buffer) => buffer,
                    None => return,
                },
            };
            let length = (self.end - self.ahead).min(self.request_bytes as u64);
            let read = self.read(buffer, length as usize, self.ahead);
            self.in_flight.push(read);
            self.ahead += length;
        }
    }

    fn read(&self, buffer: Buffer, length: usize, offset: u64) -> Pending<Buffer> {
        match &self.source {
            AnyFile::Cached(file) => file.read(buffer, length, offset),
            AnyFile::Direct(file) => file.read(buffer, AlignedOffset::at_or_before(offset)),
        }
    }

    /// The next bytes, at most a request's, and where they start; `None` behind the end. After an
    /// error, and after dropping the future before it was ready, the stream is over.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` when the file ends before the range does (it shrank).
    pub async fn next(&mut self) -> Result<Option<(u64, Buffer)>> {
        if std::mem::replace(&mut self.interrupted, true) {
            let text = "an earlier read of this stream failed or was dropped";
            return Err(self.failed(std::io::Error::other(text)));
        }
        self.turns.step().await;
        self.fill().await;
        let start = self.position;
        let buffer = match self.in_flight.next().await {
            Some(read) => {
                let length = (self.end - start).min(self.request_bytes as u64) as usize;
                let buffer = self.complete(read?, start, length).await?;
                if buffer.len() < length {
                    // It has a size that it does not keep to. What was read ahead is empty.
                    (self.end, self.to_end) = (start + buffer.len() as u64, false);
                    self.ahead = self.end;
                    self.in_flight.clear();
                }
                (!buffer.is_empty()).then_some(buffer)
            }
            None => self.behind_the_end().await?,
        };
        let bytes = buffer.as_ref().map_or(0, |buffer| buffer.len()) as u64;
        self.position += bytes;
        if let Some(depth) = &self.depth {
            depth.note(bytes);
        }
        self.interrupted = false;
        Ok(buffer.map(|buffer| (start, buffer)))
    }

    /// What there is behind the size that the file had, if that is wanted.
    async fn behind_the_end(&mut self) -> Result<Option<Buffer>> {
        if !self.to_end {
            return Ok(None);
        }
        let buffer = self.file().handle().buffer(self.request_bytes).await;
        let buffer = match &self.source {
            AnyFile::Cached(_) => self.read(buffer, self.request_bytes, self.position).await?,
            AnyFile::Direct(_) => self.direct_behind_the_end(buffer).await?,
        };
        self.to_end = !buffer.is_empty();
        Ok((!buffer.is_empty()).then_some(buffer))
    }

    /// The same around the page cache: the block that the file ended in is read again, and what is
    /// new of it moved to its front.
    async fn direct_behind_the_end(&self, mut buffer: Buffer) -> Result<Buffer> {
        let known = (self.position % BLOCK_BYTES as u64) as usize;
        for _ in 0..READS_IN_VAIN_MAX {
            buffer = self.read(buffer, self.request_bytes, self.position - known as u64).await?;
            let new = buffer.len().saturating_sub(known);
            if new > 0 {
                buffer.as_mut_slice().copy_within(known.., 0);
            }
            let read = buffer.len();
            buffer.truncate(new);
            // Nothing new may be the end, or a read that came out short.
            if new > 0 || read == 0 || self.file().metadata().await?.size <= self.position {
                return Ok(buffer);
            }
        }
        Err(self.failed(std::io::ErrorKind::UnexpectedEof.into()))
    }

    /// Reads what a short read left out; less where the file turns out to end, and that is all right.
    async fn complete(&self, mut buffer: Buffer, start: u64, length: usize) -> Result<Buffer> {
        buffer.truncate(length);
        let mut in_vain = 0;
        while buffer.len() < length {
            // Through whatever alignment allows.
            let (before, at) = (buffer.len(), start + buffer.len() as u64);
            let from = match &self.source {
                AnyFile::Cached(_) => before,
                AnyFile::Direct(_) => before - before % BLOCK_BYTES,
            };
            buffer = match &self.source {
                AnyFile::Cached(file) => file.read(buffer, length - before, at).await?,
                AnyFile::Direct(file) => {
                    buffer.truncate(from);
                    let at = start + from as u64;
                    file.file().read(buffer, self.request_bytes - from, at).await?
                }
            };
            if self.to_end && buffer.len() == before && matches!(self.source, AnyFile::Cached(_)) {
                return Ok(buffer);
            }
            // A direct read may end inside a block, again and again, but not for ever.
            in_vain = if buffer.len() > before { 0 } else { in_vain + 1 };
            if buffer.len() == from || in_vain == READS_IN_VAIN_MAX {
                return Err(self.failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            buffer.truncate(length);
        }
        Ok(buffer)
    }
}
