//! Second names of files that were copied.

use std::path::Path;
use std::sync::Arc;

use inflight::{At, Directory, Operation};

use super::directory::{Dir, done, name_it, remove_existing};
use super::item::Item;
use super::links::Name;
use super::queue::Queue;
use super::state::State;
use super::tasks;
use super::work::Work;
use crate::error::Result;

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
                    tasks::run(queue).await;
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
        match item.looks_done() {
            true => state.tally.unchanged.add(1),
            false => state.tally.hard_links.add(1),
        }
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
    let at = |directory: &Directory, path: &Path| {
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
            name_it(&pairs.1, &work, &name, dir, item).await?;
        }
    }
    state.tally.hard_links.add(1);
    Ok(true)
}
