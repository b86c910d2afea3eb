//! What there is to do, as it waits in the queue.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use inflight::{DirectoryBatch, Metadata};

use super::directory::{Dir, Pair};
use super::item::Item;
use super::root::Root;

/// Something to do.
pub(super) enum Work {
    /// Make a directory, and begin to list it.
    Enter(Arc<Dir>),
    /// List some more of one.
    List(Listing),
    /// Copy small files.
    Batch(Arc<Dir>, Arc<Pair>, Vec<Item>),
    /// Copy one thing, whatever it is.
    One(Arc<Dir>, Arc<Pair>, Item),
    /// Copy a thing that is a whole source.
    Single(Arc<Dir>, Item),
    /// Copy a large file.
    Large(Arc<Dir>, Item),
    /// Compare the files of a directory.
    Compare(Comparison),
}

/// A listing under way.
pub(super) struct Listing {
    pub(super) dir: Arc<Dir>,
    pub(super) pair: Arc<Pair>,
    pub(super) batch: DirectoryBatch,
    /// What is in the copy, if something may be.
    pub(super) existing: Option<HashMap<PathBuf, Metadata>>,
}

/// A directory to be compared.
pub(super) struct Comparison {
    pub(super) root: Arc<Root>,
    pub(super) path: PathBuf,
}
