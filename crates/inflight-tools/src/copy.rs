//! Copying trees.
//!
//! ```text
//! route: what goes where, and whether it may      work directory beside the target
//!    │                                                  │
//! queue ─► directory ─► batches of small files ─► read, write ─┐
//!    ▲         │    ├─► large files: share, kernel, overlapped ─┤─► attributes ─► directories' own
//!    └─────────┘    └─► links, nodes ──────────────────────────┘        │
//!                                            second names of files ─► compare (if asked) ─► final name
//! ```
//!
//! A new tree grows in a work directory beside its final name, and gets that name when nothing is left
//! to do; what goes into a tree that is there already is made in a work directory inside it, file by
//! file. So a final name never stands for half a file. A file's times are set last: one in the work
//! directory that has its source's size and time is whole, and a copy that goes on keeps it.
//!
//! Each source device has its own queue, and its own tasks that take from it: what hangs on a slow disk
//! holds up nothing else.

mod batch;
mod compare;
mod contents;
mod directory;
mod file;
mod item;
mod keep;
mod links;
mod listing;
mod queue;
mod root;
mod route;
mod second_names;
mod settings;
mod state;
mod tally;
mod tasks;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::{Handle, Progress, SyncScope};

use crate::error::Result;
use directory::Dir;
use queue::Queue;
use root::Root;
use route::Route;
use state::State;
pub use tally::{CopyReport, Stopped};
use work::Work;

/// What a copy may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyOptions {
    /// Goes on with a copy that was interrupted, or brings one up to date: what is there whole is
    /// kept, what is missing or differs is copied. Without this, nothing of the targets may exist.
    pub resume: bool,
    /// Reads everything again when it is copied, and compares.
    pub verify: bool,
    /// Says what would be done, and does nothing.
    pub dry_run: bool,
    /// Waits until everything is durable before it gets its final name.
    pub sync: bool,
}

/// Copies files and trees, with all that `cp -a` keeps of them: permissions, owners, times, extended
/// attributes, links of both kinds, holes, device files and fifos.
///
/// A `target` with a slash at its end is a directory, into which the sources go under their names (of
/// `source/.`, what is inside goes there), and so it is for several sources; else `target` is the new
/// name of the one source, whether it is there or not. What goes wrong with one file does not stop the others: the report has a list.
///
/// # Errors
/// Where it cannot begin: a source that is not there, a target that is in the way, sources and targets
/// inside each other.
pub async fn copy(
    handle: &Handle,
    progress: &Arc<Progress>,
    sources: &[PathBuf],
    target: &Path,
    options: CopyOptions,
) -> Result<CopyReport> {
    progress.enter("looking");
    let routes = route::find(handle, sources, target, options).await?;
    let state = Arc::new(State::new(handle, progress, options));
    progress.enter("copying");
    // Sources on different disks do not wait for each other.
    let mut by_device: BTreeMap<(u64, u64), Vec<Route>> = BTreeMap::new();
    for route in routes {
        by_device.entry(route.devices()).or_default().push(route);
    }
    let mut groups = Vec::new();
    for routes in by_device.into_values() {
        groups.push(handle.spawn(copy_group(state.clone(), routes)));
    }
    for group in groups {
        group.await?;
    }
    Ok(state.report())
}

/// Copies what is on one device to one other.
async fn copy_group(state: Arc<State>, routes: Vec<Route>) -> Result<()> {
    let mut roots = Vec::new();
    for route in routes {
        match Root::open(&state, route).await {
            Ok(root) => roots.push(Arc::new(root)),
            Err(error) => state.trouble(error),
        }
    }
    let Some(first) = roots.first() else { return Ok(()) };
    let settings = first.settings(&state.handle).await.within(state.handle.request_bytes_max());
    roots[1..].iter().for_each(|root| root.learn_from(first));
    let queue = Arc::new(Queue::new(state.clone(), settings));
    for root in &roots {
        begin(&queue, root);
    }
    tasks::run(&queue).await;
    second_names::make(&queue).await;
    tasks::run(&queue).await;
    if state.options.dry_run {
        return Ok(());
    }
    if state.options.verify && !state.is_stopped() {
        state.progress.enter("comparing");
        for root in &roots {
            compare::begin(&queue, root).await;
        }
        tasks::run(&queue).await;
    }
    state.progress.enter("finishing");
    for root in &roots {
        if !finish(&state, root).await {
            root.let_go().await;
        }
    }
    Ok(())
}

/// Gives what was copied its final name; says whether it has that now.
async fn finish(state: &State, root: &Root) -> bool {
    if state.is_stopped() || root.is_tainted() {
        state.kept(root.kept_at());
        return false;
    }
    let publish = async || {
        if state.options.sync {
            root.target().sync(SyncScope::FileSystem).await?;
        }
        root.publish(state).await
    };
    let published = publish().await;
    let has_name = published.is_ok();
    if let Err(error) = published {
        state.trouble(error);
        state.kept(root.kept_at());
    }
    has_name
}

/// Puts what there is to do first into the queue.
fn begin(queue: &Queue, root: &Arc<Root>) {
    match root.single_item() {
        Some(item) => queue.push(Work::Single(Arc::new(Dir::around(root.clone())), item)),
        None => {
            let (about, existing) = root.about();
            queue.push(Work::Enter(Arc::new(Dir::root(root.clone(), about, existing))));
        }
    }
}
