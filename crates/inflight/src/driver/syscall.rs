//! One operation as blocking system calls, on the calling thread.
//!
//! Interrupted calls are repeated. Unsafe code here is limited to handing buffers to the kernel.

mod about;
mod cached;
mod many;
mod mapped;
pub(super) mod socket;
mod splice;

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, CWD, FallocateFlags, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, SeekFrom,
};
use rustix::io::{Errno, IoSlice, IoSliceMut, ReadWriteFlags, Result, retry_on_intr};

use crate::address::Address;
use crate::buffer::{Buffer, MappedBytes};
use crate::descriptor::Sort;
use crate::metadata::DirectoryBatch;
use crate::operation::{
    Advice, At, Create, OpenOptions, Operation, RemoveKind, SyncScope, TRANSFER_BYTES_MAX,
};

/// Room for the kernel's directory entries: some hundred names a call.
const DIRECTORY_BYTES: usize = 32 << 10;

/// `RWF_DONTCACHE`: what is read or written is dropped from the page cache again.
pub(super) const DROP_BEHIND: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Performs the operation. The result is what its documentation says.
pub(super) fn perform(operation: &mut Operation) -> Result<u64> {
    if socket::readiness(operation).is_some() || is_instant(operation) {
        return socket::perform(operation);
    }
    match operation {
        Operation::Nop => Ok(0),
        Operation::Open { at, options, descriptor } => {
            *descriptor = Some(open_owned(directory(at), &at.path, *options)?.into());
            Ok(0)
        }
        Operation::Close { .. } => {
            // Dropping the descriptor closes it; the system has no useful error here.
            *operation = Operation::Nop;
            Ok(0)
        }
        Operation::Read { file, buffer, length, offset } => {
            let length = read_length(buffer, *length);
            match file.sort() {
                Sort::UncachedFile => retry_on_intr(|| {
                    read_flagged(file.as_fd(), buffer, length, *offset, DROP_BEHIND)
                }),
                _ => read_some(file.as_fd(), buffer, length, *offset),
            }
        }
        Operation::Write { file, buffer, start, length, offset } => {
            let bytes = write_range(buffer, *start, *length);
            let write = || match file.sort() {
                Sort::UncachedFile => {
                    rustix::io::pwritev2(&*file, &[IoSlice::new(bytes)], *offset, DROP_BEHIND)
                }
                _ => rustix::io::pwrite(&*file, bytes, *offset),
            };
            retry_on_intr(write).map(|n| n as u64)
        }
        Operation::WriteSync { file, buffer, start, length, offset, scope } => {
            let bytes = write_range(buffer, *start, *length);
            let written = retry_on_intr(|| rustix::io::pwrite(&*file, bytes, *offset))?;
            if written == bytes.len() {
                sync(file.as_fd(), *scope)?;
            }
            Ok(written as u64)
        }
        Operation::ReadVectored { .. } | Operation::WriteVectored { .. } => vectored(operation),
        Operation::ReadFiles { directory, options, pieces, current, buffer } => {
            let directory = directory.as_ref().map_or(CWD, |directory| directory.as_fd());
            many::read_files(directory, *options, pieces, current, buffer)
        }
        Operation::WriteFiles { directory, files, current, buffer } => {
            let directory = directory.as_ref().map_or(CWD, |directory| directory.as_fd());
            many::write_files(directory, files, current, buffer)
        }
        Operation::CopyFiles { from, to, files, current, reading, buffer } => {
            many::copy_files((from.as_fd(), to.as_fd()), files, current, reading, buffer)
        }
        Operation::CopyDirectory { from, to, reading, copy } => {
            many::copy_directory(from, to, reading, copy)
        }
        Operation::Sync { file, scope } => done(sync(file.as_fd(), *scope)),
        Operation::Lock { file, held } => {
            let lock = match held {
                true => fs::FlockOperation::NonBlockingLockExclusive,
                false => fs::FlockOperation::Unlock,
            };
            done(fs::flock(&*file, lock))
        }
        Operation::SyncRange { file, offset, length, wait } => {
            done(sync_range(file.as_fd(), *offset, *length, *wait))
        }
        Operation::Advise { file, offset, length, advice } => {
            done(fs::fadvise(file, *offset, NonZeroU64::new(*length), system_advice(*advice)))
        }
        Operation::PunchHole { file, offset, length } => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            done(retry_on_intr(|| fs::fallocate(&*file, flags, *offset, *length)))
        }
        Operation::Allocate { file, offset, length } => {
            let allocate = || fs::fallocate(&*file, FallocateFlags::empty(), *offset, *length);
            done(retry_on_intr(allocate))
        }
        Operation::Truncate { file, length } => {
            done(retry_on_intr(|| fs::ftruncate(&*file, *length)))
        }
        Operation::CloneFile { from, to } => done(fs::ioctl_ficlone(to, from)),
        Operation::CopyRange { from, from_offset, to, to_offset, length } => {
            let length = (*length).min(TRANSFER_BYTES_MAX as u64) as usize;
            let (mut from_offset, mut to_offset) = (*from_offset, *to_offset);
            fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), length)
                .map(|n| n as u64)
        }
        Operation::Splice { from, from_offset, to, to_offset, length } => {
            let length = (*length).min(TRANSFER_BYTES_MAX as u64) as usize;
            splice::copy((from.as_fd(), *from_offset), (to.as_fd(), *to_offset), length)
        }
        Operation::FindData { file, offset, data } => {
            *data = find_data(file.as_fd(), *offset)?;
            Ok(0)
        }
        Operation::CountCached { file, length } => cached::count(file.as_fd(), *length),
        Operation::TouchMapped { file, offset, length, step } => {
            mapped::touch(file.as_fd(), *offset, *length, *step)
        }
        Operation::Map { file, length, mapped } => {
            // SAFETY: whatever is mapped is looked at by loads alone, whose options somebody gave their word to.
            *mapped = Some(unsafe { MappedBytes::new(file.as_fd(), *length) }.map_err(number)?);
            Ok(0)
        }
        Operation::Populate { range } => range.populate().map(|()| 0).map_err(number),
        Operation::ReadDirectory { directory, metadata, batch } => {
            read_directory(directory.as_fd(), *metadata, batch)
        }
        Operation::ListDirectories { directory, metadata, listings, current } => {
            let directory = directory.as_ref().map_or(CWD, |directory| directory.as_fd());
            many::list_directories(directory, *metadata, listings, current)
        }
        Operation::Listen { .. } | Operation::Bind { .. } => socket::perform(operation),
        _ => perform_on_path(operation),
    }
}

/// The operations that take a path and move no contents.
fn perform_on_path(operation: &mut Operation) -> Result<u64> {
    match operation {
        Operation::Metadata { at, follow, metadata } => {
            *metadata = about::stat(directory(at), &at.path, *follow)?;
            Ok(0)
        }
        Operation::CopyMetadata { from, to, metadata } => {
            about::copy_metadata(from, to, **metadata)
        }
        Operation::SetMetadata { at, metadata } => done(about::set_metadata(at, *metadata)),
        Operation::SetMode { at, mode } => done(about::set_mode(at, *mode)),
        Operation::SetTimes { at, times } => done(about::set_times(at, *times)),
        Operation::SetOwner { at, owner } => done(about::set_owner(at, *owner)),
        Operation::Rename { from, to, replace } => {
            let flags = if *replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
            done(fs::renameat_with(directory(from), &*from.path, directory(to), &*to.path, flags))
        }
        Operation::Remove { at, kind } => {
            let flags = match kind {
                RemoveKind::File => AtFlags::empty(),
                RemoveKind::Directory => AtFlags::REMOVEDIR,
            };
            done(fs::unlinkat(directory(at), &*at.path, flags))
        }
        Operation::CreateDirectory { at, mode } => {
            done(fs::mkdirat(directory(at), &*at.path, Mode::from_raw_mode(*mode)))
        }
        Operation::CreateSymlink { target, at } => {
            done(fs::symlinkat(&**target, directory(at), &*at.path))
        }
        Operation::CreateNode { at, kind, mode, node } => {
            done(about::create(at, *kind, *mode, *node))
        }
        Operation::CreateHardLink { original, at } => done(fs::linkat(
            directory(original),
            &*original.path,
            directory(at),
            &*at.path,
            AtFlags::empty(),
        )),
        Operation::ReadLink { at, target } => {
            let text = fs::readlinkat(directory(at), &*at.path, Vec::new())?;
            target.extend_from_slice(text.to_bytes());
            Ok(text.to_bytes().len() as u64)
        }
        Operation::ReadAttributes { at, attributes } => {
            *attributes = about::read_attributes(at)?;
            Ok(attributes.len() as u64)
        }
        Operation::WriteAttribute { at, name, value } => {
            done(about::write_attribute(at, name, value))
        }
        // A variant that neither match knows would be a hole in this driver: say so.
        _ => Err(Errno::NOSYS),
    }
}

/// Whether the operation is a system call that never waits for anything, so that handing it to
/// another thread would cost more than the call.
pub(super) fn is_instant(operation: &Operation) -> bool {
    match operation {
        Operation::Shutdown { .. }
        | Operation::SetSocketOption { .. }
        | Operation::SocketAddress { .. } => true,
        Operation::Listen { address, .. } | Operation::Bind { address, .. } => {
            // A path is made in a file system.
            !matches!(address, Address::Path(_))
        }
        _ => false,
    }
}

fn sync(file: BorrowedFd<'_>, scope: SyncScope) -> Result<()> {
    match scope {
        SyncScope::Data => fs::fdatasync(file),
        SyncScope::All => fs::fsync(file),
        SyncScope::FileSystem => fs::syncfs(file),
    }
}

fn sync_range(file: BorrowedFd<'_>, offset: u64, length: u64, wait: bool) -> Result<()> {
    let mut flags = libc::SYNC_FILE_RANGE_WRITE;
    if wait {
        flags |= libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    }
    let (file, offset, length) = (file.as_raw_fd(), offset as i64, length as i64);
    // SAFETY: a system call on an open descriptor that takes plain numbers.
    match unsafe { libc::sync_file_range(file, offset, length, flags) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

fn system_advice(advice: Advice) -> fs::Advice {
    match advice {
        Advice::Normal => fs::Advice::Normal,
        Advice::Sequential => fs::Advice::Sequential,
        Advice::Random => fs::Advice::Random,
        Advice::WillNeed => fs::Advice::WillNeed,
        Advice::DontNeed => fs::Advice::DontNeed,
    }
}

fn done(result: Result<()>) -> Result<u64> {
    result.map(|()| 0)
}

fn directory(at: &At) -> BorrowedFd<'_> {
    at.directory.as_ref().map_or(CWD, |directory| directory.as_fd())
}

/// How much a read may ask for.
pub(super) fn read_length(buffer: &Buffer, length: usize) -> usize {
    length.min(buffer.spare()).min(TRANSFER_BYTES_MAX)
}

/// The bytes a write sends.
pub(super) fn write_range(buffer: &Buffer, start: usize, length: usize) -> &[u8] {
    // Out of range is a bug of the caller that `File::write` rules out.
    &buffer[start..start + length.min(TRANSFER_BYTES_MAX)]
}

/// The system's form of [`OpenOptions`].
pub(super) fn open_arguments(options: OpenOptions) -> (OFlags, Mode, ResolveFlags) {
    let mut flags = OFlags::CLOEXEC;
    flags |= match (options.read, options.write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    flags |= match options.create {
        Create::Never => OFlags::empty(),
        Create::IfMissing => OFlags::CREATE,
        Create::Exclusive => OFlags::CREATE | OFlags::EXCL,
    };
    flags.set(OFlags::TRUNC, options.truncate);
    flags.set(OFlags::DIRECT, options.direct);
    flags.set(OFlags::DIRECTORY, options.directory);
    flags.set(OFlags::NOFOLLOW, !options.follow);
    flags.set(OFlags::NONBLOCK, options.no_wait);
    let mode = match options.create {
        Create::Never => Mode::empty(),
        _ => Mode::from_raw_mode(options.mode.into()),
    };
    let resolve = match options.beneath {
        true => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        false => ResolveFlags::empty(),
    };
    (flags, mode, resolve)
}

fn open_owned(directory: BorrowedFd<'_>, path: &CStr, options: OpenOptions) -> Result<OwnedFd> {
    if options.directory && options.create == Create::Exclusive {
        fs::mkdirat(directory, path, Mode::from_raw_mode(options.mode.into()))?;
        return open_owned(directory, path, OpenOptions { create: Create::Never, ..options });
    }
    let (flags, mode, resolve) = open_arguments(options);
    if resolve.is_empty() {
        return retry_on_intr(|| fs::openat(directory, path, flags, mode));
    }
    match retry_on_intr(|| fs::openat2(directory, path, flags, mode, resolve)) {
        // An old kernel, or a container that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_step_by_step(directory, path, flags, mode),
        other => other,
    }
}

/// Opens beneath a directory where the system cannot be told to: one name after the other, none of
/// them a link.
fn open_step_by_step(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    let steps = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut above: Option<OwnedFd> = None;
    let mut rest = path.to_bytes();
    if rest.first() == Some(&b'/') {
        return Err(Errno::XDEV);
    }
    while let Some(slash) = rest.iter().position(|byte| *byte == b'/') {
        let (name, later) = (&rest[..slash], &rest[slash + 1..]);
        if name == b".." {
            return Err(Errno::XDEV);
        }
        let from = above.as_ref().map_or(directory, |above| above.as_fd());
        if !name.is_empty() {
            above = Some(fs::openat(from, name, steps, Mode::empty())?);
        }
        rest = later;
    }
    if rest == b".." {
        return Err(Errno::XDEV);
    }
    let from = above.as_ref().map_or(directory, |above| above.as_fd());
    retry_on_intr(|| fs::openat(from, rest, flags | OFlags::NOFOLLOW, mode))
}

/// One read into the spare room.
fn read_some(file: BorrowedFd<'_>, buffer: &mut Buffer, length: usize, offset: u64) -> Result<u64> {
    // SAFETY: the spare room is `length` bytes or more and ours alone; it is only written to.
    let spare = unsafe {
        std::slice::from_raw_parts_mut(buffer.spare_ptr().cast::<MaybeUninit<u8>>(), length)
    };
    let read = || rustix::io::pread(file, &mut *spare, offset).map(|(filled, _)| filled.len());
    let bytes = retry_on_intr(read)?;
    Ok(assume_read(buffer, bytes))
}

/// Counts what a call that succeeded wrote into the spare room; how much, as a result.
fn assume_read(buffer: &mut Buffer, bytes: usize) -> u64 {
    // SAFETY: the callers pass what the kernel says it wrote there.
    unsafe { buffer.assume_filled(bytes) };
    bytes as u64
}

/// A read that is answered from the page cache, or fails with `EAGAIN` where that would mean
/// waiting.
pub(super) fn read_cached(operation: &mut Operation) -> Result<u64> {
    let Operation::Read { file, buffer, length, offset } = operation else {
        return Err(Errno::AGAIN);
    };
    let length = read_length(buffer, *length);
    read_flagged(file.as_fd(), buffer, length, *offset, ReadWriteFlags::NOWAIT)
}

/// One read into the spare room, in a particular way.
fn read_flagged(
    file: BorrowedFd<'_>,
    buffer: &mut Buffer,
    length: usize,
    offset: u64,
    flags: ReadWriteFlags,
) -> Result<u64> {
    // SAFETY: the spare room is `length` bytes or more and ours alone; the kernel, the only one to
    // use the slice, only writes to it.
    let spare = unsafe { std::slice::from_raw_parts_mut(buffer.spare_ptr(), length) };
    let mut slices = [IoSliceMut::new(spare)];
    let bytes = rustix::io::preadv2(file, &mut slices, offset, flags)?;
    Ok(assume_read(buffer, bytes))
}

fn vectored(operation: &mut Operation) -> Result<u64> {
    match operation {
        Operation::ReadVectored { file, buffers, offset } => {
            let vectors = buffers.spare_vectors();
            // SAFETY: each vector names the spare room of one buffer the operation owns, in the
            // layout `IoSliceMut` guarantees on Unix. The bytes may be uninitialised, which the
            // kernel, the only one to use the slices, does not mind: it only writes.
            let slices = unsafe {
                std::slice::from_raw_parts_mut(
                    vectors.as_mut_ptr().cast::<IoSliceMut<'_>>(),
                    vectors.len(),
                )
            };
            let bytes = retry_on_intr(|| rustix::io::preadv(&*file, &mut *slices, *offset))?;
            // SAFETY: the kernel just wrote that many bytes there, in order.
            unsafe { buffers.assume_filled(bytes) };
            Ok(bytes as u64)
        }
        Operation::WriteVectored { file, buffers, offset } => {
            let vectors = buffers.filled_vectors();
            // SAFETY: each vector names the filled part of one buffer the operation owns, in the
            // layout `IoSlice` guarantees on Unix.
            let slices = unsafe {
                std::slice::from_raw_parts(vectors.as_ptr().cast::<IoSlice<'_>>(), vectors.len())
            };
            retry_on_intr(|| rustix::io::pwritev(&*file, slices, *offset)).map(|n| n as u64)
        }
        _ => Err(Errno::NOSYS),
    }
}

fn find_data(file: BorrowedFd<'_>, offset: u64) -> Result<Option<(u64, u64)>> {
    match fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => Ok(Some((start, fs::seek(file, SeekFrom::Hole(start))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// So many names are no reason to stop and tell.
const FEW_NAMES: usize = 128;

/// The system's number of an error.
fn number(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::NOMEM)
}

/// One system call's worth of names, or the few that there are, in the order of their inodes: that is how file systems lay out what
/// is asked about each, and mostly what is in it.
fn read_directory(
    directory: BorrowedFd<'_>,
    metadata: bool,
    batch: &mut DirectoryBatch,
) -> Result<u64> {
    batch.clear();
    let mut room = [MaybeUninit::<u8>::uninit(); DIRECTORY_BYTES];
    let mut entries = RawDir::new(directory, &mut room);
    loop {
        let Some(entry) = entries.next() else {
            batch.set_last();
            break;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            batch.push(name, about::file_kind(entry.file_type()), entry.ino());
        }
        // After a few, most likely one call more finds the end.
        if entries.is_buffer_empty() && batch.len() > FEW_NAMES {
            break;
        }
    }
    batch.sort();
    if metadata {
        batch.look_at_each(|name| match about::stat(directory, name, false) {
            // Removed since it was listed: as if it had never been there.
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        })?;
    }
    Ok(batch.len() as u64)
}
