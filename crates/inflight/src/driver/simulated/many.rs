//! Many small files in one operation on a simulated disk: each is a part that may fail.

use std::ffi::CStr;

use rustix::io::{Errno, Result};

use super::SimulatedDisk;
use super::disk::State;
use super::path::Way;
use super::tree::{Inode, ROOT};
use crate::buffer::Buffer;
use crate::descriptor::{Descriptor, OwnedDescriptor};
use crate::metadata::{DirectoryBatch, FileKind, Metadata};
use crate::operation::{
    At, CopiedFile, Copier, DirectoryCopy, DirectoryListing, FilePiece, NewFile, OpenOptions,
    SetMetadata,
};

impl State {
    pub(super) fn read_files(
        &mut self,
        directory: Option<&Descriptor>,
        options: OpenOptions,
        pieces: &mut [FilePiece],
        current: &mut usize,
        buffer: &mut Buffer,
    ) -> Result<u64> {
        let start = match directory {
            Some(directory) => self.inode_of(directory)?,
            None => ROOT,
        };
        let mut total = 0;
        for (index, piece) in pieces.iter_mut().enumerate() {
            *current = index;
            if index > 0 {
                self.next_part()?;
            }
            let inode = self.open_from(start, piece.path.to_bytes(), options)?;
            let wanted = piece.length.min(buffer.spare());
            piece.read = self.read_into(inode, piece.offset, buffer, wanted)? as usize;
            total += piece.read as u64;
            if piece.read < piece.length {
                break;
            }
            if piece.expect_end {
                let end = piece.offset + piece.length as u64;
                piece.goes_on = !self.bytes(inode, end, 1)?.is_empty();
            }
        }
        Ok(total)
    }

    pub(super) fn write_files(
        &mut self,
        directory: Option<&Descriptor>,
        files: &[NewFile],
        current: &mut usize,
        buffer: &Buffer,
    ) -> Result<u64> {
        let start = match directory {
            Some(directory) => self.inode_of(directory)?,
            None => ROOT,
        };
        let mut total = 0;
        for (index, new) in files.iter().enumerate() {
            *current = index;
            if index > 0 {
                self.next_part()?;
            }
            let options = OpenOptions::creating(0o600);
            let inode = self.open_from(start, new.path.to_bytes(), options)?;
            let bytes = &buffer[new.start..new.start + new.length];
            let written = self.write_from(inode, 0, bytes);
            if written.is_err() {
                self.remove_half(start, &new.path)?;
            }
            total += written?;
            let mode = new.mode & 0o7777;
            self.tree.set_attributes(inode, |attributes| attributes.mode = mode)?;
        }
        Ok(total)
    }

    pub(super) fn copy_files(
        &mut self,
        (from, to): (&Descriptor, &Descriptor),
        files: &mut [CopiedFile],
        current: &mut usize,
        reading: &mut bool,
    ) -> Result<u64> {
        let both = (self.inode_of(from)?, self.inode_of(to)?);
        let mut total = 0;
        for (index, file) in files.iter_mut().enumerate() {
            *current = index;
            if index > 0 {
                *reading = true;
                self.next_part()?;
            }
            let names = (file.path.as_ref(), file.target());
            if self.copy_file(both, names, (file.length, file.metadata), reading)? {
                file.copied = true;
                total += file.length as u64;
            }
        }
        Ok(total)
    }

    /// Copies one; not where it has another length.
    fn copy_file(
        &mut self,
        (from, to): (Inode, Inode),
        (name, target_name): (&CStr, &CStr),
        (length, metadata): (usize, SetMetadata),
        reading: &mut bool,
    ) -> Result<bool> {
        *reading = true;
        let source = self.open_from(from, name.to_bytes(), OpenOptions::reading().no_follow())?;
        let bytes = self.bytes(source, 0, u64::MAX)?.to_vec();
        if bytes.len() != length {
            return Ok(false);
        }
        let extended = self.tree.node(source)?.attributes.extended.clone();
        *reading = false;
        // Its making and its writing are two things that may fail.
        self.next_part()?;
        let made = self.open_from(to, target_name.to_bytes(), OpenOptions::creating(0o600))?;
        let done = self
            .next_part()
            .and_then(|()| self.write_from(made, 0, &bytes))
            .and_then(|_| self.tree.set_attributes(made, |about| about.extended = extended))
            .and_then(|()| self.set_metadata(made, metadata));
        if let Err(error) = done {
            self.remove_half(to, target_name)?;
            return Err(error);
        }
        Ok(true)
    }

    pub(super) fn copy_directory(
        &mut self,
        disk: &SimulatedDisk,
        (from, to): (&At, &At),
        reading: &mut bool,
        copy: &mut DirectoryCopy,
    ) -> Result<u64> {
        *reading = true;
        let options = OpenOptions::directory().beneath();
        let source = self.open(from, options)?;
        *reading = false;
        self.next_part()?;
        let target =
            self.open(to, OpenOptions::creating_directory(copy.mode().into()).beneath())?;
        let mut copier = Parts { state: self, disk };
        let pair = copier.pair(source, target);
        Ok(copy.copy(&mut copier, pair))
    }

    pub(super) fn list_directories(
        &mut self,
        disk: &SimulatedDisk,
        directory: Option<&Descriptor>,
        metadata: bool,
        listings: &mut [DirectoryListing],
        current: &mut usize,
    ) -> Result<u64> {
        let start = match directory {
            Some(directory) => self.inode_of(directory)?,
            None => ROOT,
        };
        let options = OpenOptions::directory().beneath();
        let mut total = 0;
        for (index, listing) in listings.iter_mut().enumerate() {
            *current = index;
            if index > 0 {
                self.next_part()?;
            }
            let inode = match self.open_from(start, listing.path.to_bytes(), options) {
                Err(Errno::NOENT) => {
                    listing.is_missing = true;
                    continue;
                }
                other => other?,
            };
            let number = self.add_open(inode, options);
            let listed = self
                .next_part()
                .and_then(|()| self.read_directory(number, metadata, &mut listing.batch));
            match listed {
                Ok(_) if !listing.batch.is_last() => {
                    listing.rest = Some(disk.descriptor(number));
                }
                _ => self.close(number),
            }
            match listed {
                Err(Errno::NOENT) => listing.is_missing = true,
                listed => total += listed?,
            }
        }
        Ok(total)
    }

    /// Removes what came out half, unless there is no power any more.
    fn remove_half(&mut self, directory: Inode, path: &CStr) -> Result<()> {
        if self.crashed {
            return Ok(());
        }
        let (holder, name) = self.locate_from(directory, path.to_bytes(), Way::Keep)?.name()?;
        self.tree.remove(holder, name, FileKind::File)?;
        self.forget_unnamed();
        Ok(())
    }
}

/// Copies directories in parts of which each may fail.
struct Parts<'a> {
    state: &'a mut State,
    disk: &'a SimulatedDisk,
}

/// A directory and its copy, and the number that the former is open by.
struct Pair {
    from: Inode,
    to: Inode,
    number: u64,
}

impl Parts<'_> {
    fn pair(&mut self, from: Inode, to: Inode) -> Pair {
        Pair { from, to, number: self.state.add_open(from, OpenOptions::directory()) }
    }
}

impl Copier for Parts<'_> {
    type Pair = Pair;
    type Error = Errno;

    fn enter(&mut self, above: &Pair, name: &CStr, mode: u16) -> Result<Pair> {
        let state = &mut *self.state;
        state.next_part()?;
        let options = OpenOptions::directory().no_follow();
        let from = state.open_from(above.from, name.to_bytes(), options)?;
        state.next_part()?;
        let options = OpenOptions::creating_directory(mode.into());
        let to = state.open_from(above.to, name.to_bytes(), options)?;
        Ok(self.pair(from, to))
    }

    fn list(&mut self, pair: &Pair, batch: &mut DirectoryBatch) -> Result<()> {
        let state = &mut *self.state;
        let listed =
            state.next_part().and_then(|()| state.read_directory(pair.number, true, batch));
        if listed.is_err()
            && let Some(open) = state.opens.get_mut(&pair.number)
        {
            open.listing = None;
        }
        listed.map(|_| ())
    }

    fn copy_file(
        &mut self,
        pair: &mut Pair,
        name: &CStr,
        (about, metadata): (&Metadata, SetMetadata),
        _: &mut Buffer,
    ) -> Result<Option<u64>> {
        self.state.next_part()?;
        let (both, length) = ((pair.from, pair.to), about.size as usize);
        let copied = self.state.copy_file(both, (name, name), (length, metadata), &mut false)?;
        Ok(copied.then_some(0))
    }

    fn finish(&mut self, pair: &Pair, metadata: SetMetadata) -> Result<u64> {
        let state = &mut *self.state;
        state.next_part()?;
        let extended = state.tree.node(pair.from)?.attributes.extended.clone();
        state.tree.set_attributes(pair.to, |about| about.extended.extend(extended))?;
        state.set_metadata(pair.to, metadata).map(|()| 0)
    }

    fn hand_out(&mut self, pair: Pair) -> (OwnedDescriptor, OwnedDescriptor) {
        let number = self.state.add_open(pair.to, OpenOptions::directory());
        (self.disk.descriptor(pair.number), self.disk.descriptor(number))
    }

    fn close(&mut self, pair: Pair) {
        self.state.close(pair.number);
    }
}
