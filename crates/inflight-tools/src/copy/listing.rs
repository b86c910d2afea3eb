//! Going through a source's directories: making each in the copy, and listing it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use inflight::{
    CopiedDirectory, DirectoryBatch, DirectoryCopy, FileKind, Kept, Metadata, OpenOptions,
};

use super::directory::{Dir, Pair, done, names_in};
use super::item::{Item, path_of};
use super::queue::Queue;
use super::settings::SMALL_BYTES_MAX;
use super::state::State;
use super::work::{Listing, Work};
use crate::error::{Error, Result};

/// Bytes that are copied together.
const BATCH_BYTES: u64 = 1 << 20;
/// Files that are copied together.
const BATCH_FILES: usize = 64;
/// Files below this are copied while their directory is made.
const ALONG_BYTES_MAX: usize = 256 << 10;

/// Makes a directory in the copy, and begins to list it.
pub(super) async fn enter(queue: &Queue, dir: Arc<Dir>) {
    let begun = match is_plain(&queue.state, &dir) {
        true => copy_along(queue, &dir).await,
        false => begin(&queue.state, &dir).await.map(|listing| queue.push(Work::List(listing))),
    };
    match begun {
        Ok(()) => {}
        Err(error) => {
            queue.state.trouble(error);
            dir.failed.store(true, Relaxed);
            if dir.path.as_os_str().is_empty() {
                // Not even the source itself could be looked into.
                dir.root.taint();
            }
            done(&queue.state, dir, 1).await;
        }
    }
}

/// Whether a directory and all that is in it are to be made, and copied byte by byte.
fn is_plain(state: &State, dir: &Dir) -> bool {
    let is_root = dir.path.as_os_str().is_empty();
    let is_new = dir.existing.is_none() && !is_root && !state.options.dry_run;
    is_new && dir.root.makes_in_place() && !dir.root.clones.load(Relaxed)
}

/// Makes a directory in the copy, with what is small in it and in directories inside, and goes on with the rest.
async fn copy_along(queue: &Queue, dir: &Arc<Dir>) -> Result<()> {
    let state = &queue.state;
    let buffer = state.handle.buffer(ALONG_BYTES_MAX).await;
    let mut copy = DirectoryCopy::new(&dir.metadata, state.keep.kept(), buffer);
    if queue.settings.is_far {
        copy = copy.of_few();
    }
    let (source, target) = (dir.root.source(), dir.root.target());
    let copied = source.copy_directory(&dir.path, (target, &dir.path), copy).await?;
    let mut begun = vec![(dir.clone(), copied)];
    let mut found = Sorted::default();
    while let Some((dir, mut copied)) = begun.pop() {
        let Some((source, target)) = copied.opened.take() else {
            count_done(state, &dir.metadata, &copied);
            dir.is_done.store(true, Relaxed);
            found.listed.push(dir);
            continue;
        };
        let CopiedDirectory { batch, is_listed, copied, inside, attributes_lost, .. } = copied;
        state.tally.directories.add(1);
        state.keep.lose_attributes(attributes_lost as u32);
        let pair = dir.set_pair(Pair { source, target: Some(target) });
        let listing = Listing { dir, pair, batch, existing: None };
        match is_listed {
            true => begun.extend(found.sort(queue, listing, (&copied, inside))),
            // Whoever lists it again is told what is wrong.
            false => found.works.push(Work::List(listing)),
        }
    }
    found.put_into(queue).await;
    Ok(())
}

/// Counts a directory with all that is in it, which was copied.
fn count_done(state: &State, metadata: &Metadata, copied: &CopiedDirectory) {
    state.tally.directories.add(1);
    state.keep.lose_attributes(copied.attributes_lost as u32);
    state.keep.note_owner(metadata);
    let mut inside = copied.inside.iter();
    for metadata in copied.batch.iter().filter_map(|entry| entry.metadata) {
        if metadata.kind != FileKind::Directory {
            state.progress.expect(metadata.size);
            state.count_file(metadata);
        } else if let Some((_, directory)) = inside.next() {
            count_done(state, metadata, directory);
        }
    }
}

async fn begin(state: &State, dir: &Arc<Dir>) -> Result<Listing> {
    let is_root = dir.path.as_os_str().is_empty();
    if let Some(there) = &dir.existing
        && there.kind != FileKind::Directory
        && !is_root
    {
        let (path, kind) = (dir.root.target().path().join(&dir.path), there.kind.name());
        let path = path.display();
        return Err(Error::Paths(format!(
            "{path} is a {kind} in place of a directory; remove it and --resume"
        )));
    }
    let pair = match &dir.existing {
        None if !state.options.dry_run && !is_root => {
            let options =
                OpenOptions::creating_directory(Kept::mode_while_made(&dir.metadata).into());
            let made = dir.root.target().open_directory(&dir.path, options.beneath()).await?;
            dir.pair_with(Some(made)).await?
        }
        Some(there) if there.mode & 0o700 != 0o700 && !state.options.dry_run && !is_root => {
            dir.root.target().set_mode(&dir.path, there.mode | 0o700).await?;
            dir.pair(state).await?
        }
        _ => dir.pair(state).await?,
    };
    let existing = match (&dir.existing, &pair.target) {
        (Some(_), Some(target)) => Some(names_in(target).await?),
        _ => None,
    };
    state.tally.directories.add(1);
    let batch = DirectoryBatch::default();
    Ok(Listing { dir: dir.clone(), pair, batch, existing })
}

/// Lists some more, and puts what was found into the queue: subdirectories below the rest of the listing,
/// files on top of it.
pub(super) async fn list(queue: &Queue, mut listing: Listing) {
    let (state, dir) = (&queue.state, listing.dir.clone());
    let batch = std::mem::take(&mut listing.batch);
    let batch = match listing.pair.source.read(batch, true).await {
        Ok(batch) => batch,
        Err(error) => {
            state.trouble(error.into());
            DirectoryBatch::default()
        }
    };
    if batch.is_empty() {
        drop(listing);
        return done(state, dir, 1).await;
    }
    listing.batch = batch;
    let mut found = Sorted::default();
    found.sort(queue, listing, (&[], Vec::new()));
    found.put_into(queue).await;
}

/// What parts of listings have, as it goes into the queue.
#[derive(Default)]
struct Sorted {
    /// Subdirectories.
    inside: Vec<Work>,
    /// What comes before them: it holds directories open.
    works: Vec<Work>,
    /// Directories of which there is nothing more to be listed.
    listed: Vec<Arc<Dir>>,
}

impl Sorted {
    async fn put_into(self, queue: &Queue) {
        let Sorted { mut inside, works, listed } = self;
        inside.reverse();
        queue.push_all(inside.into_iter().chain(works));
        for dir in listed {
            done(&queue.state, dir, 1).await;
        }
    }

    /// Adds what a part of a listing has, but what was copied already, and the rest of the listing, if there is more. Gives
    /// the directories that were begun already.
    fn sort(
        &mut self,
        queue: &Queue,
        mut listing: Listing,
        (copied, inside): (&[bool], Vec<(usize, CopiedDirectory)>),
    ) -> Vec<(Arc<Dir>, CopiedDirectory)> {
        let (state, dir) = (&queue.state, listing.dir.clone());
        let batch = std::mem::take(&mut listing.batch);
        let mut begun = Vec::new();
        let mut made = inside.into_iter().peekable();
        let mut found = Found {
            queue,
            dir: &dir,
            pair: &listing.pair,
            inside: Vec::new(),
            works: Vec::new(),
            small: Vec::new(),
            small_bytes: 0,
        };
        for (place, entry) in batch.iter().enumerate() {
            let Some(metadata) = entry.metadata else { continue };
            let was_made = made.next_if(|(inside, _)| *inside == place);
            match (copied.get(place).copied().unwrap_or(false), was_made) {
                (true, Some((_, inside))) => {
                    count_done(state, metadata, &inside);
                    continue;
                }
                (true, None) => {
                    state.progress.expect(metadata.size);
                    state.count_file(metadata);
                    continue;
                }
                (false, Some((_, inside))) => {
                    let item =
                        Item { name: path_of(entry.name), metadata: *metadata, existing: None };
                    dir.add(1);
                    begun.push((Arc::new(Dir::inside(&dir, item)), inside));
                    continue;
                }
                (false, None) => {}
            }
            let name = path_of(entry.name);
            let existing = listing.existing.as_mut().and_then(|names| names.remove(&name));
            found.add(Item { name, metadata: *metadata, existing });
        }
        found.end_batch();
        let Found { inside, works, .. } = found;
        self.inside.extend(inside);
        match batch.is_last() {
            true => self.listed.push(dir),
            false => {
                listing.batch = batch;
                self.works.push(Work::List(listing));
            }
        }
        self.works.extend(works);
        begun
    }
}

/// Sorts what a listing finds.
struct Found<'a> {
    queue: &'a Queue,
    dir: &'a Arc<Dir>,
    pair: &'a Arc<Pair>,
    /// Subdirectories.
    inside: Vec<Work>,
    works: Vec<Work>,
    /// Small files that go together.
    small: Vec<Item>,
    small_bytes: u64,
}

impl Found<'_> {
    fn add(&mut self, item: Item) {
        let (state, root) = (&self.queue.state, &self.dir.root);
        let is_top = self.dir.path.as_os_str().is_empty();
        if is_top && root.is_reserved(&item.name) {
            let path = self.dir.shown(&item.name);
            return state.trouble_with(&path, "has the name of the work directory; left out");
        }
        self.dir.add(1);
        if item.metadata.kind == FileKind::Directory {
            let dir = Arc::new(Dir::inside(self.dir, item));
            return self.inside.push(Work::Enter(dir));
        }
        if item.metadata.kind == FileKind::File {
            state.progress.expect(item.metadata.size);
            if item.metadata.links > 1 && !self.queue.links.is_first(self.dir, &item) {
                return;
            }
            let alone = root.clones.load(Relaxed) && item.metadata.size > 0;
            let large_bytes_min = self.queue.settings.large_bytes_min;
            if item.metadata.size >= large_bytes_min || item.metadata.has_holes() {
                return self.works.push(Work::Large(self.dir.clone(), item));
            }
            let is_small = item.metadata.size < SMALL_BYTES_MAX;
            if is_small && item.existing.is_none() && !alone && !state.options.dry_run {
                return self.add_small(item);
            }
        }
        self.works.push(Work::One(self.dir.clone(), self.pair.clone(), item));
    }

    fn add_small(&mut self, item: Item) {
        let bytes = item.metadata.size;
        if self.small_bytes + bytes > BATCH_BYTES || self.small.len() == BATCH_FILES {
            self.end_batch();
        }
        self.small_bytes += bytes;
        self.small.push(item);
    }

    fn end_batch(&mut self) {
        if self.small.is_empty() {
            return;
        }
        let items = std::mem::take(&mut self.small);
        self.small_bytes = 0;
        self.works.push(Work::Batch(self.dir.clone(), self.pair.clone(), items));
    }
}
