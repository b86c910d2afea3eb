//! Many small files in one operation on a simulated disk: each is a part that may fail.

use std::ffi::CStr;

use rustix::io::{Errno, Result};

use super::SimulatedDisk;
use super::disk::State;
use super::path::Way;
use super::tree::{Inode, ROOT};
use crate::buffer::Buffer;
use crate::descriptor::Descriptor;
use crate::metadata::FileKind;
use crate::operation::{
    At, CopiedFile, DirectoryCopy, DirectoryListing, FilePiece, NewFile, OpenOptions, SetMetadata,
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
        let target = self.open(to, OpenOptions::creating_directory(copy.mode.into()).beneath())?;
        let number = self.add_open(source, options);
        let opened = (number, self.add_open(target, options));
        copy.opened = Some((disk.descriptor(opened.0), disk.descriptor(opened.1)));
        let listed =
            self.next_part().and_then(|()| self.read_directory(number, true, &mut copy.batch));
        copy.is_listed = listed.is_ok();
        if listed.is_err() {
            copy.batch.clear();
            if let Some(open) = self.opens.get_mut(&number) {
                open.listing = None;
            }
        }
        let bytes = copy.copy_small(|name, about, metadata, _| {
            self.next_part()?;
            let length = about.size as usize;
            let copied =
                self.copy_file((source, target), (name, name), (length, metadata), &mut false)?;
            Ok::<_, Errno>(copied.then_some(0))
        });
        let extended = self.tree.node(source)?.attributes.extended.clone();
        if copy.is_complete() && self.next_part().is_ok() {
            self.tree.set_attributes(target, |about| about.extended.extend(extended))?;
            copy.is_done = self.set_metadata(target, copy.metadata).is_ok();
        }
        Ok(bytes)
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
