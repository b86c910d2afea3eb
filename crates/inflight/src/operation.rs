//! The vocabulary: everything the engine can be asked to do.
//!
//! All I/O of all crates is a value of one enum, [`Operation`]. A driver is an interpreter of
//! that enum, so whatever is built on the engine runs on every driver unchanged. An operation
//! *owns* all it needs (buffers, paths, a share of the descriptor), which is what makes it safe
//! to drop the future that waits for it: see [`crate::Pending`].
//!
//! Results come back in two places: a number (bytes moved, a new descriptor) beside the
//! operation, and whatever is larger (bytes read, metadata, directory entries) inside it.
//!
//! Limit: one operation moves at most [`TRANSFER_BYTES_MAX`] bytes, the kernel's own limit.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::buffer::{Buffer, BufferList};
use crate::descriptor::Descriptor;
use crate::metadata::{DirectoryBatch, Metadata, Owner, SetTimes};

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

fn display_path(directory: Option<&Descriptor>, path: &CStr) -> PathBuf {
    let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    match directory {
        Some(directory) if path.as_os_str().is_empty() => directory.path().to_path_buf(),
        Some(directory) => directory.path().join(path),
        None => path.to_path_buf(),
    }
}

/// A piece of a file, for [`Operation::ReadFiles`].
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

/// A file to be made, for [`Operation::WriteFiles`].
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

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) create: Create,
    pub(crate) truncate: bool,
    pub(crate) direct: bool,
    pub(crate) directory: bool,
    pub(crate) follow: bool,
    pub(crate) beneath: bool,
    pub(crate) mode: u32,
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
            directory: false,
            follow: true,
            beneath: false,
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
        OpenOptions { create: Create::Exclusive, follow: false, mode, ..OpenOptions::writing() }
    }

    /// Writing a file, made when missing and emptied when not.
    #[must_use]
    pub const fn replacing(mode: u32) -> OpenOptions {
        OpenOptions { create: Create::IfMissing, truncate: true, mode, ..OpenOptions::writing() }
    }

    /// Opening a directory, to read it or to resolve paths against it.
    #[must_use]
    pub const fn directory() -> OpenOptions {
        OpenOptions { directory: true, ..OpenOptions::reading() }
    }

    /// Both directions, whatever this was before.
    #[must_use]
    pub const fn read_write(self) -> OpenOptions {
        OpenOptions { read: true, write: true, ..self }
    }

    /// Around the page cache. Use [`crate::DirectFile`], whose types keep the alignment rules.
    #[must_use]
    pub(crate) const fn direct(self) -> OpenOptions {
        OpenOptions { direct: true, ..self }
    }

    /// Refuses a symbolic link as the last component.
    #[must_use]
    pub const fn no_follow(self) -> OpenOptions {
        OpenOptions { follow: false, ..self }
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

/// One request to the system. See the module's text for where results are.
///
/// Reads append to their buffer behind its filled part; writes take a range of theirs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Does nothing; measures the way there and back.
    Nop,
    /// Opens a file or directory.
    Open {
        /// What to open.
        at: At,
        /// How.
        options: OpenOptions,
        /// Receives the descriptor.
        descriptor: Option<OwnedFd>,
    },
    /// Gives a descriptor back to the system.
    Close {
        /// What to close.
        descriptor: OwnedFd,
    },
    /// Appends up to `length` bytes from `offset` to `buffer`. Result: bytes read, 0 at the end.
    Read {
        /// The open file.
        file: Descriptor,
        /// Receives the bytes.
        buffer: Buffer,
        /// Bytes wanted.
        length: usize,
        /// Byte position in the file.
        offset: u64,
    },
    /// Writes `length` bytes of `buffer` from `start` on. Result: bytes written.
    Write {
        /// The open file.
        file: Descriptor,
        /// Holds the bytes.
        buffer: Buffer,
        /// First byte of the buffer to write.
        start: usize,
        /// Bytes to write.
        length: usize,
        /// Byte position in the file.
        offset: u64,
    },
    /// Fills the spare room of each buffer in turn. Result: bytes read in all.
    ReadVectored {
        /// The open file.
        file: Descriptor,
        /// Receive the bytes.
        buffers: BufferList,
        /// Byte position in the file.
        offset: u64,
    },
    /// Writes the filled part of each buffer in turn. Result: bytes written in all.
    WriteVectored {
        /// The open file.
        file: Descriptor,
        /// Hold the bytes.
        buffers: BufferList,
        /// Byte position in the file.
        offset: u64,
    },
    /// Appends pieces of files to `buffer`, opening and closing as it goes: many small files in
    /// one operation. Stops behind the first piece that is shorter than asked. Result: bytes read.
    ReadFiles {
        /// What relative paths are relative to.
        directory: Option<Descriptor>,
        /// How to open them.
        options: OpenOptions,
        /// What to read, in order; neighbours of one path share an open file.
        pieces: Vec<FilePiece>,
        /// The piece being worked on: the one that an error is about.
        current: usize,
        /// Receives the bytes.
        buffer: Buffer,
    },
    /// Makes files of ranges of `buffer` with exactly the permissions asked for: many small files
    /// in one operation. Result: bytes written, always all.
    WriteFiles {
        /// What relative paths are relative to.
        directory: Option<Descriptor>,
        /// The files, none of which may exist.
        files: Vec<NewFile>,
        /// The file being worked on: the one that an error is about.
        current: usize,
        /// Holds the bytes.
        buffer: Buffer,
    },
    /// Makes what was written durable.
    Sync {
        /// The open file.
        file: Descriptor,
        /// How much of it.
        scope: SyncScope,
    },
    /// Reserves space without changing the size's meaning: the file grows to hold the range.
    Allocate {
        /// The open file.
        file: Descriptor,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Sets a file's size.
    Truncate {
        /// The open file.
        file: Descriptor,
        /// Bytes.
        length: u64,
    },
    /// What the system knows about a path.
    Metadata {
        /// The path; empty for the directory (or file) of `at` itself.
        at: At,
        /// Whether a symbolic link is looked through.
        follow: bool,
        /// Receives the answer.
        metadata: Metadata,
    },
    /// Sets permission bits, through symbolic links.
    SetMode {
        /// The path; empty for the descriptor of `at` itself.
        at: At,
        /// Permission bits.
        mode: u32,
    },
    /// Sets access and modification times of the path itself, not of what a link points to.
    SetTimes {
        /// The path; empty for the descriptor of `at` itself.
        at: At,
        /// The times.
        times: SetTimes,
    },
    /// Sets user and group of the path itself, not of what a link points to.
    SetOwner {
        /// The path.
        at: At,
        /// Numeric user and group.
        owner: Owner,
    },
    /// Renames within one file system.
    Rename {
        /// The old name.
        from: At,
        /// The new name.
        to: At,
        /// Whether something of the new name is replaced; an error otherwise.
        replace: bool,
    },
    /// Removes a name.
    Remove {
        /// The name.
        at: At,
        /// What it names.
        kind: RemoveKind,
    },
    /// Makes a directory.
    CreateDirectory {
        /// Its path.
        at: At,
        /// Permission bits before the process's mask.
        mode: u32,
    },
    /// Makes a symbolic link.
    CreateSymlink {
        /// What the link says.
        target: CString,
        /// The link's path.
        at: At,
    },
    /// Makes a second name for a file; a symbolic link is not followed.
    CreateHardLink {
        /// The existing name.
        original: At,
        /// The new one.
        at: At,
    },
    /// Appends what a symbolic link says to `target`.
    ReadLink {
        /// The link.
        at: At,
        /// Receives the bytes.
        target: Vec<u8>,
    },
    /// Reads the next entries of an open directory. Result: how many; 0 at the end.
    ReadDirectory {
        /// The open directory; its position moves.
        directory: Descriptor,
        /// Whether each entry's metadata is fetched too.
        metadata: bool,
        /// Receives the entries, emptied first.
        batch: DirectoryBatch,
    },
    /// Copies between files inside the kernel. Result: bytes copied, 0 at the end of `from`.
    CopyRange {
        /// The source.
        from: Descriptor,
        /// Byte position in the source.
        from_offset: u64,
        /// The target.
        to: Descriptor,
        /// Byte position in the target.
        to_offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Finds the first run of data at or after `offset`; the rest is holes.
    FindData {
        /// The open file.
        file: Descriptor,
        /// Byte position to look from.
        offset: u64,
        /// Receives the run as (first byte, byte behind the last), or `None` behind all data.
        data: Option<(u64, u64)>,
    },
    /// Asks whether the page cache has some places of a file, which are spread evenly. The result
    /// counts those that it has; all of them where the system cannot say.
    SampleCache {
        /// The open file.
        file: Descriptor,
        /// Bytes of it to look at, from its start on.
        length: u64,
        /// How many places.
        places: u32,
    },
    /// Reads all extended attributes of the path itself.
    ReadAttributes {
        /// The path.
        at: At,
        /// Receives name and value of each, sorted by name.
        attributes: Vec<(CString, Vec<u8>)>,
    },
    /// Sets one extended attribute of the path itself.
    WriteAttribute {
        /// The path.
        at: At,
        /// The attribute's name.
        name: CString,
        /// Its value.
        value: Vec<u8>,
    },
}

impl Operation {
    /// What the operation is called in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Operation::Nop => "nop",
            Operation::Open { .. } => "open",
            Operation::Close { .. } => "close",
            Operation::Read { .. } | Operation::ReadVectored { .. } => "read",
            Operation::ReadFiles { .. } => "read",
            Operation::Write { .. } | Operation::WriteVectored { .. } => "write",
            Operation::WriteFiles { .. } => "write",
            Operation::Sync { .. } => "sync",
            Operation::Allocate { .. } => "allocate space for",
            Operation::Truncate { .. } => "set the size of",
            Operation::Metadata { .. } => "look at",
            Operation::SetMode { .. } => "set the permissions of",
            Operation::SetTimes { .. } => "set the times of",
            Operation::SetOwner { .. } => "set the owner of",
            Operation::Rename { .. } => "rename",
            Operation::Remove { .. } => "remove",
            Operation::CreateDirectory { .. } => "create directory",
            Operation::CreateSymlink { .. } => "create symbolic link",
            Operation::CreateHardLink { .. } => "create hard link",
            Operation::ReadLink { .. } => "read symbolic link",
            Operation::ReadDirectory { .. } => "list",
            Operation::CopyRange { .. } => "copy",
            Operation::FindData { .. } => "find the holes of",
            Operation::SampleCache { .. } => "look for in the page cache",
            Operation::ReadAttributes { .. } => "read extended attributes of",
            Operation::WriteAttribute { .. } => "set extended attribute of",
        }
    }

    /// The path the operation is about, as far as it is known.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Operation::Nop | Operation::Close { .. } => None,
            Operation::Open { at, .. }
            | Operation::Metadata { at, .. }
            | Operation::SetMode { at, .. }
            | Operation::SetTimes { at, .. }
            | Operation::SetOwner { at, .. }
            | Operation::Remove { at, .. }
            | Operation::CreateDirectory { at, .. }
            | Operation::CreateSymlink { at, .. }
            | Operation::CreateHardLink { at, .. }
            | Operation::ReadLink { at, .. }
            | Operation::ReadAttributes { at, .. }
            | Operation::WriteAttribute { at, .. } => Some(at.display_path()),
            Operation::Rename { from, .. } => Some(from.display_path()),
            Operation::ReadFiles { directory, pieces, current, .. } => {
                pieces.get(*current).map(|piece| display_path(directory.as_ref(), &piece.path))
            }
            Operation::WriteFiles { directory, files, current, .. } => {
                files.get(*current).map(|file| display_path(directory.as_ref(), &file.path))
            }
            Operation::Read { file, .. }
            | Operation::Write { file, .. }
            | Operation::ReadVectored { file, .. }
            | Operation::WriteVectored { file, .. }
            | Operation::Sync { file, .. }
            | Operation::Allocate { file, .. }
            | Operation::Truncate { file, .. }
            | Operation::ReadDirectory { directory: file, .. }
            | Operation::FindData { file, .. }
            | Operation::SampleCache { file, .. }
            | Operation::CopyRange { to: file, .. } => Some(file.path().to_path_buf()),
        }
    }

    /// The byte position the operation is about, where it has one.
    #[must_use]
    pub const fn offset(&self) -> Option<u64> {
        match self {
            Operation::Read { offset, .. }
            | Operation::Write { offset, .. }
            | Operation::ReadVectored { offset, .. }
            | Operation::WriteVectored { offset, .. }
            | Operation::Allocate { offset, .. }
            | Operation::FindData { offset, .. } => Some(*offset),
            Operation::CopyRange { to_offset, .. } => Some(*to_offset),
            _ => None,
        }
    }

    /// Whether what it asks for can be: ranges lie in their buffers and in what files can hold.
    pub(crate) fn is_valid(&self) -> bool {
        let inside = |buffer: &Buffer, start: usize, length: usize| {
            start.checked_add(length).is_some_and(|end| end <= buffer.len())
        };
        let in_file = |offset: u64, length: u64| {
            offset.checked_add(length).is_some_and(|end| end < i64::MAX as u64)
        };
        match self {
            Operation::Read { length, offset, .. } => in_file(*offset, *length as u64),
            Operation::Write { buffer, start, length, offset, .. } => {
                inside(buffer, *start, *length) && in_file(*offset, *length as u64)
            }
            Operation::ReadFiles { pieces, .. } => {
                pieces.iter().all(|piece| in_file(piece.offset, piece.length as u64))
            }
            Operation::WriteFiles { files, buffer, .. } => {
                files.iter().all(|file| inside(buffer, file.start, file.length))
            }
            _ => true,
        }
    }

    /// Whether the operation moves file contents, for the metrics.
    pub(crate) const fn direction(&self) -> Direction {
        match self {
            Operation::Read { .. }
            | Operation::ReadVectored { .. }
            | Operation::ReadFiles { .. } => Direction::Read,
            Operation::Write { .. }
            | Operation::WriteVectored { .. }
            | Operation::WriteFiles { .. } => Direction::Write,
            Operation::CopyRange { .. } => Direction::Both,
            _ => Direction::None,
        }
    }
}

/// Which way an operation moves file contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    None,
    Read,
    Write,
    Both,
}
