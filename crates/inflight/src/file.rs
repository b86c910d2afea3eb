//! Open files.

use std::borrow::Cow;
use std::fmt;
use std::mem::take;
use std::path::Path;

use crate::buffer::{AlignedBuffer, AlignedOffset, BLOCK_BYTES, Buffer, BufferList, MappedBytes};
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::handle::{Handle, metadata_at};
use crate::metadata::{FileKind, Metadata, SetTimes};
use crate::operation::{Advice, At, OpenOptions, Operation, SetMetadata, SyncScope};
use crate::pending::Pending;

/// An open file. Closed when dropped, or explicitly with [`File::close`].
///
/// Methods that return a [`Pending`] submit their operation when they are called; those that are
/// `async` take several operations and begin when they are first polled: [`Handle::spawn`] them to
/// have many under way.
#[derive(Clone)]
pub struct File {
    descriptor: Descriptor,
    handle: Handle,
}

impl File {
    pub(crate) fn new(descriptor: Descriptor, handle: Handle) -> File {
        File { descriptor, handle }
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.descriptor.path()
    }

    /// The engine it belongs to.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// This file for an [`Operation`].
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn this(&self) -> At {
        At { directory: Some(self.descriptor.clone()), path: Cow::Borrowed(c"") }
    }

    /// Appends up to `length` bytes from `offset` to `buffer`, as many as its spare room takes.
    /// Fewer may come; none only at the end of the file.
    ///
    /// # Panics
    /// When the buffer is full: [`Buffer::clear`] it before it is used again.
    pub fn read(&self, buffer: Buffer, length: usize, offset: u64) -> Pending<Buffer> {
        assert!(
            length == 0 || buffer.spare() > 0,
            "a read needs room in its buffer: clear it first"
        );
        let file = self.descriptor.clone();
        let operation = Operation::Read { file, buffer, length, offset };
        self.handle.start(
            || operation,
            |operation, _| match operation {
                Operation::Read { buffer, .. } => take(buffer),
                other => unreachable!("{other:?} came back for a read"),
            },
        )
    }

    /// Appends `length` bytes from `offset`, in as many reads as it takes, none longer than the
    /// engine's [`request_bytes_max`](crate::Builder::request_bytes_max); fewer only where the file
    /// ends before.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Panics
    /// When the buffer has no room for them.
    pub async fn read_full(&self, buffer: Buffer, length: usize, offset: u64) -> Result<Buffer> {
        assert!(length <= buffer.spare(), "{length} bytes into room for {}", buffer.spare());
        let start = buffer.len();
        let mut buffer = buffer;
        loop {
            let done = buffer.len() - start;
            if done == length {
                return Ok(buffer);
            }
            let request = (length - done).min(self.handle.request_bytes_max());
            buffer = self.read(buffer, request, offset + done as u64).await?;
            if buffer.len() - start == done {
                return Ok(buffer);
            }
        }
    }

    /// Writes `buffer[start..start + length]` at `offset`. Fewer may be written: the count says.
    ///
    /// # Panics
    /// When the range lies outside the filled part of the buffer.
    pub fn write(
        &self,
        buffer: Buffer,
        start: usize,
        length: usize,
        offset: u64,
    ) -> Pending<(Buffer, usize)> {
        let end = start.checked_add(length);
        assert!(end.is_some_and(|end| end <= buffer.len()), "a write must lie in its buffer");
        let file = self.descriptor.clone();
        let operation = Operation::Write { file, buffer, start, length, offset };
        self.handle.start(
            || operation,
            |operation, written| match operation {
                Operation::Write { buffer, .. } => (take(buffer), written as usize),
                other => unreachable!("{other:?} came back for a write"),
            },
        )
    }

    /// Writes all that the buffer holds at `offset`: see [`File::write_full`].
    ///
    /// # Errors
    /// The system's.
    pub async fn write_all(&self, buffer: Buffer, offset: u64) -> Result<Buffer> {
        let length = buffer.len();
        self.write_full(buffer, 0, length, offset).await
    }

    /// Writes `buffer[start..start + length]` at `offset`, in as many writes as it takes, none
    /// longer than the engine's `request_bytes_max`.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Panics
    /// As for [`File::write`].
    pub async fn write_full(
        &self,
        buffer: Buffer,
        start: usize,
        length: usize,
        offset: u64,
    ) -> Result<Buffer> {
        let (mut buffer, mut done) = (buffer, 0);
        while done < length {
            let request = (length - done).min(self.handle.request_bytes_max());
            let (back, written) =
                self.write(buffer, start + done, request, offset + done as u64).await?;
            if written == 0 {
                let error = std::io::ErrorKind::WriteZero.into();
                return Err(Error::new("write", Some(self.path().into()), error));
            }
            (buffer, done) = (back, done + written);
        }
        Ok(buffer)
    }

    /// Fills the spare room of each buffer in turn from `offset` on. The result counts the bytes.
    pub fn read_vectored(&self, buffers: BufferList, offset: u64) -> Pending<(BufferList, usize)> {
        let operation = Operation::ReadVectored { file: self.descriptor.clone(), buffers, offset };
        self.handle.start(
            || operation,
            |operation, bytes| match operation {
                Operation::ReadVectored { buffers, .. } => (take(buffers), bytes as usize),
                other => unreachable!("{other:?} came back for a vectored read"),
            },
        )
    }

    /// Writes the filled part of each buffer in turn from `offset` on. The result counts the bytes.
    pub fn write_vectored(&self, buffers: BufferList, offset: u64) -> Pending<(BufferList, usize)> {
        let operation = Operation::WriteVectored { file: self.descriptor.clone(), buffers, offset };
        self.handle.start(
            || operation,
            |operation, bytes| match operation {
                Operation::WriteVectored { buffers, .. } => (take(buffers), bytes as usize),
                other => unreachable!("{other:?} came back for a vectored write"),
            },
        )
    }

    /// What the system knows about it.
    ///
    /// # Errors
    /// The system's.
    pub async fn metadata(&self) -> Result<Metadata> {
        metadata_at(&self.handle, self.this(), true).await
    }

    /// Makes what was written durable.
    pub fn sync(&self, scope: SyncScope) -> Pending<()> {
        self.handle.run(Operation::Sync { file: self.descriptor.clone(), scope })
    }

    /// Writes like [`File::write`] and then makes the file durable, in one go. Where fewer bytes were
    /// written than asked for, nothing was made durable: go on with the rest.
    ///
    /// # Panics
    /// As for [`File::write`].
    pub fn write_sync(
        &self,
        buffer: Buffer,
        start: usize,
        length: usize,
        offset: u64,
        scope: SyncScope,
    ) -> Pending<(Buffer, usize)> {
        let end = start.checked_add(length);
        assert!(end.is_some_and(|end| end <= buffer.len()), "a write must lie in its buffer");
        let file = self.descriptor.clone();
        let operation = Operation::WriteSync { file, buffer, start, length, offset, scope };
        self.handle.start(
            || operation,
            |operation, written| match operation {
                Operation::WriteSync { buffer, .. } => (take(buffer), written as usize),
                other => unreachable!("{other:?} came back for a write"),
            },
        )
    }

    /// Starts writing a range of what the page cache has to the device, without making it durable;
    /// with `wait` it ends when they are written. A `length` of 0 means up to the end.
    pub fn sync_range(&self, offset: u64, length: u64, wait: bool) -> Pending<()> {
        let file = self.descriptor.clone();
        self.handle.run(Operation::SyncRange { file, offset, length, wait })
    }

    /// Tells the page cache what is going to happen to a range. A `length` of 0 means up to the end.
    pub fn advise(&self, offset: u64, length: u64, advice: Advice) -> Pending<()> {
        let file = self.descriptor.clone();
        self.handle.run(Operation::Advise { file, offset, length, advice })
    }

    /// Makes a range a hole, which reads as zeros and takes no space; the size stays.
    pub fn punch_hole(&self, offset: u64, length: u64) -> Pending<()> {
        self.handle.run(Operation::PunchHole { file: self.descriptor.clone(), offset, length })
    }

    /// Reserves space for a range; the file grows to hold it.
    pub fn allocate(&self, offset: u64, length: u64) -> Pending<()> {
        self.handle.run(Operation::Allocate { file: self.descriptor.clone(), offset, length })
    }

    /// Sets the size in bytes.
    pub fn truncate(&self, length: u64) -> Pending<()> {
        self.handle.run(Operation::Truncate { file: self.descriptor.clone(), length })
    }

    /// Sets permission bits.
    pub fn set_mode(&self, mode: u32) -> Pending<()> {
        self.handle.run(Operation::SetMode { at: self.this(), mode })
    }

    /// Sets times.
    pub fn set_times(&self, times: SetTimes) -> Pending<()> {
        self.handle.run(Operation::SetTimes { at: self.this(), times })
    }

    /// Gives this file the extended attributes of another, and sets owner, permissions and times as far
    /// as asked for. Gives the number of attributes that it may not have.
    pub fn copy_metadata(&self, from: &File, metadata: SetMetadata) -> Pending<u64> {
        let (from, to, metadata) = (from.this(), self.this(), Box::new(metadata));
        let operation = Operation::CopyMetadata { from, to, metadata };
        self.handle.start(|| operation, |_, lost| lost)
    }

    /// Makes another file, open for writing, share the whole contents of this one, until one of them
    /// is written.
    ///
    /// # Errors
    /// The system's; most file systems cannot.
    pub fn clone_to(&self, target: &File) -> Pending<()> {
        let (from, to) = (self.descriptor.clone(), target.descriptor.clone());
        self.handle.run(Operation::CloneFile { from, to })
    }

    /// Copies up to `length` bytes to another file inside the kernel. The result counts them.
    pub fn copy_range_to(&self, from: u64, target: &File, to: u64, length: u64) -> Pending<u64> {
        let operation = Operation::CopyRange {
            from: self.descriptor.clone(),
            from_offset: from,
            to: target.descriptor.clone(),
            to_offset: to,
            length,
        };
        self.handle.start(|| operation, |_, bytes| bytes)
    }

    /// Copies up to `length` bytes to another file, on any file system, through the page cache and inside the
    /// kernel: see [`Operation::Splice`]. The result counts them.
    pub fn splice_to(&self, from: u64, target: &File, to: u64, length: u64) -> Pending<u64> {
        let operation = Operation::Splice {
            from: self.descriptor.clone(),
            from_offset: from,
            to: target.descriptor.clone(),
            to_offset: to,
            length,
        };
        self.handle.start(|| operation, |_, bytes| bytes)
    }

    /// The first run of data at or after `offset`, as (first byte, byte behind the last); `None`
    /// when only a hole or the end follows.
    pub fn find_data(&self, offset: u64) -> Pending<Option<(u64, u64)>> {
        let operation = Operation::FindData { file: self.descriptor.clone(), offset, data: None };
        self.handle.start(
            || operation,
            |operation, _| match operation {
                Operation::FindData { data, .. } => *data,
                other => unreachable!("{other:?} came back for a query of data"),
            },
        )
    }

    /// How many of the first `length` bytes the page cache has, in whole pages: all of them where the
    /// system cannot say. Reads nothing.
    pub fn cached_bytes(&self, length: u64) -> Pending<u64> {
        let file = self.descriptor.clone();
        self.handle.start(|| Operation::CountCached { file, length }, |_, cached| cached)
    }

    /// The first `length` bytes, at least one, mapped.
    ///
    /// # Safety
    /// As long as anybody looks at them, nobody changes or shortens the file.
    pub(crate) async unsafe fn map(&self, length: usize) -> Result<MappedBytes> {
        let operation = Operation::Map { file: self.descriptor.clone(), length, mapped: None };
        match self.handle.submit(operation).await?.0 {
            Operation::Map { mapped: Some(mapped), .. } => Ok(mapped),
            other => unreachable!("{other:?} came back for a mapping"),
        }
    }

    /// Maps a range, in whole pages, and looks at all of it: with a `step`, the kernel brings so many
    /// bytes at a time, with 0 page by page. Tells how many bytes there were. For comparing mapped files
    /// with reads, of a file that nobody cuts short: that would end the process.
    pub fn touch_mapped(&self, offset: u64, length: usize, step: usize) -> Pending<u64> {
        let file = self.descriptor.clone();
        let operation = Operation::TouchMapped { file, offset, length, step };
        self.handle.start(|| operation, |_, bytes| bytes)
    }

    /// Closes it and waits for that, unless operations on it are still in flight: then the last
    /// one's end closes it.
    ///
    /// # Errors
    /// The system's.
    pub async fn close(self) -> Result<()> {
        match self.descriptor.into_owned() {
            Some(descriptor) => self.handle.run(Operation::Close { descriptor }).await,
            None => Ok(()),
        }
    }
}

impl Handle {
    /// Opens a file.
    ///
    /// # Errors
    /// The system's, or `InvalidInput` for a path that holds a NUL byte.
    pub async fn open(&self, path: impl AsRef<Path>, options: OpenOptions) -> Result<File> {
        Ok(File::new(self.open_at(None, path.as_ref(), options).await?, self.clone()))
    }

    /// Opens a file around the page cache.
    ///
    /// # Errors
    /// As for [`Handle::open`]; `Unsupported` where the file system or its device cannot do direct
    /// I/O in blocks of [`BLOCK_BYTES`], or it is no file of a disk: [`Handle::open`] it then. Whether
    /// a file that was to be made is there after that error is up to the file system.
    pub async fn open_direct(
        &self,
        path: impl AsRef<Path>,
        options: OpenOptions,
    ) -> Result<DirectFile> {
        DirectFile::open(self, None, path.as_ref(), options).await
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.path()).finish()
    }
}

/// How often a direct write may end inside its first block before that is an error.
const WRITES_IN_VAIN_MAX: u32 = 16;

/// A file whose reads and writes go around the page cache. The types of its methods keep the
/// alignment rules: there is no way to ask for what the device would refuse.
#[derive(Debug, Clone)]
pub struct DirectFile {
    file: File,
}

impl DirectFile {
    /// Opens a file for direct I/O, if blocks of [`BLOCK_BYTES`] suit it.
    pub(crate) async fn open(
        handle: &Handle,
        directory: Option<&Descriptor>,
        path: &Path,
        options: OpenOptions,
    ) -> Result<DirectFile> {
        let unsupported = |text: String| {
            let error = std::io::Error::new(std::io::ErrorKind::Unsupported, text);
            Error::new("open", Some(path.into()), error)
        };
        let opened = handle.open_at(directory, path, options.direct()).await;
        let descriptor = opened.map_err(|error| match error.kind() {
            // That is how systems say it.
            std::io::ErrorKind::InvalidInput if error.raw_os_error().is_some() => {
                unsupported("it cannot be read around the page cache".into())
            }
            _ => error,
        })?;
        let file = File::new(descriptor, handle.clone());
        let metadata = file.metadata().await?;
        if metadata.kind == FileKind::Directory {
            let error = std::io::ErrorKind::IsADirectory.into();
            return Err(Error::new("open", Some(file.path().into()), error));
        }
        let alignment = metadata.direct_alignment;
        // 0: the kernel does not say. Then opening it for direct I/O was the test, and pages are
        // what everything in use takes.
        if alignment as usize > BLOCK_BYTES {
            return Err(unsupported(format!(
                "its device wants direct I/O in blocks of {alignment} bytes"
            )));
        }
        Ok(DirectFile { file })
    }

    /// The plain file, whose `read` and `write` leave alignment to the caller.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What the system knows about it.
    ///
    /// # Errors
    /// The system's.
    pub async fn metadata(&self) -> Result<Metadata> {
        self.file.metadata().await
    }

    /// Makes what was written durable.
    pub fn sync(&self, scope: SyncScope) -> Pending<()> {
        self.file.sync(scope)
    }

    /// Reserves space for a range; the file grows to hold it.
    pub fn allocate(&self, offset: u64, length: u64) -> Pending<()> {
        self.file.allocate(offset, length)
    }

    /// Sets the size in bytes, aligned or not.
    pub fn truncate(&self, length: u64) -> Pending<()> {
        self.file.truncate(length)
    }

    /// Fills the whole capacity of `buffer`, emptied first, from `offset` on; less at the end of
    /// the file.
    ///
    /// # Panics
    /// When `buffer` is a part of an arena: those are not aligned.
    pub fn read(&self, mut buffer: Buffer, offset: AlignedOffset) -> Pending<Buffer> {
        assert!(buffer.is_pooled(), "a part of an arena is not aligned");
        buffer.clear();
        let length = buffer.capacity();
        self.file.read(buffer, length, offset.bytes())
    }

    /// Writes whole blocks at `offset`, padding included: set the size afterwards where the end
    /// was padded.
    ///
    /// # Errors
    /// The system's.
    pub async fn write(
        &self,
        buffer: AlignedBuffer,
        offset: AlignedOffset,
    ) -> Result<AlignedBuffer> {
        let (mut buffer, padding) = buffer.into_padded();
        let (length, mut done, mut in_vain) = (buffer.len(), 0, 0);
        while done < length {
            let at = offset.bytes() + done as u64;
            let (back, written) = self.file.write(buffer, done, length - done, at).await?;
            // A short write may end inside a block: start that block again, but not for ever.
            let before = done;
            (buffer, done) = (back, done + written);
            if done < length {
                done -= done % BLOCK_BYTES;
            }
            in_vain = if done > before { 0 } else { in_vain + 1 };
            if written == 0 || in_vain == WRITES_IN_VAIN_MAX {
                let error = std::io::ErrorKind::WriteZero.into();
                return Err(Error::new("write", Some(self.file.path().into()), error));
            }
        }
        Ok(AlignedBuffer::from_padded(buffer, padding))
    }
}
