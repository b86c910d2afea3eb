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

mod arguments;
mod directory_copy;
mod facts;

use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::arrivals::Arrivals;
use crate::buffer::{ArenaRange, Buffer, BufferList, MappedBytes};
use crate::descriptor::{Descriptor, OwnedDescriptor};
use crate::metadata::{DirectoryBatch, FileKind, Metadata, Owner, SetTimes};

pub(crate) use arguments::Create;
pub use arguments::{
    Advice, At, CopiedFile, DirectoryListing, FilePiece, NewFile, OpenOptions, RemoveKind,
    SetMetadata, Shutdown, SocketOption, SyncScope, TRANSFER_BYTES_MAX,
};
pub(crate) use directory_copy::{Copier, Level};
pub use directory_copy::{DirectoryCopy, Kept};
pub(crate) use facts::Direction;

/// One request to the system: everything the engine can be asked to do is a value of this type, and a
/// driver is an interpreter of it. It *owns* all that it needs.
///
/// Results come back in two places: a number (bytes moved) beside the operation, and whatever is
/// larger (bytes read, a descriptor, metadata) inside it: see
/// [`Handle::submit`](crate::Handle::submit). Reads append to their buffer behind its filled part;
/// writes take a range of theirs. One operation moves at most [`TRANSFER_BYTES_MAX`] bytes.
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
        descriptor: Option<OwnedDescriptor>,
    },
    /// Gives a descriptor back to the system.
    Close {
        /// What to close.
        descriptor: OwnedDescriptor,
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
    /// Makes files of ranges of `buffer` with exactly the permissions asked for: many small files in
    /// one operation. When it fails, those before the one that the error is about are whole, and
    /// that one is not there. Result: bytes written, always all.
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
    /// Copies files from one directory to another, with their extended attributes: many small files in
    /// one operation. When it fails, those before the one that the error is about are whole, and of
    /// that one there is no copy. Result: bytes copied.
    CopyFiles {
        /// What the sources' paths are relative to.
        from: Descriptor,
        /// What the copies' paths are relative to.
        to: Descriptor,
        /// The files.
        files: Vec<CopiedFile>,
        /// The file being worked on: the one that an error is about.
        current: usize,
        /// Whether an error is about the source.
        reading: bool,
        /// Room for the bytes of the longest file, and one more.
        buffer: Buffer,
    },
    /// Makes a directory and copies what is small in it and in the directories inside, up to 1,024 files and as
    /// far as nothing goes wrong. Directories that are not done are handed out, listed and open, so that
    /// whoever asked can do the rest. An error is about the opening of the outermost. Result: bytes copied.
    CopyDirectory {
        /// The source, on a way without links.
        from: At,
        /// The new directory, on a way without links.
        to: At,
        /// Whether an error is about the source.
        reading: bool,
        /// How, and what came of it.
        copy: Box<DirectoryCopy>,
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
    /// Gives a path itself the extended attributes of another, and sets its owner, permissions and times
    /// as [`Operation::SetMetadata`] does. Result: how many attributes it did not get, as its file system
    /// or its user may not have them.
    CopyMetadata {
        /// Whose attributes; empty for the descriptor of `from` itself.
        from: At,
        /// Who gets them; empty for the descriptor of `to` itself.
        to: At,
        /// What else is set.
        metadata: Box<SetMetadata>,
    },
    /// Sets owner, permissions and times of the path itself, in this order, as far as they are asked for
    /// and not right already. A symbolic link keeps its permissions.
    SetMetadata {
        /// The path; empty for the descriptor of `at` itself.
        at: At,
        /// What is set.
        metadata: SetMetadata,
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
        /// The path; empty for the descriptor of `at` itself.
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
    /// Makes a fifo, a socket's name or a device file.
    CreateNode {
        /// Its path.
        at: At,
        /// What it is: a fifo, a socket or a device.
        kind: FileKind,
        /// Permission bits before the process's mask.
        mode: u32,
        /// Of a device file, the device that it stands for: [`Metadata::node`].
        node: u32,
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
    /// Opens directories and reads the first entries of each, which most often are all: many in one
    /// operation. Result: how many entries.
    ListDirectories {
        /// What relative paths are relative to.
        directory: Option<Descriptor>,
        /// Whether each entry's metadata is fetched too.
        metadata: bool,
        /// The directories, and what was found.
        listings: Vec<DirectoryListing>,
        /// The one being worked on: the one that an error is about.
        current: usize,
    },
    /// Makes a file share the whole contents of another, until one of them is written: on file
    /// systems that can (btrfs, XFS), and only within one.
    CloneFile {
        /// The source.
        from: Descriptor,
        /// The target, open for writing; what it had is gone.
        to: Descriptor,
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
    /// Copies between files through the page cache, inside the kernel: what is there goes over once, where a read and
    /// a write copy it twice. Result: bytes copied, 0 at the end of `from`.
    Splice {
        /// The source.
        from: Descriptor,
        /// Byte position in the source.
        from_offset: u64,
        /// The target, on any file system.
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
    /// Asks how much of a file the page cache has, which reads nothing. The result counts bytes of the
    /// range, in whole pages; all of them where the system cannot say.
    CountCached {
        /// The open file.
        file: Descriptor,
        /// Bytes of it to look at, from its start on.
        length: u64,
    },
    /// Maps a range of a file and looks at all of it, which reads what the page cache does not have: with a
    /// `step`, the kernel is asked to bring so many bytes at a time; with 0, each page is brought
    /// when it is looked at. For comparing that with reads. A file that is cut short meanwhile ends the
    /// process, as it does for everybody who maps. Result: bytes that there were.
    TouchMapped {
        /// The open file.
        file: Descriptor,
        /// First byte, in whole pages.
        offset: u64,
        /// Bytes.
        length: usize,
        /// Bytes brought at a time, in whole pages; 0 for page by page.
        step: usize,
    },
    /// Maps the front of a file for [`Handle::load_with`](crate::Handle::load_with), and brings nothing.
    Map {
        /// The open file.
        file: Descriptor,
        /// Bytes, at least one.
        length: usize,
        /// Receives them.
        mapped: Option<MappedBytes>,
    },
    /// Has the system give the memory of a place in an [`Arena`](crate::Arena) before it is needed, which takes
    /// it longer than a fast disk to fill it. What the place holds stays, so reads into it may be under
    /// way. Of a mapped file, has it bring what the page cache does not have. Where a system does not know how,
    /// that is an error, and nothing else happened.
    Populate {
        /// The place.
        range: ArenaRange,
    },
    /// Reads all extended attributes of the path itself.
    ReadAttributes {
        /// The path; empty for the descriptor of `at` itself.
        at: At,
        /// Receives name and value of each, sorted by name.
        attributes: Vec<(CString, Vec<u8>)>,
    },
    /// Sets one extended attribute of the path itself.
    WriteAttribute {
        /// The path; empty for the descriptor of `at` itself.
        at: At,
        /// The attribute's name.
        name: CString,
        /// Its value.
        value: Vec<u8>,
    },
    /// Writes like [`Operation::Write`] and then makes the file durable, in one go. A write that
    /// came out short is not followed by the sync. Result: bytes written.
    WriteSync {
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
        /// How much of the file is made durable.
        scope: SyncScope,
    },
    /// Takes the lock of an open file or directory, which others that know of locks take too, or gives it
    /// back. It is held until then, or until that is closed. Fails with `EWOULDBLOCK` where somebody has it.
    Lock {
        /// What is open.
        file: Descriptor,
        /// Whether it is to be held.
        held: bool,
    },
    /// Starts writing a range of what the page cache has to the device, without making it durable:
    /// a later sync has less to do.
    SyncRange {
        /// The open file.
        file: Descriptor,
        /// First byte.
        offset: u64,
        /// Bytes; 0 means up to the end.
        length: u64,
        /// Whether it ends only when they are written.
        wait: bool,
    },
    /// Tells the page cache what is going to happen to a range.
    Advise {
        /// The open file.
        file: Descriptor,
        /// First byte.
        offset: u64,
        /// Bytes; 0 means up to the end.
        length: u64,
        /// What is going to happen.
        advice: Advice,
    },
    /// Makes a range a hole, which reads as zeros and takes no space; the size stays.
    PunchHole {
        /// The open file.
        file: Descriptor,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Makes a socket that listens for connections.
    Listen {
        /// Where; of an IP address with port 0 the system chooses the port.
        address: Address,
        /// How many connections may wait to be accepted.
        backlog: u32,
        /// Receives the descriptor.
        descriptor: Option<OwnedDescriptor>,
    },
    /// Makes a socket for datagrams.
    Bind {
        /// Where it receives.
        address: Address,
        /// Receives the descriptor.
        descriptor: Option<OwnedDescriptor>,
    },
    /// Accepts connections, one after the other, until it is cancelled, fails, or there is no room
    /// for more.
    Accept {
        /// The listening socket.
        listener: Descriptor,
        /// Receives the connections.
        arrivals: Arc<Arrivals>,
    },
    /// Connects.
    Connect {
        /// Where to.
        address: Address,
        /// Receives the descriptor.
        descriptor: Option<OwnedDescriptor>,
    },
    /// Appends up to `length` bytes that arrive to `buffer`. Result: bytes received, 0 at the end.
    Receive {
        /// The connection.
        socket: Descriptor,
        /// Receives the bytes.
        buffer: Buffer,
        /// Bytes wanted.
        length: usize,
    },
    /// Like [`Operation::Receive`], into a buffer that is taken from the pool only once there is
    /// something to receive: an idle connection holds none. Fails with `ENOBUFS` where the pool
    /// has none left.
    ReceivePooled {
        /// The connection.
        socket: Descriptor,
        /// Receives the buffer, with the bytes.
        buffer: Buffer,
    },
    /// Fills the spare room of each buffer in turn. Result: bytes received in all.
    ReceiveVectored {
        /// The connection.
        socket: Descriptor,
        /// Receive the bytes.
        buffers: BufferList,
    },
    /// Receives one datagram. Result: its bytes; what does not fit is lost.
    ReceiveFrom {
        /// The socket.
        socket: Descriptor,
        /// Receives the bytes.
        buffer: Buffer,
        /// Receives where it comes from.
        peer: Address,
    },
    /// Sends `length` bytes of `buffer` from `start` on. Result: bytes sent.
    Send {
        /// The connection.
        socket: Descriptor,
        /// Holds the bytes.
        buffer: Buffer,
        /// First byte of the buffer to send.
        start: usize,
        /// Bytes to send.
        length: usize,
        /// Whether the network takes them from the buffer in place of a copy, where it can. The
        /// operation then ends only when it has them; pays from some ten KiB on.
        zero_copy: bool,
    },
    /// Sends the filled part of each buffer in turn. Result: bytes sent in all.
    SendVectored {
        /// The connection.
        socket: Descriptor,
        /// Hold the bytes.
        buffers: BufferList,
    },
    /// Sends one datagram, the filled part of `buffer`. Result: bytes sent.
    SendTo {
        /// The socket.
        socket: Descriptor,
        /// Holds the bytes.
        buffer: Buffer,
        /// Where to.
        address: Address,
    },
    /// Sends a range of a file without a copy through us. Result: bytes sent, 0 at the file's end.
    SendFile {
        /// The open file.
        file: Descriptor,
        /// First byte.
        offset: u64,
        /// The connection.
        socket: Descriptor,
        /// Bytes.
        length: u64,
    },
    /// Ends one or both directions of a connection.
    Shutdown {
        /// The connection.
        socket: Descriptor,
        /// Which direction.
        how: Shutdown,
    },
    /// Changes a setting of a socket.
    SetSocketOption {
        /// The socket.
        socket: Descriptor,
        /// The setting.
        option: SocketOption,
    },
    /// Asks for the address of a socket.
    SocketAddress {
        /// The socket.
        socket: Descriptor,
        /// Whether that of the other end is meant.
        peer: bool,
        /// Receives it.
        address: Address,
    },
    /// Ends after some time.
    Sleep {
        /// How long, from when the driver gets it.
        duration: Duration,
    },
    /// Ends when the program says so: see [`completion`](crate::Handle::completion). Result: what it said.
    Post {
        /// Receives what came with it.
        buffer: Buffer,
    },
}
