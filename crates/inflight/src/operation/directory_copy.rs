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

    /// Permissions of a new directory until all is in it: those that it is to have, as far as they do not forbid to
    /// put anything there.
    #[must_use]
    pub fn mode_while_made(source: &Metadata) -> u16 {
        (source.mode & 0o755) as u16 | 0o700
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
    keep: Kept,
    /// Room for the bytes of the longest file that is copied, and one more.
    pub(crate) buffer: Buffer,
    left: Left,
    /// The directory itself.
    pub(crate) top: Level,
}

impl DirectoryCopy {
    /// A copy of what this is known of, of which is kept what `keep` says. Files in it are copied that leave a byte of
    /// `buffer` free.
    #[must_use]
    pub fn new(source: &Metadata, keep: Kept, buffer: Buffer) -> DirectoryCopy {
        DirectoryCopy { keep, buffer, left: Left::MANY, top: Level::new(source, keep) }
    }

    /// Copies some dozens of files at most, and nothing in directories inside: for where each call waits, as on a
    /// network, and much is to be under way at once.
    #[must_use]
    pub fn of_few(self) -> DirectoryCopy {
        DirectoryCopy { left: Left::FEW, ..self }
    }

    /// Permissions of the directory while it is made.
    pub(crate) fn mode(&self) -> u16 {
        self.top.mode
    }

    /// Copies what is in `pair`, the directory and its copy, as far as nothing goes wrong. Gives the bytes copied.
    pub(crate) fn copy<C: Copier>(&mut self, copier: &mut C, pair: C::Pair) -> u64 {
        let mut work = WorkOfOne { keep: self.keep, buffer: &mut self.buffer, left: self.left };
        self.top.copy(copier, pair, &mut work, 0)
    }
}

/// A directory and its copy, as a driver has them, and what it does with them.
pub(crate) trait Copier {
    /// Both, open.
    type Pair;
    type Error;

    /// Opens a directory in another and makes one of the same name in the copy, with these permissions. Where either
    /// fails, nothing was made.
    fn enter(
        &mut self,
        above: &Self::Pair,
        name: &CStr,
        mode: u16,
    ) -> Result<Self::Pair, Self::Error>;

    /// The first part of what is in it, with metadata. Where that fails, it can be listed from the front again.
    fn list(&mut self, pair: &Self::Pair, batch: &mut DirectoryBatch) -> Result<(), Self::Error>;

    /// Copies a file, and says how many attributes its copy lost; nothing where it was not copied.
    fn copy_file(
        &mut self,
        pair: &mut Self::Pair,
        name: &CStr,
        about: (&Metadata, SetMetadata),
        buffer: &mut Buffer,
    ) -> Result<Option<u64>, Self::Error>;

    /// Gives the copy the attributes of the directory, and this metadata. Says how many attributes it lost.
    fn finish(&mut self, pair: &Self::Pair, metadata: SetMetadata) -> Result<u64, Self::Error>;

    /// Lets whoever asked have both.
    fn hand_out(&mut self, pair: Self::Pair) -> (OwnedDescriptor, OwnedDescriptor);

    fn close(&mut self, pair: Self::Pair);
}

/// What one operation works with.
struct WorkOfOne<'a> {
    keep: Kept,
    buffer: &'a mut Buffer,
    left: Left,
}

/// How much one operation may still do, so that large trees are shared.
#[derive(Debug, Clone, Copy, Default)]
struct Left {
    files: u32,
    bytes: u64,
    directories: u32,
    /// Directories in which something stays to be done, which stay open: those above the one under way may be
    /// among them.
    unfinished: u32,
}

impl Left {
    const MANY: Left = Left { files: 1024, bytes: 16 << 20, directories: 256, unfinished: 8 };
    const FEW: Left = Left { files: 64, bytes: 4 << 20, directories: 0, unfinished: 0 };
    /// Directories in each other below the outermost: where none of these gets done, others next to them still may.
    const DEPTH: u32 = 4;
}

/// A directory under way.
#[derive(Debug, Default)]
pub(crate) struct Level {
    /// Permissions of the copy until it is done.
    mode: u16,
    /// What it gets then.
    metadata: SetMetadata,
    pub(crate) batch: DirectoryBatch,
    pub(crate) is_listed: bool,
    pub(crate) copied: Vec<bool>,
    pub(crate) attributes_lost: u64,
    pub(crate) is_done: bool,
    /// Directories in it that were begun: their place in `batch`, and what came of each.
    pub(crate) inside: Vec<(usize, Level)>,
    /// Both, open, where it is not done.
    pub(crate) opened: Option<(OwnedDescriptor, OwnedDescriptor)>,
}

impl Level {
    fn new(source: &Metadata, keep: Kept) -> Level {
        let mode = Kept::mode_while_made(source);
        Level { mode, metadata: keep.of(source), ..Level::default() }
    }

    fn copy<C: Copier>(
        &mut self,
        copier: &mut C,
        mut pair: C::Pair,
        work: &mut WorkOfOne<'_>,
        depth: u32,
    ) -> u64 {
        self.is_listed = copier.list(&pair, &mut self.batch).is_ok();
        if !self.is_listed {
            self.batch.clear();
        }
        let mut bytes = self.copy_small(copier, &mut pair, work);
        bytes += self.copy_inside(copier, &pair, work, depth);
        if self.is_complete()
            && let Ok(lost) = copier.finish(&pair, self.metadata)
        {
            self.attributes_lost += lost;
            self.is_done = true;
            copier.close(pair);
        } else {
            work.left.unfinished = work.left.unfinished.saturating_sub(1);
            self.opened = Some(copier.hand_out(pair));
        }
        bytes
    }

    /// Copies what is small one by one, as long as nothing goes wrong.
    fn copy_small<C: Copier>(
        &mut self,
        copier: &mut C,
        pair: &mut C::Pair,
        work: &mut WorkOfOne<'_>,
    ) -> u64 {
        let mut bytes = 0;
        for entry in self.batch.iter() {
            let Some(metadata) = entry.metadata else { break };
            let is_small = metadata.kind == FileKind::File
                && metadata.links == 1
                && !metadata.has_holes()
                && metadata.size < work.buffer.capacity() as u64;
            let left = &mut work.left;
            if !is_small || left.files == 0 || metadata.size > left.bytes {
                self.copied.push(false);
                continue;
            }
            let about = (metadata, work.keep.of(metadata));
            match copier.copy_file(pair, entry.name, about, work.buffer) {
                Ok(Some(lost)) => {
                    (left.files, left.bytes) = (left.files - 1, left.bytes - metadata.size);
                    bytes += metadata.size;
                    self.attributes_lost += lost;
                    self.copied.push(true);
                }
                Ok(None) => self.copied.push(false),
                // Whoever tries it again is told what is wrong.
                Err(_) => break,
            }
        }
        bytes
    }

    /// Goes on with the directories in it.
    fn copy_inside<C: Copier>(
        &mut self,
        copier: &mut C,
        pair: &C::Pair,
        work: &mut WorkOfOne<'_>,
        depth: u32,
    ) -> u64 {
        let mut bytes = 0;
        for (place, entry) in self.batch.iter().enumerate().take(self.copied.len()) {
            let Some(metadata) = entry.metadata else { break };
            let Left { files, directories, unfinished, .. } = work.left;
            let is_full = files == 0 || directories == 0 || unfinished <= depth + 1;
            if is_full || depth == Left::DEPTH {
                break;
            }
            if metadata.kind != FileKind::Directory {
                continue;
            }
            work.left.directories -= 1;
            let mut level = Level::new(metadata, work.keep);
            // Here as well: it stays undone.
            let Ok(inside) = copier.enter(pair, entry.name, level.mode) else { continue };
            bytes += level.copy(copier, inside, work, depth + 1);
            self.copied[place] = level.is_done;
            self.inside.push((place, level));
        }
        bytes
    }

    /// Whether everything in it was copied.
    fn is_complete(&self) -> bool {
        let all = self.copied.len() == self.batch.len() && self.copied.iter().all(|copied| *copied);
        self.is_listed && self.batch.is_last() && all
    }

    /// Closes what is open.
    pub(crate) fn close(&mut self) {
        self.opened = None;
        self.inside.iter_mut().for_each(|(_, level)| level.close());
    }
}
