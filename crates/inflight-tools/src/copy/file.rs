//! One thing, by itself: a file of any size, a link, a node.
//!
//! Of the ways to copy a file the first that works is taken: its copy shares its contents, as some file
//! systems can; the file server copies it; the kernel does, if the page cache has all of it; it is read and
//! written at the same time, around the page cache where it is large and not in there.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use inflight::stream::{AnyFile, Copy};
use inflight::{
    Directory, File, FileKind, Metadata, OpenOptions, RemoveKind, SyncScope, TRANSFER_BYTES_MAX,
};

use super::contents::same_contents;
use super::directory::{Dir, Pair, name_it, remove_existing};
use super::item::Item;
use super::keep::Both;
use super::queue::Queue;
use crate::error::{Error, Result};

/// Files below this are read through the page cache.
const DIRECT_READ_BYTES_MIN: u64 = 4 << 20;
/// Files below this are written through the page cache, which has room for them.
const DIRECT_WRITE_BYTES_MIN: u64 = 64 << 20;
/// Files from here on and below are copied inside the kernel, where the page cache has them: smaller ones come
/// together with others, and larger ones are written around it.
const SPLICE_BYTES_MIN: u64 = 64 << 10;
const SPLICE_BYTES_END: u64 = DIRECT_WRITE_BYTES_MIN;
/// Bytes of these that one operation copies.
const SPLICE_BYTES: u64 = 8 << 20;
/// Bytes that the file server is asked to copy at a time.
const KERNEL_BYTES: u64 = 64 << 20;

/// Copies one thing, unless it is there already.
pub(super) async fn copy_one(queue: &Queue, dir: &Arc<Dir>, pair: &Pair, item: Item) {
    if let Err(error) = (One { queue, dir, pair, item: &item }).copy().await {
        queue.state.trouble(error);
    }
}

struct One<'a> {
    queue: &'a Queue,
    dir: &'a Arc<Dir>,
    pair: &'a Pair,
    item: &'a Item,
}

impl One<'_> {
    async fn copy(&self) -> Result<()> {
        let (state, item) = (&self.queue.state, self.item);
        if self.is_done().await? {
            state.tally.unchanged.add(1);
            state.tally.unchanged_bytes.add(self.size());
            state.progress.advance(self.size());
            return self.refresh().await;
        }
        self.check_replaceable()?;
        if state.options.dry_run {
            self.count(item.metadata.size);
            return Ok(());
        }
        let elsewhere = self.dir.root.elsewhere();
        let (place, name) = match &elsewhere {
            Some((work, name)) => (work, name.as_path()),
            None => {
                remove_existing(self.pair, self.dir, item).await?;
                (self.pair.target(), self.target_name())
            }
        };
        let bytes = match self.make(place, name).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.remove(place, name, error).await),
        };
        if elsewhere.is_some() {
            if state.options.sync && item.metadata.kind == FileKind::File {
                let made = place.open(name, OpenOptions::reading()).await?;
                made.sync(SyncScope::All).await?;
            }
            name_it(self.pair, place, name, self.dir, item).await?;
        }
        self.count(bytes);
        Ok(())
    }

    fn target_name(&self) -> &Path {
        self.dir.root.target_name(&self.item.name)
    }

    /// Bytes, of a file.
    fn size(&self) -> u64 {
        match self.item.metadata.kind {
            FileKind::File => self.item.metadata.size,
            _ => 0,
        }
    }

    fn count(&self, bytes: u64) {
        let tally = &self.queue.state.tally;
        match self.item.metadata.kind {
            FileKind::File => {
                tally.files.add(1);
                tally.bytes.add(bytes);
            }
            FileKind::Symlink => tally.symlinks.add(1),
            _ => tally.nodes.add(1),
        }
    }

    /// Whether what is in its place is what it would become.
    async fn is_done(&self) -> Result<bool> {
        let item = self.item;
        if !item.looks_done() || self.queue.state.options.dry_run {
            return Ok(item.looks_done());
        }
        match item.metadata.kind {
            FileKind::Symlink => {
                let source = self.pair.source.read_link(&item.name).await?;
                Ok(source == self.pair.target().read_link(self.target_name()).await?)
            }
            FileKind::File if self.dir.root.recheck => {
                let source = self.pair.source.open(&item.name, reading()).await?;
                let target = self.pair.target().open(self.target_name(), reading()).await?;
                Ok(same_contents(&self.queue.state, source.into(), target.into(), |_| {}).await?)
            }
            _ => Ok(true),
        }
    }

    /// Brings up to date what is kept of a thing whose contents are right.
    async fn refresh(&self) -> Result<()> {
        let (state, about) = (&self.queue.state, &self.item.metadata);
        let Some(there) = &self.item.existing else { return Ok(()) };
        let kept = state.keep.metadata_of(about);
        let is_right = kept.owner.is_none_or(|owner| owner == there.owner)
            && kept.mode == Some(there.mode)
            && about.modified == there.modified;
        if is_right || state.options.dry_run {
            return Ok(());
        }
        let source = (&self.pair.source, self.item.name.as_path());
        let both = Both::Names(source, (self.pair.target(), self.target_name()));
        state.keep.set(both, about).await
    }

    /// Nothing but files and links is replaced.
    fn check_replaceable(&self) -> Result<()> {
        match &self.item.existing {
            Some(there) if there.kind == FileKind::Directory => {
                let path = self.dir.shown_target(&self.item.name);
                let (path, kind) = (path.display(), self.item.metadata.kind.name());
                Err(Error::Paths(format!(
                    "{path} is a directory in place of a {kind}; remove it and --resume"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Removes what came out half. Where that fails too, nothing of this tree gets its final name.
    async fn remove(&self, place: &Directory, name: &Path, error: Error) -> Error {
        // What was there already is somebody else's: of a name that the file system takes for the same.
        if matches!(&error, Error::Io(error) if error.kind() == ErrorKind::AlreadyExists) {
            return error;
        }
        match place.remove(name, RemoveKind::File).await {
            Ok(()) => {}
            Err(gone) if gone.kind() == ErrorKind::NotFound => {}
            Err(_) => self.dir.root.taint(),
        }
        error
    }

    /// Makes the copy under a name that nothing has. Gives its bytes.
    async fn make(&self, place: &Directory, name: &Path) -> Result<u64> {
        let (state, item) = (&self.queue.state, self.item);
        let source = &self.pair.source;
        match item.metadata.kind {
            FileKind::File => return self.make_file(place, name).await,
            FileKind::Symlink => {
                let target = source.read_link(&item.name).await?;
                place.create_symlink(Path::new(OsStr::from_bytes(&target)), name).await?;
            }
            FileKind::Directory | FileKind::Unknown => {
                let path = self.dir.shown(&item.name);
                let path = path.display();
                return Err(Error::Paths(format!("{path} is nothing that can be copied")));
            }
            kind => place.create_node(name, kind, 0o600, item.metadata.node).await?,
        }
        let both = Both::Names((source, &item.name), (place, name));
        state.keep.set(both, &item.metadata).await?;
        Ok(0)
    }

    async fn make_file(&self, place: &Directory, name: &Path) -> Result<u64> {
        let state = &self.queue.state;
        let source = self.pair.source.open(&self.item.name, reading()).await?;
        let before = source.metadata().await?;
        if before.kind != FileKind::File {
            let path = self.dir.shown(&self.item.name);
            let (path, kind) = (path.display(), before.kind.name());
            return Err(Error::Paths(format!("{path} has become a {kind}; copy it again")));
        }
        let target = place.open(name, OpenOptions::creating(0o600)).await?;
        let bytes = self.fill(&source, &before, &target, (place, name)).await?;
        let after = source.metadata().await?;
        if (after.size, after.modified) != (before.size, before.modified) {
            // It stays, with the time from before: so the next copy sees that it is not right.
            state.trouble_with(
                &self.dir.shown(&self.item.name),
                "changed while it was copied: its copy may be of neither state; --resume copies it \
                 again",
            );
        }
        state.keep.set(Both::Files(&source, &target), &before).await?;
        target.close().await?;
        source.close().await?;
        Ok(bytes)
    }

    /// Copies the contents.
    async fn fill(
        &self,
        source: &File,
        about: &Metadata,
        target: &File,
        place: (&Directory, &Path),
    ) -> Result<u64> {
        let (tally, progress) = (&self.queue.state.tally, &self.queue.state.progress);
        if about.size > 0 && self.try_clone(source, target).await? {
            tally.cloned_bytes.add(about.size);
            progress.advance(about.size);
            return Ok(about.size);
        }
        if self.dir.root.kernel.load(Relaxed)
            && let Some(bytes) = self.try_kernel(source, about, target).await?
        {
            tally.kernel_bytes.add(bytes);
            return Ok(bytes);
        }
        let cached = self.cached_bytes(source, about).await?;
        if cached >= about.size && self.splice(source, about, target).await? {
            return Ok(about.size);
        }
        let from = self.best_source(source, about, cached).await?;
        if let AnyFile::Direct(_) = from {
            tally.direct_bytes.add(about.size);
        }
        let to = match self.queue.settings.direct_write && about.size >= DIRECT_WRITE_BYTES_MIN {
            true => direct(place.0, place.1, OpenOptions::writing(), target).await?,
            false => target.clone().into(),
        };
        self.overlap(from, to).await
    }

    /// Whether the copy shares the source's contents now.
    async fn try_clone(&self, source: &File, target: &File) -> Result<bool> {
        let clones = &self.dir.root.clones;
        if !clones.load(Relaxed) {
            return Ok(false);
        }
        match source.clone_to(target).await {
            Ok(()) => Ok(true),
            Err(error) if cannot(&error) => {
                clones.store(false, Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the kernel copy, which on a network passes it on to the server.
    async fn try_kernel(
        &self,
        source: &File,
        about: &Metadata,
        target: &File,
    ) -> Result<Option<u64>> {
        let mut done = 0;
        while done < about.size {
            let length = (about.size - done).min(KERNEL_BYTES.min(TRANSFER_BYTES_MAX as u64));
            match source.copy_range_to(done, target, done, length).await {
                Ok(0) => break,
                Ok(bytes) => {
                    self.queue.state.progress.advance(bytes);
                    done += bytes;
                }
                Err(error) if done == 0 && cannot(&error) => {
                    self.dir.root.kernel.store(false, Relaxed);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
            self.check()?;
        }
        Ok(Some(done))
    }

    fn check(&self) -> Result<()> {
        if self.queue.state.is_stopped() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// How much the page cache has of a file that is read otherwise if it has not.
    async fn cached_bytes(&self, source: &File, about: &Metadata) -> Result<u64> {
        let matters = about.size >= SPLICE_BYTES_MIN || self.may_read_direct(about);
        Ok(if matters { source.cached_bytes(about.size).await? } else { 0 })
    }

    fn may_read_direct(&self, about: &Metadata) -> bool {
        self.queue.settings.direct_read && about.size >= DIRECT_READ_BYTES_MIN
    }

    /// Whether the target has the contents of a source that is in the page cache. What goes wrong here goes
    /// wrong with reads and writes, too, which say what it is.
    async fn splice(&self, source: &File, about: &Metadata, target: &File) -> Result<bool> {
        if about.size < SPLICE_BYTES_MIN || about.size >= SPLICE_BYTES_END || about.has_holes() {
            return Ok(false);
        }
        let mut done = 0;
        while done < about.size {
            let length = (about.size - done).min(SPLICE_BYTES);
            match source.splice_to(done, target, done, length).await {
                Ok(bytes) if bytes > 0 => done += bytes,
                _ => return Ok(false),
            }
            self.check()?;
        }
        self.queue.state.progress.advance(about.size);
        Ok(true)
    }

    /// The source, around the page cache if it is large and that has little of it.
    async fn best_source(&self, source: &File, about: &Metadata, cached: u64) -> Result<AnyFile> {
        if !self.may_read_direct(about) || cached > about.size / 2 {
            return Ok(source.clone().into());
        }
        let options = OpenOptions::reading().no_follow();
        direct(&self.pair.source, &self.item.name, options, source).await
    }

    async fn overlap(&self, from: AnyFile, to: AnyFile) -> Result<u64> {
        let Queue { state, settings, depth, .. } = self.queue;
        let mut copy = Copy::new(from, to).await?.following(settings.request_bytes, depth);
        let mut copied = 0;
        while let Some(bytes) = copy.step().await? {
            copied += bytes;
            state.progress.advance(bytes);
            self.check()?;
        }
        state.tally.hole_bytes.add(copy.hole_bytes());
        copy.finish().await?;
        Ok(copied)
    }
}

fn reading() -> OpenOptions {
    OpenOptions::reading().no_follow()
}

/// Whether the error says that a way of copying is none here.
fn cannot(error: &inflight::Error) -> bool {
    let kind = error.kind();
    // What the system has no name for: a file system that does not know the call.
    let unknown = error.raw_os_error() == Some(rustix::io::Errno::NOTTY.raw_os_error());
    unknown
        || matches!(
            kind,
            ErrorKind::Unsupported
                | ErrorKind::CrossesDevices
                | ErrorKind::InvalidInput
                | ErrorKind::PermissionDenied
        )
}

/// The same file once more, around the page cache; as it is, where that cannot be.
async fn direct(
    directory: &Directory,
    name: &Path,
    options: OpenOptions,
    file: &File,
) -> Result<AnyFile> {
    let opened = match directory.open_direct(name, options).await {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(file.clone().into()),
        Err(error) => return Err(error.into()),
    };
    // Another file may have got the name.
    match opened.metadata().await?.same_file(&file.metadata().await?) {
        true => Ok(opened.into()),
        false => Ok(file.clone().into()),
    }
}
