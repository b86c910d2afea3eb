//! Writing a file front to back, with several writes behind the user.

use super::any_file::AnyFile;
use super::depth::Depth;
use super::ordered::Ordered;
use super::turns::Turns;
use super::{DEPTH, REQUEST_BYTES};
use crate::buffer::{AlignedBuffer, AlignedOffset, BLOCK_BYTES, Buffer};
use crate::error::{Error, Result};
use crate::file::File;
use crate::handle::Handle;
use crate::task::Task;

/// Writes a file front to back: it fills buffers and lets up to `depth` of them be written while
/// the user goes on.
///
/// Where the length is known, space is allocated first: direct writes that extend a file are
/// several times slower than those into allocated space. An unaligned tail is padded for direct
/// writing and cut off again by [`Writer::finish`].
///
/// ```
/// # use inflight::{Engine, OpenOptions, SyncScope, stream::Writer};
/// # fn main() -> inflight::Result<()> {
/// # let engine = Engine::new()?;
/// # let directory = tempfile::tempdir().expect("a temporary directory");
/// # let path = directory.path().join("numbers");
/// # engine.block_on(async {
/// let file = engine.open(&path, OpenOptions::creating(0o644)).await?;
/// let mut writer = Writer::new(file, None).await?;
/// for number in 0..1000 {
///     writer.write(format!("{number}\n").as_bytes()).await?;
/// }
/// let file = writer.finish().await?;
/// file.sync(SyncScope::All).await?; // the writer leaves that to you
/// assert_eq!(file.metadata().await?.size, 3890);
/// # inflight::Result::Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
///
/// Memory: one buffer of a request's size, and up to `depth` more where the engine's budget has them
/// to spare. Dropping a writer before [`Writer::finish`] leaves a file of unspecified contents.
#[derive(Debug)]
pub struct Writer {
    target: AnyFile,
    request_bytes: usize,
    filling: Option<Buffer>,
    /// Less than a block that comes before whatever is filled next.
    tail: Vec<u8>,
    /// Where the buffer being filled will go.
    offset: u64,
    in_flight: Ordered<Task<Result<()>>>,
    turns: Turns,
    /// A write failed, or its future was dropped: bytes may be missing.
    interrupted: bool,
}

/// Writes a whole buffer at `offset`, a block's start where it goes around the page cache, and drops
/// it: whoever waits for memory need not wait until somebody asks what became of the write.
async fn write_at(target: AnyFile, buffer: Buffer, offset: u64) -> Result<()> {
    match target {
        AnyFile::Cached(file) => drop(file.write_all(buffer, offset).await?),
        AnyFile::Direct(file) => {
            let offset = AlignedOffset::at_or_before(offset);
            drop(file.write(AlignedBuffer::padded(buffer), offset).await?);
        }
    }
    Ok(())
}

impl Writer {
    /// Writes `file`, a [`File`] or a [`DirectFile`](crate::DirectFile), from its start. `length` is
    /// the final size in bytes, if it is known.
    ///
    /// # Errors
    /// The system's, while allocating; a disk that is too small says so here.
    pub async fn new(file: impl Into<AnyFile>, length: Option<u64>) -> Result<Writer> {
        let target = file.into();
        if let Some(length) = length.filter(|length| *length > 0) {
            match target.file().allocate(0, length).await {
                // A file system that cannot reserve space can still be written.
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
                other => other?,
            }
        }
        Ok(Writer {
            target,
            request_bytes: REQUEST_BYTES,
            filling: None,
            tail: Vec::new(),
            offset: 0,
            in_flight: Ordered::new(DEPTH),
            turns: Turns::default(),
            interrupted: false,
        })
    }

    /// Sets the size of requests, in bytes, and how many are under way at most. The size is rounded
    /// up to one that buffers come in, a power of two from 4 KiB on.
    ///
    /// # Panics
    /// When writing has begun.
    #[must_use]
    pub fn requests(self, bytes: usize, depth: usize) -> Writer {
        assert!(self.position() == 0, "writing has begun");
        let request_bytes = bytes.max(BLOCK_BYTES).next_power_of_two();
        Writer { request_bytes, in_flight: Ordered::new(depth), ..self }
    }

    /// Sets that as many requests are under way as `depth` says at the time.
    ///
    /// # Panics
    /// When writing has begun.
    #[must_use]
    pub fn following(self, depth: &Depth) -> Writer {
        assert!(self.position() == 0, "writing has begun");
        Writer { in_flight: Ordered::following(depth), ..self }
    }

    fn handle(&self) -> &Handle {
        self.target.file().handle()
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        let filling = self.filling.as_ref().map_or(0, |buffer| buffer.len());
        self.offset + (filling + self.tail.len()) as u64
    }

    /// Takes bytes; waits only while `depth` writes are still under way. After an error, and after
    /// dropping the future before it was ready, the stream is broken and says so.
    ///
    /// # Errors
    /// Those of earlier writes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.interrupt()?;
        self.turns.step().await;
        self.take_bytes(bytes).await?;
        self.interrupted = false;
        Ok(())
    }

    async fn take_bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let mut buffer = match self.filling.take() {
                Some(buffer) => buffer,
                None => {
                    let buffer = self.empty_buffer().await;
                    self.begin(buffer)
                }
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

    /// Leaves out what lies between here and `offset`: a hole, in a new file for which no space was
    /// allocated. Where writing goes on behind it, `offset` is the start of a block.
    ///
    /// # Errors
    /// As for [`Writer::write`].
    ///
    /// # Panics
    /// When `offset` lies behind, or what was left out before does not end at a block's start.
    pub async fn skip_to(&mut self, offset: u64) -> Result<()> {
        assert!(self.position() <= offset, "a writer goes forward");
        self.interrupt()?;
        self.flush_rest().await?;
        self.offset = offset;
        self.interrupted = false;
        Ok(())
    }

    /// Takes a buffer as it is, without a copy. Around the page cache that is so for whole blocks: of
    /// others, which should come last, less than a block is copied, and what follows them is.
    ///
    /// # Errors
    /// As for [`Writer::write`].
    pub async fn write_buffer(&mut self, buffer: Buffer) -> Result<()> {
        self.interrupt()?;
        self.turns.step().await;
        let fits = match &self.target {
            AnyFile::Cached(_) => true,
            AnyFile::Direct(_) => buffer.is_pooled(),
        };
        match self.filling.is_none() && self.tail.is_empty() && fits {
            true => self.pass_on(buffer).await?,
            false => self.copy(buffer).await?,
        }
        self.interrupted = false;
        Ok(())
    }

    /// Writes the buffer; what is left over behind whole blocks, where they must be whole, is kept
    /// outside of the budget.
    async fn pass_on(&mut self, mut buffer: Buffer) -> Result<()> {
        if let AnyFile::Direct(_) = &self.target {
            let whole = buffer.len() - buffer.len() % BLOCK_BYTES;
            self.tail.extend_from_slice(&buffer[whole..]);
            buffer.truncate(whole);
        }
        if buffer.is_empty() {
            return Ok(());
        }
        self.flush(buffer).await
    }

    /// A new buffer to be filled, with what was left over.
    fn begin(&mut self, mut buffer: Buffer) -> Buffer {
        buffer.extend_from_slice(&self.tail);
        self.tail.clear();
        buffer
    }

    /// Takes the bytes of a buffer. Does not hold it while it waits for another: where there is none,
    /// the bytes wait outside of the budget.
    async fn copy(&mut self, buffer: Buffer) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let filling = self.filling.take().or_else(|| {
                let buffer = self.handle().pool().try_get(self.request_bytes)?;
                Some(self.begin(buffer))
            });
            let Some(mut filling) = filling else {
                let rest = buffer[done..].to_vec();
                drop(buffer);
                return self.take_bytes(&rest).await;
            };
            let room = (self.request_bytes - filling.len()).min(buffer.len() - done);
            filling.extend_from_slice(&buffer[done..done + room]);
            done += room;
            match filling.len() == self.request_bytes {
                true => self.flush(filling).await?,
                false => self.filling = Some(filling),
            }
        }
        Ok(())
    }

    /// An empty buffer. What our writes hold they give back by themselves, so to wait for memory is
    /// safe.
    async fn empty_buffer(&mut self) -> Buffer {
        let pool = self.handle().pool();
        match pool.try_get_ahead(self.request_bytes) {
            Some(buffer) => buffer,
            None => pool.get(self.request_bytes).await,
        }
    }

    async fn flush(&mut self, buffer: Buffer) -> Result<()> {
        while !self.in_flight.has_room()
            && let Some(written) = self.in_flight.next().await
        {
            written?;
        }
        let (target, offset) = (self.target.clone(), self.offset);
        if let AnyFile::Direct(_) = target {
            assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "whole blocks come before");
        }
        self.offset += buffer.len() as u64;
        let write = self.handle().spawn(write_at(target, buffer, offset));
        self.in_flight.push(write);
        Ok(())
    }

    /// Starts the write of what is neither written nor being written.
    async fn flush_rest(&mut self) -> Result<()> {
        let mut last = self.filling.take();
        if !self.tail.is_empty() {
            let buffer = self.empty_buffer().await;
            last = Some(self.begin(buffer));
        }
        match last {
            Some(buffer) => self.flush(buffer).await,
            None => Ok(()),
        }
    }

    /// Writes what is left, waits for all writes, and cuts the file to the bytes taken. Nothing is
    /// made durable by that: see [`File::sync`], and [`Directory::sync`](crate::Directory::sync) for
    /// the name of a new file. The file that comes back is the one that was given, as a plain one.
    ///
    /// # Errors
    /// Those of earlier writes.
    pub async fn finish(mut self) -> Result<File> {
        self.interrupt()?;
        let length = self.position();
        self.flush_rest().await?;
        while let Some(written) = self.in_flight.next().await {
            written?;
        }
        let file = self.target.file().clone();
        file.truncate(length).await?;
        Ok(file)
    }
}
