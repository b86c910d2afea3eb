//! Many small files in one operation.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, SeekFrom};
use rustix::io::{Errno, Result, retry_on_intr};

use super::about::{self, MadeBefore};
use super::{directory, open_owned, read_directory, read_length, read_some};
use crate::buffer::Buffer;
use crate::descriptor::OwnedDescriptor;
use crate::metadata::{DirectoryBatch, Metadata};
use crate::operation::{
    At, CopiedFile, Copier, DirectoryCopy, DirectoryListing, FilePiece, NewFile, OpenOptions,
    SetMetadata,
};

pub(super) fn read_files(
    directory: BorrowedFd<'_>,
    options: OpenOptions,
    pieces: &mut [FilePiece],
    current: &mut usize,
    buffer: &mut Buffer,
) -> Result<u64> {
    let mut total = 0;
    let mut open: Option<OwnedFd> = None;
    for index in 0..pieces.len() {
        *current = index;
        let (before, rest) = pieces.split_at_mut(index);
        let piece = &mut rest[0];
        let file = match open.take() {
            Some(file) if before.last().is_some_and(|last| last.path == piece.path) => file,
            _ => open_owned(directory, &piece.path, options)?,
        };
        read_piece(file.as_fd(), piece, buffer)?;
        total += piece.read as u64;
        if piece.read < piece.length {
            break;
        }
        open = Some(file);
    }
    Ok(total)
}

fn read_piece(file: BorrowedFd<'_>, piece: &mut FilePiece, buffer: &mut Buffer) -> Result<()> {
    let wanted = read_length(buffer, piece.length);
    while piece.read < wanted {
        let offset = piece.offset + piece.read as u64;
        let read = read_some(file, buffer, wanted - piece.read, offset)? as usize;
        if read == 0 {
            return Ok(());
        }
        piece.read += read;
    }
    if piece.expect_end {
        let (mut byte, end) = ([0u8], piece.offset + piece.length as u64);
        piece.goes_on = retry_on_intr(|| rustix::io::pread(file, &mut byte, end))? > 0;
    }
    Ok(())
}

pub(super) fn write_files(
    directory: BorrowedFd<'_>,
    files: &[NewFile],
    current: &mut usize,
    buffer: &Buffer,
) -> Result<u64> {
    let mut total = 0;
    for (index, new) in files.iter().enumerate() {
        *current = index;
        let bytes = &buffer[new.start..new.start + new.length];
        total += bytes.len() as u64;
        // Readable by nobody else until it has its final permissions.
        let file = open_owned(directory, &new.path, OpenOptions::creating(0o600))?;
        let made =
            write_all(&file, bytes).and_then(|()| fs::fchmod(&file, Mode::from_raw_mode(new.mode)));
        if let Err(error) = made {
            // Half a file is of no use to anybody.
            let _ = fs::unlinkat(directory, &*new.path, AtFlags::empty());
            return Err(error);
        }
    }
    Ok(total)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    let mut offset = 0;
    while !bytes.is_empty() {
        let written = retry_on_intr(|| rustix::io::pwrite(file, bytes, offset))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Copies each as a whole, one after the other, so that its bytes are still near when they are written.
pub(in crate::driver) fn copy_files(
    (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
    files: &mut [CopiedFile],
    current: &mut usize,
    reading: &mut bool,
    buffer: &mut Buffer,
) -> Result<u64> {
    let mut total = 0;
    let mut made = MadeBefore::default();
    for (index, file) in files.iter_mut().enumerate() {
        *current = index;
        let names = (file.path.as_ref(), file.target());
        if names.1.to_bytes().contains(&b'/') {
            // It may be in another directory than the ones before, and those behind it are.
            made = MadeBefore::default();
        }
        let about = (file.length, file.metadata, &mut made);
        if let Some(lost) = copy_file((from, to), names, about, reading, buffer)? {
            file.copied = true;
            file.attributes_lost = lost as u32;
            total += file.length as u64;
        }
    }
    Ok(total)
}

/// Copies one, into the directory of those that were made before. Gives the number of attributes that it lost;
/// nothing where it was not copied, as it has another length.
fn copy_file(
    (from, to): (BorrowedFd<'_>, BorrowedFd<'_>),
    (name, target_name): (&CStr, &CStr),
    (length, metadata, made): (usize, SetMetadata, &mut MadeBefore),
    reading: &mut bool,
    buffer: &mut Buffer,
) -> Result<Option<u64>> {
    *reading = true;
    let source = open_owned(from, name, OpenOptions::reading().no_follow().no_wait())?;
    *reading = false;
    // As it is to be, but that nobody else may write it: what the mask takes is set later.
    let mode = metadata.mode.unwrap_or(0o600) & 0o755;
    let target = open_owned(to, target_name, OpenOptions::creating(mode))?;
    let copied = copy_contents(&source, &target, length, reading, buffer).and_then(|is_whole| {
        let new = (target.as_fd(), mode);
        let metadata_of = || about::copy_metadata_of_made(source.as_fd(), new, metadata, made);
        is_whole.then(metadata_of).transpose()
    });
    if !matches!(copied, Ok(Some(_))) {
        let _ = fs::unlinkat(to, target_name, AtFlags::empty());
    }
    copied
}

/// Copies all bytes of one open file into another, which is empty, if it has so many. Inside the kernel they
/// are copied once, not twice; where it cannot or something goes wrong, they are read and written, which
/// says what it was.
fn copy_contents(
    source: &OwnedFd,
    target: &OwnedFd,
    length: usize,
    reading: &mut bool,
    buffer: &mut Buffer,
) -> Result<bool> {
    if let Ok(sent) = send_all(source, target, length) {
        return Ok(sent == length);
    }
    *reading = true;
    buffer.clear();
    let wanted = read_length(buffer, length + 1);
    while buffer.len() < wanted {
        let offset = buffer.len() as u64;
        let read = read_some(source.as_fd(), buffer, wanted - buffer.len(), offset)?;
        // One byte more was asked for: so this is the end.
        if read == 0 || buffer.len() == length {
            break;
        }
    }
    if buffer.len() != length {
        return Ok(false);
    }
    *reading = false;
    write_all(target, buffer).map(|()| true)
}

/// Bytes that went from the front of one file to that of another: all that there are, and one more than
/// `length` at most.
fn send_all(source: &OwnedFd, target: &OwnedFd, length: usize) -> Result<usize> {
    let mut sent = 0;
    while sent <= length {
        let bytes = retry_on_intr(|| fs::sendfile(target, source, None, length + 1 - sent))?;
        sent += bytes;
        // One byte more was asked for: so this is the end.
        if bytes == 0 || sent == length {
            break;
        }
    }
    Ok(sent)
}

pub(super) fn list_directories(
    directory: BorrowedFd<'_>,
    metadata: bool,
    listings: &mut [DirectoryListing],
    current: &mut usize,
) -> Result<u64> {
    let mut total = 0;
    for (index, listing) in listings.iter_mut().enumerate() {
        *current = index;
        let opened = match open_owned(directory, &listing.path, OpenOptions::directory().beneath())
        {
            Err(Errno::NOENT) => {
                listing.is_missing = true;
                continue;
            }
            other => other?,
        };
        match read_directory(opened.as_fd(), metadata, &mut listing.batch) {
            // Removed since.
            Err(Errno::NOENT) => listing.is_missing = true,
            listed => {
                total += listed?;
                listing.rest = (!listing.batch.is_last()).then(|| opened.into());
            }
        }
    }
    Ok(total)
}

/// Makes a directory, and copies what is small in it, as far as nothing goes wrong.
pub(super) fn copy_directory(
    from: &At,
    to: &At,
    reading: &mut bool,
    copy: &mut DirectoryCopy,
) -> Result<u64> {
    *reading = true;
    let options = OpenOptions::directory().beneath();
    let source = open_owned(directory(from), &from.path, options)?;
    *reading = false;
    let options = OpenOptions::creating_directory(copy.mode().into()).beneath();
    let target = open_owned(directory(to), &to.path, options)?;
    Ok(copy.copy(&mut SystemCalls, Pair::new(source, target)))
}

/// Copies directories by system calls.
struct SystemCalls;

/// A directory and its copy, open.
struct Pair {
    from: OwnedFd,
    to: OwnedFd,
    made: MadeBefore,
}

impl Pair {
    fn new(from: OwnedFd, to: OwnedFd) -> Pair {
        Pair { from, to, made: MadeBefore::default() }
    }
}

impl Copier for SystemCalls {
    type Pair = Pair;
    type Error = Errno;

    fn enter(&mut self, Pair { from, to, .. }: &Pair, name: &CStr, mode: u16) -> Result<Pair> {
        let options = OpenOptions::directory().no_follow();
        let source = open_owned(from.as_fd(), name, options)?;
        fs::mkdirat(to, name, Mode::from_raw_mode(mode.into()))?;
        let target = open_owned(to.as_fd(), name, options);
        if target.is_err() {
            let _ = fs::unlinkat(to, name, AtFlags::REMOVEDIR);
        }
        Ok(Pair::new(source, target?))
    }

    fn list(&mut self, Pair { from, .. }: &Pair, batch: &mut DirectoryBatch) -> Result<()> {
        let listed = read_directory(from.as_fd(), true, batch);
        if listed.is_err() {
            fs::seek(from, SeekFrom::Start(0))?;
        }
        listed.map(|_| ())
    }

    fn copy_file(
        &mut self,
        Pair { from, to, made }: &mut Pair,
        name: &CStr,
        (about, metadata): (&Metadata, SetMetadata),
        buffer: &mut Buffer,
    ) -> Result<Option<u64>> {
        let (both, about) = ((from.as_fd(), to.as_fd()), (about.size as usize, metadata, made));
        copy_file(both, (name, name), about, &mut false, buffer)
    }

    fn finish(&mut self, Pair { from, to, .. }: &Pair, metadata: SetMetadata) -> Result<u64> {
        about::copy_metadata_of_open(from.as_fd(), to.as_fd(), metadata)
    }

    fn hand_out(&mut self, Pair { from, to, .. }: Pair) -> (OwnedDescriptor, OwnedDescriptor) {
        (from.into(), to.into())
    }

    fn close(&mut self, _: Pair) {}
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::{Budget, Pool};

    #[test]
    fn what_the_kernel_cannot_copy_is_read_and_written() {
        let (source, target) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        source.write_all_at(b"some text", 0).unwrap();
        // Where every write goes to the end, the kernel does not copy to.
        fs::fcntl_setfl(&target, fs::OFlags::APPEND).unwrap();
        let (source, target) = (OwnedFd::from(source), OwnedFd::from(target));
        send_all(&source, &target, 9).unwrap_err();
        let pool = Pool::new(Budget::new(1 << 20));
        let (mut reading, mut buffer) = (false, pool.try_get(4096).unwrap());
        let mut copy = |length| copy_contents(&source, &target, length, &mut reading, &mut buffer);
        // Of another length than was said.
        assert_eq!((copy(8), copy(10)), (Ok(false), Ok(false)));
        assert_eq!(fs::fstat(&target).unwrap().st_size, 0);
        assert_eq!(copy(9), Ok(true));
        let mut there = [0; 9];
        std::fs::File::from(target).read_exact_at(&mut there, 0).unwrap();
        assert_eq!(&there, b"some text");
    }

    #[test]
    fn a_file_of_another_length_is_noticed() {
        let source = tempfile::tempfile().unwrap();
        source.write_all_at(b"some text", 0).unwrap();
        let source = OwnedFd::from(source);
        for (length, sent) in [(8, 9), (9, 9), (10, 9)] {
            fs::seek(&source, SeekFrom::Start(0)).unwrap();
            let target = OwnedFd::from(tempfile::tempfile().unwrap());
            assert_eq!(send_all(&source, &target, length), Ok(sent));
        }
    }
}
