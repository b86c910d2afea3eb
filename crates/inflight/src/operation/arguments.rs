//! What operations are told: paths, ways to open, scopes.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::descriptor::{Descriptor, OwnedDescriptor};
use crate::metadata::{DirectoryBatch, Owner, SetTimes};

/// The most bytes one read, write or copy moves: what Linux itself caps a call at.
pub const TRANSFER_BYTES_MAX: usize = 0x7fff_f000;

/// A path, absolute or relative to an open directory.
///
/// Resolution relative to a directory survives a rename of its parents and cannot be redirected
/// by somebody who swaps a parent for a symbolic link.
#[derive(Debug)]
pub struct At {
    /// What a relative `path` is relative to; the process's current directory when `None`.
    pub directory: Option<Descriptor>,
    /// The path as the system takes it; empty for `directory` itself.
    pub path: Cow<'static, CStr>,
}

impl At {
    /// `path` below `directory`, or below the current directory when there is none.
    ///
    /// # Errors
    /// `InvalidInput` when the path holds a NUL byte.
    pub fn new(directory: Option<&Descriptor>, path: &Path) -> std::io::Result<At> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        Ok(At { directory: directory.cloned(), path: Cow::Owned(path) })
    }

    /// The whole path, for messages.
    #[must_use]
    pub fn display_path(&self) -> PathBuf {
        display_path(self.directory.as_ref(), &self.path)
    }
}

pub(super) fn display_path(directory: Option<&Descriptor>, path: &CStr) -> PathBuf {
    let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    match directory {
        Some(directory) if path.as_os_str().is_empty() => directory.path().to_path_buf(),
        Some(directory) => directory.path().join(path),
        None => path.to_path_buf(),
    }
}

/// A piece of a file, for [`ReadFiles`](crate::Operation::ReadFiles).
#[derive(Debug)]
pub struct FilePiece {
    /// The file.
    pub path: Cow<'static, CStr>,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: usize,
    /// Bytes that were read: fewer than `length` only where the file ended before.
    pub read: usize,
    /// Whether to look if the file goes on behind the piece.
    pub expect_end: bool,
    /// Whether it did; only if `expect_end` was set.
    pub goes_on: bool,
}

impl FilePiece {
    /// Bytes `offset..offset + length` of the file at `path`.
    ///
    /// # Errors
    /// `InvalidInput` when the path holds a NUL byte.
    pub fn new(path: &Path, offset: u64, length: usize) -> std::io::Result<FilePiece> {
        let path = Cow::Owned(CString::new(path.as_os_str().as_bytes())?);
        Ok(FilePiece { path, offset, length, read: 0, expect_end: false, goes_on: false })
    }
}

/// A directory to be listed, for [`ListDirectories`](crate::Operation::ListDirectories).
#[derive(Debug)]
pub struct DirectoryListing {
    /// The directory, on a way without links.
    pub path: Cow<'static, CStr>,
    /// Receives its first entries.
    pub batch: DirectoryBatch,
    /// Where these are not all, receives the open directory, which has the others.
    pub rest: Option<OwnedDescriptor>,
    /// Whether there is no such directory, which is no error.
    pub is_missing: bool,
}

impl DirectoryListing {
    /// A listing of the directory at `path`.
    ///
    /// # Errors
    /// `InvalidInput` when the path holds a NUL byte.
    pub fn new(path: &Path) -> std::io::Result<DirectoryListing> {
        let path = Cow::Owned(CString::new(path.as_os_str().as_bytes())?);
        let batch = DirectoryBatch::default();
        Ok(DirectoryListing { path, batch, rest: None, is_missing: false })
    }
}

/// A file to be made, for [`WriteFiles`](crate::Operation::WriteFiles).
#[derive(Debug)]
pub struct NewFile {
    /// Its path, of which nothing may exist.
    pub path: Cow<'static, CStr>,
    /// Permission bits, not masked by the process.
    pub mode: u32,
    /// Where its bytes start in the buffer.
    pub start: usize,
    /// Bytes.
    pub length: usize,
}

impl NewFile {
    /// A file of `buffer[start..start + length]` at `path`.
    ///
    /// # Errors
    /// `InvalidInput` when the path holds a NUL byte.
    pub fn new(path: &Path, mode: u32, start: usize, length: usize) -> std::io::Result<NewFile> {
        let path = Cow::Owned(CString::new(path.as_os_str().as_bytes())?);
        Ok(NewFile { path, mode, start, length })
    }
}

/// What is kept of a file beside its contents: what of it is set, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetMetadata {
    /// User and group.
    pub owner: Option<Owner>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Times.
    pub times: Option<SetTimes>,
}

/// A file to be copied, for [`CopyFiles`](crate::Operation::CopyFiles).
#[derive(Debug)]
pub struct CopiedFile {
    /// The source.
    pub path: Cow<'static, CStr>,
    /// The copy, of which nothing may exist; the same as `path` when `None`.
    pub target: Option<Cow<'static, CStr>>,
    /// Bytes that the source is to have.
    pub length: usize,
    /// What the copy gets; until then nobody but who makes it may write it.
    pub metadata: SetMetadata,
    /// Whether it was copied. It is not where the source has another length, or is no file.
    pub copied: bool,
    /// Extended attributes that the copy did not get, as its file system or its user may not.
    pub attributes_lost: u32,
}

impl CopiedFile {
    /// The file at `path` of `length` bytes.
    ///
    /// # Errors
    /// `InvalidInput` when the path holds a NUL byte.
    pub fn new(path: &Path, length: usize, metadata: SetMetadata) -> std::io::Result<CopiedFile> {
        let path = Cow::Owned(CString::new(path.as_os_str().as_bytes())?);
        let (target, copied, attributes_lost) = (None, false, 0);
        Ok(CopiedFile { path, target, length, metadata, copied, attributes_lost })
    }

    /// What the copy is called.
    #[must_use]
    pub fn target(&self) -> &CStr {
        self.target.as_ref().unwrap_or(&self.path)
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) create: Create,
    pub(crate) truncate: bool,
    pub(crate) direct: bool,
    /// What is read and written does not stay in the page cache.
    pub(crate) uncached: bool,
    pub(crate) directory: bool,
    pub(crate) follow: bool,
    pub(crate) beneath: bool,
    /// A fifo, or a device, is not waited for.
    pub(crate) no_wait: bool,
    /// Permission bits, of which there are twelve.
    pub(crate) mode: u16,
}

/// Whether opening makes a file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Create {
    Never,
    IfMissing,
    Exclusive,
}

impl OpenOptions {
    /// Reading an existing file.
    #[must_use]
    pub const fn reading() -> OpenOptions {
        OpenOptions {
            read: true,
            write: false,
            create: Create::Never,
            truncate: false,
            direct: false,
            uncached: false,
            directory: false,
            follow: true,
            beneath: false,
            no_wait: false,
            mode: 0,
        }
    }

    /// Writing an existing file.
    #[must_use]
    pub const fn writing() -> OpenOptions {
        OpenOptions { read: false, write: true, ..OpenOptions::reading() }
    }

    /// Making a file that must not exist yet (a symbolic link in its place counts as existing).
    #[must_use]
    pub const fn creating(mode: u32) -> OpenOptions {
        let mode = mode as u16;
        OpenOptions { create: Create::Exclusive, follow: false, mode, ..OpenOptions::writing() }
    }

    /// Writing a file, made when missing and emptied when not.
    #[must_use]
    pub const fn replacing(mode: u32) -> OpenOptions {
        let mode = mode as u16;
        OpenOptions { create: Create::IfMissing, truncate: true, mode, ..OpenOptions::writing() }
    }

    /// Writing a file, made when missing and kept as it is when not.
    #[must_use]
    pub const fn keeping(mode: u32) -> OpenOptions {
        OpenOptions { truncate: false, ..OpenOptions::replacing(mode) }
    }

    /// Opening a directory, to read it or to resolve paths against it.
    #[must_use]
    pub const fn directory() -> OpenOptions {
        OpenOptions { directory: true, ..OpenOptions::reading() }
    }

    /// Making a directory, which must not exist yet, and opening it. `mode` has its permission bits, before
    /// the process's mask.
    #[must_use]
    pub const fn creating_directory(mode: u32) -> OpenOptions {
        let mode = mode as u16;
        OpenOptions { create: Create::Exclusive, mode, ..OpenOptions::directory().no_follow() }
    }

    /// Both directions, whatever this was before.
    #[must_use]
    pub const fn read_write(self) -> OpenOptions {
        OpenOptions { read: true, write: true, ..self }
    }

    /// Around the page cache. Use [`DirectFile`](crate::DirectFile), whose types keep the alignment rules.
    #[must_use]
    pub(crate) const fn direct(self) -> OpenOptions {
        OpenOptions { direct: true, ..self }
    }

    /// Through the page cache, from which what was read and written is dropped again at once; what was
    /// there before stays. Any range will do, unlike around the cache. Only [`File::read`](crate::File::read)
    /// and [`File::write`](crate::File::write), and what is made of them: others go as always. Needs
    /// Linux 6.14 and a file system that can; elsewhere reads and writes fail with `Unsupported`.
    #[must_use]
    pub const fn uncached(self) -> OpenOptions {
        OpenOptions { uncached: true, ..self }
    }

    /// Refuses a symbolic link as the last component.
    #[must_use]
    pub const fn no_follow(self) -> OpenOptions {
        OpenOptions { follow: false, ..self }
    }

    /// Does not wait for the other end of a fifo.
    #[must_use]
    pub const fn no_wait(self) -> OpenOptions {
        OpenOptions { no_wait: true, ..self }
    }

    /// Refuses to leave the directory the path is relative to, and any symbolic link on the way.
    #[must_use]
    pub const fn beneath(self) -> OpenOptions {
        OpenOptions { beneath: true, follow: false, ..self }
    }
}

/// What a sync makes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncScope {
    /// The file's bytes and what is needed to read them back.
    Data,
    /// The file's bytes and all its metadata.
    All,
    /// Everything on the file system that the file lies on.
    FileSystem,
}

/// What a path names when it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveKind {
    /// Anything but a directory.
    File,
    /// An empty directory.
    Directory,
}

/// What is going to happen to a range of a file, so that the page cache can prepare for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing special.
    Normal,
    /// It is read front to back.
    Sequential,
    /// It is read here and there: reading ahead is in vain.
    Random,
    /// It is read soon: start now.
    WillNeed,
    /// It is not read again soon: its pages may go.
    DontNeed,
}

/// Which direction of a connection is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing more is received.
    Receive,
    /// Nothing more is sent; the other side sees the end.
    Send,
    /// Both.
    Both,
}

/// A setting of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketOption {
    /// Small packets are sent at once (TCP).
    NoDelay(bool),
    /// A silent connection is probed.
    KeepAlive(bool),
    /// How long closing waits for what was not sent yet.
    Linger(Option<Duration>),
    /// Bytes the system keeps of what was received.
    ReceiveBuffer(usize),
    /// Bytes the system keeps of what is to be sent.
    SendBuffer(usize),
}
