//! Many small files in one operation on a simulated disk: each is a part that may fail.

use std::ffi::CStr;

use rustix::io::Result;

use super::disk::State;
use super::path::Way;
use super::tree::{Inode, ROOT};
use crate::buffer::Buffer;
use crate::descriptor::Descriptor;
use crate::metadata::FileKind;
use crate::operation::{CopiedFile, FilePiece, NewFile, OpenOptions};

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
        let (from, to) = (self.inode_of(from)?, self.inode_of(to)?);
        let mut total = 0;
        for (index, file) in files.iter_mut().enumerate() {
            (*current, *reading) = (index, true);
            if index > 0 {
                self.next_part()?;
            }
            let options = OpenOptions::reading().no_follow();
            let source = self.open_from(from, file.path.to_bytes(), options)?;
            let bytes = self.bytes(source, 0, u64::MAX)?.to_vec();
            if bytes.len() != file.length {
                continue;
            }
            let extended = self.tree.node(source)?.attributes.extended.clone();
            *reading = false;
            // Its making and its writing are two things that may fail.
            self.next_part()?;
            let made =
                self.open_from(to, file.target().to_bytes(), OpenOptions::creating(0o600))?;
            let done = self
                .next_part()
                .and_then(|()| self.write_from(made, 0, &bytes))
                .and_then(|_| self.tree.set_attributes(made, |about| about.extended = extended))
                .and_then(|()| self.set_metadata(made, file.metadata));
            if let Err(error) = done {
                self.remove_half(to, file.target())?;
                return Err(error);
            }
            file.copied = true;
            total += bytes.len() as u64;
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
