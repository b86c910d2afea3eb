//! A directory of a source and its copy.
//!
//! It holds its two descriptors only while there is something to do for it: names in a tree are found
//! from the roots again where that is needed later, so a tree of any depth needs few.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use inflight::{
    At, Directory, DirectoryBatch, FileKind, Metadata, OpenOptions, Operation, RemoveKind,
};

use super::item::{Item, path_of};
use super::keep::Both;
use super::root::Root;
use super::state::State;
use crate::error::Result;

/// A directory of a source, and what becomes of it.
pub(super) struct Dir {
    pub(super) root: Arc<Root>,
    above: Option<Arc<Dir>>,
    /// Below the root; empty for the root itself.
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    /// What is in its place in the copy.
    pub(super) existing: Option<Metadata>,
    /// Whether it is what holds a single file that is copied: nobody's to change.
    is_around: bool,
    pair: Mutex<Weak<Pair>>,
    /// Whether it has all that is kept of it.
    pub(super) is_done: AtomicBool,
    /// Whether it could not even be begun.
    pub(super) failed: AtomicBool,
    /// What is to be done before it is done itself: its listing, and everything in it.
    left: AtomicUsize,
}

/// A directory and its copy, open.
pub(super) struct Pair {
    pub(super) source: Directory,
    /// Only a dry run may have none.
    pub(super) target: Option<Directory>,
}

impl Pair {
    pub(super) fn target(&self) -> &Directory {
        self.target.as_ref().expect("only a dry run has none")
    }
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
            is_done: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            left: AtomicUsize::new(1),
        }
    }

    /// What holds a single file.
    pub(super) fn around(root: Arc<Root>) -> Dir {
        let dir = Dir::root(root, Metadata::default(), None);
        Dir { is_around: true, ..dir }
    }

    pub(super) fn inside(above: &Arc<Dir>, item: Item) -> Dir {
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

    pub(super) async fn pair_with(&self, target: Option<Directory>) -> Result<Arc<Pair>> {
        let source = below(self.root.source(), &self.path).await?;
        Ok(self.set_pair(Pair { source, target }))
    }

    pub(super) fn set_pair(&self, pair: Pair) -> Arc<Pair> {
        let pair = Arc::new(pair);
        *self.lock() = Arc::downgrade(&pair);
        pair
    }

    pub(super) fn add(&self, count: usize) {
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

/// So many things of a directory are done. If they were the last, so is the directory: it gets what is
/// kept of it, and then the one above has one thing less to wait for.
pub(super) async fn done(state: &State, dir: Arc<Dir>, count: usize) {
    let (mut dir, mut count) = (dir, count);
    while dir.left.fetch_sub(count, AcqRel) == count {
        if !state.options.dry_run
            && !state.is_stopped()
            && !dir.is_around
            && !dir.failed.load(Relaxed)
            && !dir.is_done.load(Relaxed)
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

/// Renames what was made in a work directory to what it is to be.
pub(super) async fn name_it(
    pair: &Pair,
    work: &Directory,
    made: &Path,
    dir: &Dir,
    item: &Item,
) -> Result<()> {
    let at = |directory: &Directory, path: &Path| {
        At::new(Some(directory.descriptor()), path)
            .map_err(|error| inflight::Error::new("rename", Some(path.into()), error))
    };
    let (from, to) = (at(work, made)?, at(pair.target(), dir.root.target_name(&item.name))?);
    let replace = item.existing.is_some();
    work.handle().submit(Operation::Rename { from, to, replace }).await?;
    Ok(())
}

/// Removes what is in an item's place.
pub(super) async fn remove_existing(pair: &Pair, dir: &Dir, item: &Item) -> Result<()> {
    let Some(there) = &item.existing else { return Ok(()) };
    let name = dir.root.target_name(&item.name);
    let kind = match there.kind {
        FileKind::Directory => RemoveKind::Directory,
        _ => RemoveKind::File,
    };
    Ok(pair.target().remove(name, kind).await?)
}
