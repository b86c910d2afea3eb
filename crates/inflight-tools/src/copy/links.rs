//! Files with several names.
//!
//! The first name that is found is copied as any file; the others wait until all files are copied, and
//! then become names of the copy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use inflight::{At, Directory, Operation};

use super::State;
use super::directory::{Dir, Pair, done};
use super::item::Item;
use super::queue::{Queue, Work};
use crate::error::Result;

/// A name of a file.
type Name = (Arc<Dir>, Item);

/// The names of each file that has several; the first is copied.
#[derive(Default)]
pub(crate) struct Links {
    files: Mutex<BTreeMap<(u64, u64), Vec<Name>>>,
}

impl Links {
    /// Whether this is the first name of its file that was found. If not, it waits.
    pub(super) fn is_first(&self, dir: &Arc<Dir>, item: &Item) -> bool {
        let identity = (item.metadata.device, item.metadata.inode);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let names = files.entry(identity).or_default();
        names.push((dir.clone(), item.clone()));
        names.len() == 1
    }

    fn take(&self) -> Vec<Vec<Name>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *files).into_values().collect()
    }
}

/// Makes the other names. One whose file could not be copied is copied itself.
pub(super) async fn make(queue: &Arc<Queue>) {
    let state = &queue.state;
    for names in queue.links.take() {
        let mut names = names.into_iter();
        let Some(mut first) = names.next() else { continue };
        for (dir, item) in names {
            if state.is_stopped() {
                return;
            }
            match link(state, &first, &dir, &item).await {
                Ok(true) => {
                    state.progress.advance(item.metadata.size);
                    done(state, dir, 1).await;
                }
                Ok(false) => {
                    first = (dir.clone(), item.clone());
                    let work = match dir.pair(state).await {
                        Ok(pair) => Work::One(dir, pair, item),
                        Err(error) => {
                            state.trouble(error);
                            done(state, dir, 1).await;
                            continue;
                        }
                    };
                    queue.push(work);
                    queue.run().await;
                }
                Err(error) => {
                    state.trouble(error);
                    done(state, dir, 1).await;
                }
            }
        }
    }
}

/// Makes a name of the copy of a file; says whether there is a copy.
async fn link(state: &State, first: &Name, dir: &Arc<Dir>, item: &Item) -> Result<bool> {
    if state.options.dry_run {
        state.tally.hard_links.add(1);
        return Ok(true);
    }
    let pairs = (first.0.pair(state).await?, dir.pair(state).await?);
    let original = first.0.root.target_name(&first.1.name);
    let there = match pairs.0.target().metadata(original, false).await {
        Ok(there) => there,
        Err(error) if error.is_not_there() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // Something older may still have its name.
    if (there.size, there.modified) != (first.1.metadata.size, first.1.metadata.modified) {
        return Ok(false);
    }
    if item.existing.is_some_and(|existing| existing.same_file(&there)) {
        state.tally.unchanged.add(1);
        return Ok(true);
    }
    let at = |directory: &Directory, path: &std::path::Path| {
        At::new(Some(directory.descriptor()), path)
            .map_err(|error| inflight::Error::new("create hard link", Some(path.into()), error))
    };
    let from = at(pairs.0.target(), original)?;
    match dir.root.elsewhere() {
        None => {
            remove_existing(&pairs.1, dir, item).await?;
            let to = at(pairs.1.target(), &item.name)?;
            let link = Operation::CreateHardLink { original: from, at: to };
            state.handle.submit(link).await?;
        }
        Some((work, name)) => {
            let to = at(&work, &name)?;
            let link = Operation::CreateHardLink { original: from, at: to };
            state.handle.submit(link).await?;
            super::batch::name_it(&pairs.1, &work, &name, dir, item).await?;
        }
    }
    state.tally.hard_links.add(1);
    Ok(true)
}

/// Removes what is in an item's place.
pub(super) async fn remove_existing(pair: &Pair, dir: &Dir, item: &Item) -> Result<()> {
    use inflight::{FileKind, RemoveKind};
    let Some(there) = &item.existing else { return Ok(()) };
    let name = dir.root.target_name(&item.name);
    let kind = match there.kind {
        FileKind::Directory => RemoveKind::Directory,
        _ => RemoveKind::File,
    };
    Ok(pair.target().remove(name, kind).await?)
}
