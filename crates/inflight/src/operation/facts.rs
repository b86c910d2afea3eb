//! What can be said of an operation without running it.

use std::path::PathBuf;

use super::Operation;
use super::arguments::{At, display_path};
use crate::buffer::Buffer;
use crate::descriptor::{Descriptor, DeviceIndex, Sort};

impl Operation {
    /// What the operation is called in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Operation::Nop => "nop",
            Operation::Open { .. } | Operation::CopyDirectory { .. } => "open",
            Operation::Close { .. } => "close",
            Operation::Read { .. } | Operation::ReadVectored { .. } => "read",
            Operation::ReadFiles { .. } => "read",
            Operation::Write { .. } | Operation::WriteVectored { .. } => "write",
            Operation::WriteFiles { .. } => "write",
            Operation::CopyFiles { reading: true, .. } => "read",
            Operation::CopyFiles { reading: false, .. } => "write",
            Operation::Sync { .. } => "sync",
            Operation::Allocate { .. } => "allocate space for",
            Operation::Truncate { .. } => "set the size of",
            Operation::Metadata { .. } => "look at",
            Operation::CopyMetadata { .. } | Operation::SetMetadata { .. } => {
                "set owner, permissions or times of"
            }
            Operation::SetMode { .. } => "set the permissions of",
            Operation::SetTimes { .. } => "set the times of",
            Operation::SetOwner { .. } => "set the owner of",
            Operation::Rename { .. } => "rename",
            Operation::Remove { .. } => "remove",
            Operation::CreateDirectory { .. } => "create directory",
            Operation::CreateSymlink { .. } => "create symbolic link",
            Operation::CreateNode { .. } => "create",
            Operation::CreateHardLink { .. } => "create hard link",
            Operation::ReadLink { .. } => "read symbolic link",
            Operation::ReadDirectory { .. } | Operation::ListDirectories { .. } => "list",
            Operation::CloneFile { .. } => "clone into",
            Operation::CopyRange { .. } | Operation::Splice { .. } => "copy into",
            Operation::FindData { .. } => "find the holes of",
            Operation::CountCached { .. } => "look for in the page cache",
            Operation::TouchMapped { .. } | Operation::Map { .. } => "map",
            Operation::Populate { .. } => "get memory",
            Operation::ReadAttributes { .. } => "read extended attributes of",
            Operation::WriteAttribute { .. } => "set extended attribute of",
            Operation::WriteSync { .. } => "write and sync",
            Operation::Lock { held: true, .. } => "lock",
            Operation::Lock { held: false, .. } => "unlock",
            Operation::SyncRange { .. } => "sync a range of",
            Operation::Advise { .. } => "advise on",
            Operation::PunchHole { .. } => "make a hole in",
            Operation::Listen { .. } => "listen on",
            Operation::Bind { .. } => "bind to",
            Operation::Accept { .. } => "accept a connection on",
            Operation::Connect { .. } => "connect to",
            Operation::Receive { .. }
            | Operation::ReceivePooled { .. }
            | Operation::ReceiveVectored { .. }
            | Operation::ReceiveFrom { .. } => "receive from",
            Operation::Send { .. }
            | Operation::SendVectored { .. }
            | Operation::SendTo { .. }
            | Operation::SendFile { .. } => "send to",
            Operation::Shutdown { .. } => "shut down",
            Operation::SetSocketOption { .. } => "set an option of",
            Operation::SocketAddress { .. } => "ask for the address of",
            Operation::Sleep { .. } => "sleep",
            Operation::Post { .. } => "wait for what is posted",
        }
    }

    /// The path, or the socket's address, that the operation is about, as far as it is known.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Operation::Nop
            | Operation::Close { .. }
            | Operation::Populate { .. }
            | Operation::Sleep { .. }
            | Operation::Post { .. } => None,
            Operation::Listen { address, .. }
            | Operation::Bind { address, .. }
            | Operation::Connect { address, .. }
            | Operation::SendTo { address, .. } => Some(PathBuf::from(address.to_string())),
            Operation::ReadFiles { directory, pieces, current, .. } => {
                pieces.get(*current).map(|piece| display_path(directory.as_ref(), &piece.path))
            }
            Operation::WriteFiles { directory, files, current, .. } => {
                files.get(*current).map(|file| display_path(directory.as_ref(), &file.path))
            }
            Operation::ListDirectories { directory, listings, current, .. } => {
                let listing = listings.get(*current);
                listing.map(|listing| display_path(directory.as_ref(), &listing.path))
            }
            Operation::CopyFiles { from, to, files, current, reading, .. } => {
                files.get(*current).map(|file| match reading {
                    true => display_path(Some(from), &file.path),
                    false => display_path(Some(to), file.target()),
                })
            }
            other => match other.at() {
                Some(at) => Some(at.display_path()),
                None => other.descriptor().map(|open| open.label().into_owned()),
            },
        }
    }

    /// The path that the operation takes; of two, the one that is there before.
    pub(crate) fn at(&self) -> Option<&At> {
        match self {
            Operation::Open { at, .. }
            | Operation::Metadata { at, .. }
            | Operation::CopyMetadata { to: at, .. }
            | Operation::CopyDirectory { from: at, reading: true, .. }
            | Operation::CopyDirectory { to: at, reading: false, .. }
            | Operation::SetMetadata { at, .. }
            | Operation::SetMode { at, .. }
            | Operation::SetTimes { at, .. }
            | Operation::SetOwner { at, .. }
            | Operation::Remove { at, .. }
            | Operation::CreateDirectory { at, .. }
            | Operation::CreateSymlink { at, .. }
            | Operation::CreateNode { at, .. }
            | Operation::CreateHardLink { at, .. }
            | Operation::ReadLink { at, .. }
            | Operation::ReadAttributes { at, .. }
            | Operation::WriteAttribute { at, .. }
            | Operation::Rename { from: at, .. } => Some(at),
            _ => None,
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
            | Operation::WriteSync { offset, .. }
            | Operation::SyncRange { offset, .. }
            | Operation::Advise { offset, .. }
            | Operation::PunchHole { offset, .. }
            | Operation::FindData { offset, .. }
            | Operation::TouchMapped { offset, .. } => Some(*offset),
            Operation::CopyRange { to_offset, .. } | Operation::Splice { to_offset, .. } => {
                Some(*to_offset)
            }
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
            Operation::Write { buffer, start, length, offset, .. }
            | Operation::WriteSync { buffer, start, length, offset, .. } => {
                inside(buffer, *start, *length) && in_file(*offset, *length as u64)
            }
            Operation::ReadFiles { pieces, .. } => {
                pieces.iter().all(|piece| in_file(piece.offset, piece.length as u64))
            }
            Operation::WriteFiles { files, buffer, .. } => {
                files.iter().all(|file| inside(buffer, file.start, file.length))
            }
            Operation::CopyDirectory { copy, .. } => copy.buffer.capacity() > 0,
            Operation::CopyFiles { files, buffer, .. } => {
                files.iter().all(|file| file.length < buffer.capacity())
            }
            Operation::Send { buffer, start, length, .. } => inside(buffer, *start, *length),
            Operation::Splice { from_offset, to_offset, length, .. } => {
                in_file(*from_offset, *length) && in_file(*to_offset, *length)
            }
            Operation::SendFile { offset, length, .. }
            | Operation::Allocate { offset, length, .. }
            | Operation::PunchHole { offset, length, .. }
            | Operation::SyncRange { offset, length, .. }
            | Operation::Advise { offset, length, .. } => in_file(*offset, *length),
            // Nobody but a program's own code can end it.
            Operation::Post { .. } => false,
            _ => true,
        }
    }

    /// Whether the operation is about nothing that is open on a simulated disk.
    pub(crate) fn is_for_system(&self) -> bool {
        let system = |descriptor: &Descriptor| descriptor.foreign_number().is_none();
        let at = |at: &At| at.directory.as_ref().is_none_or(system);
        match self {
            Operation::Nop
            | Operation::Listen { .. }
            | Operation::Bind { .. }
            | Operation::Connect { .. }
            | Operation::Populate { .. }
            | Operation::Sleep { .. }
            | Operation::Post { .. } => true,
            Operation::Close { descriptor } => descriptor.foreign_number().is_none(),
            Operation::Open { at: path, .. }
            | Operation::Metadata { at: path, .. }
            | Operation::SetMetadata { at: path, .. }
            | Operation::SetMode { at: path, .. }
            | Operation::SetTimes { at: path, .. }
            | Operation::SetOwner { at: path, .. }
            | Operation::Remove { at: path, .. }
            | Operation::CreateDirectory { at: path, .. }
            | Operation::CreateSymlink { at: path, .. }
            | Operation::CreateNode { at: path, .. }
            | Operation::ReadLink { at: path, .. }
            | Operation::ReadAttributes { at: path, .. }
            | Operation::WriteAttribute { at: path, .. } => at(path),
            Operation::Rename { from, to, .. } => at(from) && at(to),
            Operation::CopyMetadata { from, to, .. }
            | Operation::CopyDirectory { from, to, .. } => at(from) && at(to),
            Operation::CreateHardLink { original, at: path } => at(original) && at(path),
            Operation::ReadFiles { directory, .. }
            | Operation::WriteFiles { directory, .. }
            | Operation::ListDirectories { directory, .. } => directory.as_ref().is_none_or(system),
            Operation::CopyRange { from, to, .. }
            | Operation::Splice { from, to, .. }
            | Operation::CopyFiles { from, to, .. }
            | Operation::CloneFile { from, to } => system(from) && system(to),
            Operation::SendFile { file, socket, .. } => system(file) && system(socket),
            other => other.descriptor().is_none_or(system),
        }
    }

    /// Whether the operation waits for the world outside (a peer, a time), maybe for ever.
    pub(crate) const fn waits(&self) -> bool {
        matches!(
            self,
            Operation::Accept { .. }
                | Operation::Connect { .. }
                | Operation::Receive { .. }
                | Operation::ReceivePooled { .. }
                | Operation::ReceiveVectored { .. }
                | Operation::ReceiveFrom { .. }
                | Operation::Send { .. }
                | Operation::SendVectored { .. }
                | Operation::SendTo { .. }
                | Operation::SendFile { .. }
                | Operation::Sleep { .. }
        )
    }

    /// Whether the operation is a transfer that goes to the device itself.
    #[inline]
    pub(crate) fn is_for_device(&self) -> bool {
        match self {
            Operation::Read { file, .. }
            | Operation::Write { file, .. }
            | Operation::ReadVectored { file, .. }
            | Operation::WriteVectored { file, .. } => file.sort() == Sort::DirectFile,
            _ => false,
        }
    }

    /// The device that the operation concerns, as far as something of it is open.
    #[inline]
    pub(crate) fn device(&self) -> DeviceIndex {
        match self {
            Operation::ReadFiles { directory, .. }
            | Operation::WriteFiles { directory, .. }
            | Operation::ListDirectories { directory, .. } => {
                directory.as_ref().map_or(0, Descriptor::device)
            }
            Operation::CopyDirectory { to, .. } => {
                to.directory.as_ref().map_or(0, Descriptor::device)
            }
            Operation::SendFile { file, .. } => file.device(),
            other => other.descriptor().map_or(0, Descriptor::device),
        }
    }

    /// What is open that the operation is about; of two, the one that something is done to.
    #[inline]
    pub(crate) fn descriptor(&self) -> Option<&Descriptor> {
        match self {
            Operation::Read { file, .. }
            | Operation::Write { file, .. }
            | Operation::ReadVectored { file, .. }
            | Operation::WriteVectored { file, .. }
            | Operation::Sync { file, .. }
            | Operation::Allocate { file, .. }
            | Operation::Truncate { file, .. }
            | Operation::ReadDirectory { directory: file, .. }
            | Operation::FindData { file, .. }
            | Operation::CountCached { file, .. }
            | Operation::Map { file, .. }
            | Operation::TouchMapped { file, .. }
            | Operation::CopyRange { to: file, .. }
            | Operation::Splice { to: file, .. }
            | Operation::CopyFiles { to: file, .. }
            | Operation::CloneFile { to: file, .. }
            | Operation::WriteSync { file, .. }
            | Operation::Lock { file, .. }
            | Operation::SyncRange { file, .. }
            | Operation::Advise { file, .. }
            | Operation::PunchHole { file, .. }
            | Operation::Accept { listener: file, .. }
            | Operation::Receive { socket: file, .. }
            | Operation::ReceivePooled { socket: file, .. }
            | Operation::ReceiveVectored { socket: file, .. }
            | Operation::ReceiveFrom { socket: file, .. }
            | Operation::Send { socket: file, .. }
            | Operation::SendVectored { socket: file, .. }
            | Operation::SendFile { socket: file, .. }
            | Operation::Shutdown { socket: file, .. }
            | Operation::SetSocketOption { socket: file, .. }
            | Operation::SocketAddress { socket: file, .. } => Some(file),
            Operation::SendTo { socket, .. } => Some(socket),
            Operation::Nop
            | Operation::Open { .. }
            | Operation::Close { .. }
            | Operation::ReadFiles { .. }
            | Operation::WriteFiles { .. }
            | Operation::ListDirectories { .. }
            | Operation::Metadata { .. }
            | Operation::CopyMetadata { .. }
            | Operation::CopyDirectory { .. }
            | Operation::SetMetadata { .. }
            | Operation::SetMode { .. }
            | Operation::SetTimes { .. }
            | Operation::SetOwner { .. }
            | Operation::Rename { .. }
            | Operation::Remove { .. }
            | Operation::CreateDirectory { .. }
            | Operation::CreateSymlink { .. }
            | Operation::CreateNode { .. }
            | Operation::CreateHardLink { .. }
            | Operation::ReadLink { .. }
            | Operation::ReadAttributes { .. }
            | Operation::WriteAttribute { .. }
            | Operation::Listen { .. }
            | Operation::Bind { .. }
            | Operation::Connect { .. }
            | Operation::Populate { .. }
            | Operation::Sleep { .. }
            | Operation::Post { .. } => None,
        }
    }

    /// Whether the operation moves file contents, for the metrics.
    pub(crate) const fn direction(&self) -> Direction {
        match self {
            Operation::Read { .. }
            | Operation::ReadVectored { .. }
            | Operation::ReadFiles { .. }
            | Operation::TouchMapped { .. } => Direction::Read,
            Operation::Write { .. }
            | Operation::WriteVectored { .. }
            | Operation::WriteSync { .. }
            | Operation::WriteFiles { .. } => Direction::Write,
            Operation::CopyRange { .. }
            | Operation::Splice { .. }
            | Operation::CopyFiles { .. }
            | Operation::CopyDirectory { .. } => Direction::Both,
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
