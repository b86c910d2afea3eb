//! A whole directory of small files, copied by one operation.

use std::ffi::CStr;

use super::arguments::SetMetadata;
use crate::buffer::Buffer;
use crate::descriptor::OwnedDescriptor;
use crate::metadata::{DirectoryBatch, FileKind, Metadata, Owner, SetTimes};

/// What copies keep of each source beside its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Whether the owner is kept, as only the superuser can.
    pub owners: bool,
    /// Whom new files belong to.
    pub own: Owner,
}

impl Kept {
    /// Set-user and set-group.
    const SET_ID: u32 = 0o6000;

    /// What a copy gets. Set-user bits are never kept without their owner.
    #[must_use]
    pub fn of(self, source: &Metadata) -> SetMetadata {
        let owner = self.owners.then_some(source.owner);
        let (mode, times) = (self.mode_of(source), Kept::times_of(source));
        SetMetadata { owner, mode: Some(mode), times: Some(times) }
    }

    /// The permission bits that go with the owner that is kept.
    #[must_use]
    pub fn mode_of(self, source: &Metadata) -> u32 {
        match source.owner == self.own || self.owners {
            true => source.mode,
            false => source.mode & !Kept::SET_ID,
        }
    }

    /// Both times, which are always kept.
    #[must_use]
    pub fn times_of(source: &Metadata) -> SetTimes {
        SetTimes { accessed: Some(source.accessed), modified: Some(source.modified) }
    }
}

/// How a directory is copied, and what came of it, for
/// [`CopyDirectory`](crate::Operation::CopyDirectory).
#[derive(Debug, Default)]
pub struct DirectoryCopy {
    /// Permissions of the new directory until it is done.
    pub mode: u16,
    /// What it gets when it is.
    pub metadata: SetMetadata,
    /// What its files get.
    pub keep: Kept,
    /// Room for the bytes of the longest file that is copied, and one more.
    pub buffer: Buffer,
    /// The first part of what is in it, with metadata.
    pub batch: DirectoryBatch,
    /// Whether it was listed. Else there is nothing in `batch`, and its listing begins at the front.
    pub is_listed: bool,
    /// Of each entry in `batch` whether it was copied, as far as was tried.
    pub copied: Vec<bool>,
    /// Extended attributes that copies did not get, as their file system or their user may not.
    pub attributes_lost: u64,
    /// Whether nothing is left to do: all that is in it was copied, and it has its metadata.
    pub is_done: bool,
    /// Both, open.
    pub(crate) opened: Option<(OwnedDescriptor, OwnedDescriptor)>,
}

impl DirectoryCopy {
    /// A copy that has `mode` until it is done and gets `metadata` then, and whose files get what `keep`
    /// says; those that leave a byte of `buffer` free.
    #[must_use]
    pub fn new(mode: u32, metadata: SetMetadata, keep: Kept, buffer: Buffer) -> DirectoryCopy {
        let mode = (mode & 0o7777) as u16;
        DirectoryCopy { mode, metadata, keep, buffer, ..DirectoryCopy::default() }
    }

    /// Files copied by one operation, so that a large directory is shared.
    const FILES_MAX: usize = 256;
    /// Bytes copied by one operation.
    const BYTES_MAX: u64 = 4 << 20;

    /// Has what is small in `batch` copied one by one, as long as nothing goes wrong: `file` copies one, and says how
    /// many attributes its copy lost, or nothing where it was not copied. Gives the bytes copied.
    pub(crate) fn copy_small<E>(
        &mut self,
        mut file: impl FnMut(&CStr, &Metadata, SetMetadata, &mut Buffer) -> Result<Option<u64>, E>,
    ) -> u64 {
        let DirectoryCopy { keep, buffer, batch, copied, attributes_lost, .. } = self;
        let (mut bytes, mut files) = (0, 0);
        for entry in batch.iter() {
            let Some(metadata) = entry.metadata else { break };
            let is_small = metadata.kind == FileKind::File
                && metadata.links == 1
                && !metadata.has_holes()
                && metadata.size < buffer.capacity() as u64;
            let fits = files < DirectoryCopy::FILES_MAX
                && bytes + metadata.size <= DirectoryCopy::BYTES_MAX;
            if !is_small || !fits {
                copied.push(false);
                continue;
            }
            match file(entry.name, metadata, keep.of(metadata), buffer) {
                Ok(Some(lost)) => {
                    (bytes, files) = (bytes + metadata.size, files + 1);
                    *attributes_lost += lost;
                    copied.push(true);
                }
                Ok(None) => copied.push(false),
                // Whoever tries it again is told what is wrong.
                Err(_) => break,
            }
        }
        bytes
    }

    /// Whether everything in it was copied.
    pub(crate) fn is_complete(&self) -> bool {
        let all = self.copied.len() == self.batch.len() && self.copied.iter().all(|copied| *copied);
        self.is_listed && self.batch.is_last() && all
    }
}
