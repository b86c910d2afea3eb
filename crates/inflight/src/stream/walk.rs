//! Listing a whole tree, with many directories at once.
//!
//! Walking is bound by the processor, not the disk: each operation lists a directory with one
//! call for hundreds of names and asks for the metadata of each relative to it, on as many threads
//! as the engine has.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ordered::Ordered;
use crate::directory::Directory;
use crate::error::Result;
use crate::metadata::{DirectoryBatch, FileKind, Metadata};
use crate::operation::OpenOptions;
use crate::task::Task;

/// Directories listed at once.
const DIRECTORIES_AT_ONCE: usize = 64;

/// One name found by [`walk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkEntry {
    /// The path below the root that was walked.
    pub path: PathBuf,
    /// What the system knows about it; of a symbolic link itself.
    pub metadata: Metadata,
}

/// Everything below `root`, sorted by path as bytes component by component, parents first; without
/// `root` itself. Symbolic links are listed, never followed.
///
/// # Errors
/// The first that any directory gave.
pub async fn walk(root: &Directory) -> Result<Vec<WalkEntry>> {
    let mut entries = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    let mut listing: Ordered<Task<Result<Vec<WalkEntry>>>> = Ordered::new(DIRECTORIES_AT_ONCE);
    loop {
        while listing.has_room()
            && let Some(path) = waiting.pop()
        {
            let root = root.clone();
            listing.push(root.handle().clone().spawn(async move { list(&root, &path).await }));
        }
        let Some(listed) = listing.next().await else {
            break;
        };
        let listed = listed?;
        let is_directory = |entry: &&WalkEntry| entry.metadata.kind == FileKind::Directory;
        waiting.extend(listed.iter().filter(is_directory).map(|entry| entry.path.clone()));
        entries.extend(listed);
    }
    // `Path` compares component by component, so that a directory's contents follow it directly.
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

async fn list(root: &Directory, path: &Path) -> Result<Vec<WalkEntry>> {
    let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let opened = root.open_directory(name, OpenOptions::directory().beneath()).await;
    let directory = match opened {
        // Removed since it was listed: as if it had been empty.
        Err(error) if error.kind() == ErrorKind::NotFound && name != Path::new(".") => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let mut entries = Vec::new();
    let mut batch = DirectoryBatch::default();
    loop {
        batch = directory.read(batch, true).await?;
        for entry in batch.iter() {
            let Some(metadata) = entry.metadata else {
                continue;
            };
            let path = path.join(OsStr::from_bytes(entry.name.to_bytes()));
            entries.push(WalkEntry { path, metadata: *metadata });
        }
        if batch.is_empty() || batch.is_last() {
            return Ok(entries);
        }
    }
}
