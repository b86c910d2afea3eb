//! Reading a range of a file in order, with several requests ahead of the user.

use super::ordered::Ordered;
use crate::buffer::{AlignedOffset, BLOCK_BYTES, Buffer};
use crate::error::{Error, Result};
use crate::file::{DirectFile, File};
use crate::pending::Pending;

/// How often a direct read may end inside the block it began in before that is an error.
const READS_IN_VAIN_MAX: u32 = 16;

/// Reads a range in order, `depth` requests of `request_bytes` ahead of its user.
///
/// Memory: at most `depth + 1` buffers of `request_bytes`, from the engine's budget.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    request_bytes: usize,
    /// Where the next request starts.
    ahead: u64,
    /// Where the next buffer handed out starts.
    position: u64,
    end: u64,
    in_flight: Ordered<Pending<Buffer>>,
    spare: Vec<Buffer>,
    /// A read failed, or its future was dropped: nothing says what is missing.
    interrupted: bool,
}

#[derive(Debug)]
enum Source {
    Buffered(File),
    Direct(DirectFile),
}

impl Reader {
    /// Reads bytes `start..end` of `file` through the page cache.
    #[must_use]
    pub fn new(file: File, start: u64, end: u64, request_bytes: usize, depth: usize) -> Reader {
        Reader::of(Source::Buffered(file), start, end, request_bytes, depth)
    }

    /// Reads bytes `start..end` of `file` around the page cache. Requests are rounded up to whole
    /// blocks; the bytes handed out are exactly those asked for, behind `start`'s block.
    #[must_use]
    pub fn direct(
        file: DirectFile,
        start: AlignedOffset,
        end: u64,
        request_bytes: usize,
        depth: usize,
    ) -> Reader {
        Reader::of(Source::Direct(file), start.bytes(), end, request_bytes, depth)
    }

    fn of(source: Source, start: u64, end: u64, request_bytes: usize, depth: usize) -> Reader {
        // A power of two: the sizes buffers come in, so that a direct read fills its whole buffer.
        let request_bytes = request_bytes.max(BLOCK_BYTES).next_power_of_two();
        let in_flight = Ordered::new(depth);
        let (ahead, position, spare) = (start, start, Vec::new());
        Reader { source, request_bytes, ahead, position, end, in_flight, spare, interrupted: false }
    }

    fn file(&self) -> &File {
        match &self.source {
            Source::Buffered(file) => file,
            Source::Direct(file) => file.file(),
        }
    }

    /// Gives a buffer back for the next request, instead of to the pool.
    pub fn recycle(&mut self, buffer: Buffer) {
        if buffer.capacity() == self.request_bytes {
            self.spare.push(buffer);
        }
    }

    /// Starts reads ahead. Waits for memory only while nothing is in flight: what is in flight
    /// holds memory that only our user can free.
    async fn fill(&mut self) {
        while self.ahead < self.end && self.in_flight.has_room() {
            let handle = self.file().handle().clone();
            let mut buffer = match self.spare.pop() {
                Some(buffer) => buffer,
                None if self.in_flight.is_empty() => handle.buffer(self.request_bytes).await,
                None => match handle.pool().try_get(self.request_bytes) {
                    Some(buffer) => buffer,
                    None => return,
                },
            };
            buffer.clear();
            let length = (self.end - self.ahead).min(self.request_bytes as u64);
            let read = match &self.source {
                Source::Buffered(file) => file.read(buffer, length as usize, self.ahead),
                Source::Direct(file) => file.read(buffer, AlignedOffset::at_or_before(self.ahead)),
            };
            self.in_flight.push(read);
            self.ahead += length;
        }
    }

    /// The next bytes and where they start; `None` behind the range's end. After an error, and
    /// after dropping the future before it was ready, the stream is over.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` when the file ends before the range does (it shrank).
    pub async fn next(&mut self) -> Result<Option<(u64, Buffer)>> {
        if std::mem::replace(&mut self.interrupted, true) {
            let text = "an earlier read of this stream failed or was dropped";
            let error = std::io::Error::other(text);
            return Err(Error::new("read", Some(self.file().path().into()), error));
        }
        self.fill().await;
        let Some(read) = self.in_flight.next().await else {
            self.interrupted = false;
            return Ok(None);
        };
        let start = self.position;
        let length = (self.end - start).min(self.request_bytes as u64) as usize;
        let buffer = self.complete(read?, start, length).await?;
        self.position += length as u64;
        self.interrupted = false;
        Ok(Some((start, buffer)))
    }

    /// Reads what a short read left out.
    async fn complete(&self, mut buffer: Buffer, start: u64, length: usize) -> Result<Buffer> {
        buffer.truncate(length);
        let mut in_vain = 0;
        while buffer.len() < length {
            // Through whatever alignment allows.
            let (before, at) = (buffer.len(), start + buffer.len() as u64);
            let from = match &self.source {
                Source::Buffered(_) => before,
                Source::Direct(_) => before - before % BLOCK_BYTES,
            };
            buffer = match &self.source {
                Source::Buffered(file) => file.read(buffer, length - before, at).await?,
                Source::Direct(file) => {
                    buffer.truncate(from);
                    let at = start + from as u64;
                    file.file().read(buffer, self.request_bytes - from, at).await?
                }
            };
            // A direct read may end inside a block, again and again, but not for ever.
            in_vain = if buffer.len() > before { 0 } else { in_vain + 1 };
            if buffer.len() == from || in_vain == READS_IN_VAIN_MAX {
                let error = std::io::ErrorKind::UnexpectedEof.into();
                return Err(Error::new("read", Some(self.file().path().into()), error));
            }
            buffer.truncate(length);
        }
        Ok(buffer)
    }
}
