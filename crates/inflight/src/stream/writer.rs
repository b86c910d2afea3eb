//! Writing a file front to back, with several writes behind the user.

use super::ordered::Ordered;
use crate::buffer::{AlignedBuffer, AlignedOffset, BLOCK_BYTES, Buffer};
use crate::error::{Error, Result};
use crate::file::{DirectFile, File};
use crate::handle::Handle;
use crate::task::Task;

/// Writes a file front to back: it fills buffers and lets up to `depth` of them be written while
/// the user goes on.
///
/// Where the length is known, space is allocated first: direct writes that extend a file are
/// several times slower than those into allocated space. An unaligned tail is padded for direct
/// writing and cut off again by [`Writer::finish`].
///
/// Memory: at most `depth + 1` buffers of `request_bytes`, from the engine's budget. Dropping a
/// writer before [`Writer::finish`] leaves a file of unspecified contents.
#[derive(Debug)]
pub struct Writer {
    target: Target,
    request_bytes: usize,
    filling: Option<Buffer>,
    /// Where the buffer being filled will go.
    offset: u64,
    in_flight: Ordered<Task<Result<Buffer>>>,
    spare: Vec<Buffer>,
    /// A write failed, or its future was dropped: bytes may be missing.
    interrupted: bool,
}

#[derive(Debug, Clone)]
enum Target {
    Buffered(File),
    Direct(DirectFile),
}

impl Target {
    fn file(&self) -> &File {
        match self {
            Target::Buffered(file) => file,
            Target::Direct(file) => file.file(),
        }
    }

    /// Writes a whole buffer at `offset`, a block's start for direct targets.
    async fn write(self, buffer: Buffer, offset: u64) -> Result<Buffer> {
        match self {
            Target::Buffered(file) => {
                let length = buffer.len();
                file.write_full(buffer, 0, length, offset).await
            }
            Target::Direct(file) => {
                let offset = AlignedOffset::at_or_before(offset);
                let buffer = file.write(AlignedBuffer::padded(buffer), offset).await?;
                Ok(buffer.into_inner())
            }
        }
    }
}

impl Writer {
    /// Writes `file` from its start through the page cache. `length` is the final size in bytes,
    /// if it is known.
    ///
    /// # Errors
    /// The system's, while allocating; a disk that is too small says so here.
    pub async fn new(
        file: File,
        length: Option<u64>,
        request_bytes: usize,
        depth: usize,
    ) -> Result<Writer> {
        Writer::of(Target::Buffered(file), length, request_bytes, depth).await
    }

    /// The same around the page cache.
    ///
    /// # Errors
    /// As for [`Writer::new`].
    pub async fn direct(
        file: DirectFile,
        length: Option<u64>,
        request_bytes: usize,
        depth: usize,
    ) -> Result<Writer> {
        Writer::of(Target::Direct(file), length, request_bytes, depth).await
    }

    async fn of(
        target: Target,
        length: Option<u64>,
        request_bytes: usize,
        depth: usize,
    ) -> Result<Writer> {
        if let Some(length) = length.filter(|length| *length > 0) {
            match target.file().allocate(0, length).await {
                // A file system that cannot reserve space can still be written.
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
                other => other?,
            }
        }
        Ok(Writer {
            target,
            request_bytes: request_bytes.max(BLOCK_BYTES).next_power_of_two(),
            filling: None,
            offset: 0,
            in_flight: Ordered::new(depth),
            spare: Vec::new(),
            interrupted: false,
        })
    }

    fn handle(&self) -> &Handle {
        self.target.file().handle()
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.offset + self.filling.as_ref().map_or(0, |buffer| buffer.len()) as u64
    }

    /// Takes bytes; waits only while `depth` writes are still under way. After an error, and after
    /// dropping the future before it was ready, the stream is broken and says so.
    ///
    /// # Errors
    /// Those of earlier writes.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.interrupt()?;
        while !bytes.is_empty() {
            let mut buffer = match self.filling.take() {
                Some(buffer) => buffer,
                None => self.empty_buffer().await?,
            };
            let room = (self.request_bytes - buffer.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            buffer.extend_from_slice(now);
            bytes = later;
            if buffer.len() == self.request_bytes {
                self.flush(buffer).await?;
            } else {
                self.filling = Some(buffer);
            }
        }
        self.interrupted = false;
        Ok(())
    }

    /// From here on the stream is broken, unless the caller comes to its end.
    fn interrupt(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.interrupted, true) {
            let error = std::io::Error::other("an earlier write of this stream failed");
            let path = self.target.file().path().into();
            return Err(Error::new("write", Some(path), error));
        }
        Ok(())
    }

    /// An empty buffer: waits for memory only while no write of ours holds any.
    async fn empty_buffer(&mut self) -> Result<Buffer> {
        if let Some(buffer) = self.spare.pop() {
            return Ok(buffer);
        }
        if self.in_flight.has_room()
            && let Some(buffer) = self.handle().pool().try_get(self.request_bytes)
        {
            return Ok(buffer);
        }
        match self.in_flight.next().await {
            Some(written) => {
                let mut buffer = written?;
                buffer.clear();
                Ok(buffer)
            }
            None => Ok(self.handle().buffer(self.request_bytes).await),
        }
    }

    async fn flush(&mut self, buffer: Buffer) -> Result<()> {
        if !self.in_flight.has_room()
            && let Some(written) = self.in_flight.next().await
        {
            let mut spare = written?;
            spare.clear();
            self.spare.push(spare);
        }
        let (target, offset) = (self.target.clone(), self.offset);
        self.offset += buffer.len() as u64;
        let write = self.handle().spawn(async move { target.write(buffer, offset).await });
        self.in_flight.push(write);
        Ok(())
    }

    /// Writes what is left, waits for all writes, and cuts the file to the bytes taken.
    ///
    /// # Errors
    /// Those of earlier writes.
    pub async fn finish(mut self) -> Result<File> {
        self.interrupt()?;
        let length = self.position();
        if let Some(buffer) = self.filling.take() {
            self.flush(buffer).await?;
        }
        while let Some(written) = self.in_flight.next().await {
            written?;
        }
        let file = self.target.file().clone();
        file.truncate(length).await?;
        Ok(file)
    }
}
