//! Files with several names.
//!
//! The first name that is found is copied as any file; the others wait until all files are copied, and
//! then become names of the copy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::directory::Dir;
use super::item::Item;

/// A name of a file.
pub(super) type Name = (Arc<Dir>, Item);

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

    /// All names; there are none then.
    pub(super) fn take(&self) -> Vec<Vec<Name>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *files).into_values().collect()
    }
}
