//! Going through a source's directories: making each in the copy, listing it, and, when everything in it
//! is done, giving it what is kept of it.
//!
//! A directory holds its two descriptors only while there is something to do for it: names in a tree
//! are found from the roots again where that is needed later, so a tree of any depth needs few.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use inflight::{Directory, DirectoryBatch, FileKind, Metadata, OpenOptions};

use super::State;
use super::item::{Item, path_of};
use super::keep::Both;
use super::queue::{Queue, Work};
use super::route::Root;
use crate::error::{Error, Result};

/// Files up to this size are copied together with others.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Bytes that are copied together.
const BATCH_BYTES: u64 = 1 << 20;
/// Files that are copied together.
const BATCH_FILES: usize = 64;

/// A directory of a source, and what becomes of it.
pub(super) struct Dir {
    pub(super) root: Arc<Root>,
    above: Option<Arc<Dir>>,
    /// Below the root; empty for the root itself.
    path: PathBuf,
    metadata: Metadata,
    /// What is in its place in the copy.
    existing: Option<Metadata>,
    /// Whether it is what holds a single file that is copied: nobody's to change.
    is_around: bool,
    pair: Mutex<Weak<Pair>>,
    /// Whether it could not even be begun.
    failed: AtomicBool,
    /// What is to be done before it is done itself: its listing, and everything in it.
    left: AtomicUsize,
}

/// A directory and its copy, open.
pub(super) struct Pair {
    pub(super) source: Directory,
    /// Only a dry run may have none.
    target: Option<Directory>,
}

impl Pair {
    pub(super) fn target(&self) -> &Directory {
        self.target.as_ref().expect("only a dry run has none")
    }
}

/// A listing under way.
pub(super) struct Listing {
    dir: Arc<Dir>,
    pair: Arc<Pair>,
    batch: DirectoryBatch,
    /// What is in the copy, if something may be.
    existing: Option<HashMap<PathBuf, Metadata>>,
}

impl Dir {
    /// A source's root.
    pub(super) fn root(root: Arc<Root>, metadata: Metadata, existing: Option<Metadata>) -> Dir {
        Dir {
            root,
            above: None,
            path: PathBuf::new(),
            metadata,
            existing,
            is_around: false,
            pair: Mutex::default(),
            failed: AtomicBool::new(false),
            left: AtomicUsize::new(1),
        }
    }

    /// What holds a single file.
    pub(super) fn around(root: Arc<Root>) -> Dir {
        let dir = Dir::root(root, Metadata::default(), None);
        Dir { is_around: true, ..dir }
    }

    fn inside(above: &Arc<Dir>, item: Item) -> Dir {
        let path = above.path.join(&item.name);
        let root = Dir::root(above.root.clone(), item.metadata, item.existing);
        Dir { above: Some(above.clone()), path, ..root }
    }

    fn lock(&self) -> MutexGuard<'_, Weak<Pair>> {
        self.pair.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole path of a thing in the source, for messages.
    pub(super) fn shown(&self, name: &Path) -> PathBuf {
        self.root.source().path().join(&self.path).join(name)
    }

    /// The same in the copy.
    pub(super) fn shown_target(&self, name: &Path) -> PathBuf {
        let name = self.root.target_name(name);
        let root = self.root.target_if_there().map_or(Path::new(""), Directory::path);
        root.join(&self.path).join(name)
    }

    /// Both descriptors, opened again if they were closed.
    pub(super) async fn pair(&self, state: &State) -> Result<Arc<Pair>> {
        if let Some(pair) = self.lock().upgrade() {
            return Ok(pair);
        }
        let target = match (self.root.target_if_there(), state.options.dry_run) {
            (None, _) => None,
            (Some(_), true) if self.existing.is_none() => None,
            (Some(target), _) => Some(below(target, &self.path).await?),
        };
        self.pair_with(target).await
    }

    async fn pair_with(&self, target: Option<Directory>) -> Result<Arc<Pair>> {
        let source = below(self.root.source(), &self.path).await?;
        let pair = Arc::new(Pair { source, target });
        *self.lock() = Arc::downgrade(&pair);
        Ok(pair)
    }

    fn add(&self, count: usize) {
        self.left.fetch_add(count, AcqRel);
    }
}

/// A directory below a root, on a way without links.
pub(super) async fn below(root: &Directory, path: &Path) -> Result<Directory> {
    if path.as_os_str().is_empty() {
        return Ok(root.clone());
    }
    Ok(root.open_directory(path, OpenOptions::directory().beneath()).await?)
}

/// Makes a directory in the copy, and begins to list it.
pub(super) async fn enter(queue: &Queue, dir: Arc<Dir>) {
    match begin(&queue.state, &dir).await {
        Ok(listing) => queue.push(Work::List(listing)),
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
        // With the permissions that it is to have, as far as they do not forbid to put anything in.
        None if !state.options.dry_run && !is_root => {
            let mode = (dir.metadata.mode & 0o755) | 0o700;
            let options = OpenOptions::creating_directory(mode);
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

/// Everything in a directory, by name.
pub(super) async fn names_in(directory: &Directory) -> Result<HashMap<PathBuf, Metadata>> {
    let listed = directory.open_directory(".", OpenOptions::directory()).await?;
    let mut names = HashMap::new();
    let mut batch = listed.read(DirectoryBatch::default(), true).await?;
    while !batch.is_empty() {
        let known = batch.iter().filter_map(|e| Some((path_of(e.name), *e.metadata?)));
        names.extend(known);
        batch = listed.read(batch, true).await?;
    }
    Ok(names)
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
    let mut found = Found {
        queue,
        dir: &dir,
        pair: &listing.pair,
        inside: Vec::new(),
        works: Vec::new(),
        small: Vec::new(),
        small_bytes: 0,
    };
    for entry in batch.iter() {
        let Some(metadata) = entry.metadata else { continue };
        let name = path_of(entry.name);
        let existing = listing.existing.as_mut().and_then(|names| names.remove(&name));
        found.add(Item { name, metadata: *metadata, existing });
    }
    found.end_batch();
    let Found { mut inside, works, .. } = found;
    inside.reverse();
    let is_last = batch.is_last();
    listing.batch = batch;
    if !is_last {
        inside.push(Work::List(listing));
    }
    inside.extend(works);
    queue.push_all(inside);
    if is_last {
        done(state, dir, 1).await;
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
            let small = item.metadata.size < SMALL_BYTES_MAX && !item.has_holes();
            match (small, item.existing.is_none()) {
                (false, _) => return self.works.push(Work::Large(self.dir.clone(), item)),
                (true, true) if !alone && !state.options.dry_run => return self.add_small(item),
                (true, _) => {}
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

/// So many things of a directory are done. If they were the last, so is the directory: it gets what is
/// kept of it, and then the one above has one thing less to wait for.
pub(super) async fn done(state: &State, dir: Arc<Dir>, count: usize) {
    let (mut dir, mut count) = (dir, count);
    while dir.left.fetch_sub(count, AcqRel) == count {
        if !state.options.dry_run
            && !state.is_stopped()
            && !dir.is_around
            && !dir.failed.load(Relaxed)
            && let Err(error) = finish(state, &dir).await
        {
            state.trouble(error);
        }
        let Some(above) = dir.above.clone() else { return };
        (dir, count) = (above, 1);
    }
}

async fn finish(state: &State, dir: &Dir) -> Result<()> {
    let pair = dir.pair(state).await?;
    let name = Path::new("");
    let both = Both::Names((&pair.source, name), (pair.target(), name));
    state.keep.set(both, &dir.metadata).await
}
