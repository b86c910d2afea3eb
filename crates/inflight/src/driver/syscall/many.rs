//! Many small files in one operation.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, XattrFlags};
use rustix::io::{Errno, Result, retry_on_intr};

use super::{about, open_owned, read_length, read_some};
use crate::buffer::Buffer;
use crate::metadata::Owner;
use crate::operation::{FilePiece, NewFile, OpenOptions};

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
        if let Some(attributes) = &mut piece.attributes {
            *attributes = about::attributes_of(file.as_fd())?;
        }
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
        let made = write_all(&file, bytes).and_then(|()| set_all(&file, new));
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

/// The owner first, as changing it takes set-user bits away; the times last, as everything else
/// changes them.
fn set_all(file: &OwnedFd, new: &NewFile) -> Result<()> {
    if let Some(Owner { user, group }) = new.owner {
        fs::fchown(file, Some(fs::Uid::from_raw(user)), Some(fs::Gid::from_raw(group)))?;
    }
    for (name, value) in &new.attributes {
        fs::fsetxattr(file, &**name, value, XattrFlags::empty())?;
    }
    // Always: the process's mask may have taken bits away.
    fs::fchmod(file, Mode::from_raw_mode(new.mode))?;
    match new.times {
        Some(times) => fs::futimens(file, &about::system_times(times)),
        None => Ok(()),
    }
}
