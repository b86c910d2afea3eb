//! Listing a whole tree, with many directories at once.
//!
//! Walking is bound by the processor, not the disk: each operation opens and lists some directories, with
//! one call for hundreds of names, and asks for the metadata of each name relative to its directory, on as
//! many threads as the engine has. Each directory is sorted by itself, by whoever listed it; put together from the root
//! down, all are in order.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ordered::Ordered;
use crate::directory::{Directory, ListedDirectory};
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata};
use crate::task::Task;

/// Groups of directories listed at once.
const GROUPS_AT_ONCE: usize = 16;
/// Directories listed by one operation.
const GROUP_DIRECTORIES_MAX: usize = 16;

/// One name found by [`walk_names`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkName {
    /// The path below the root that was walked.
    pub path: PathBuf,
    /// What it is; of a symbolic link itself.
    pub kind: FileKind,
}

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
    gather(root).await
}

/// The same, of names and kinds only: nothing is asked about each file, which takes about half of the time.
///
/// # Errors
/// As for [`walk`].
pub async fn walk_names(root: &Directory) -> Result<Vec<WalkName>> {
    gather(root).await
}

/// What a walk finds of each name.
trait Found: Send + Sized + 'static {
    /// Whether listings ask for metadata.
    const METADATA: bool;
    fn new(path: PathBuf, kind: FileKind, metadata: Option<&Metadata>) -> Option<Self>;
    fn path(&self) -> &Path;
    fn kind(&self) -> FileKind;
}

impl Found for WalkEntry {
    const METADATA: bool = true;

    fn new(path: PathBuf, _: FileKind, metadata: Option<&Metadata>) -> Option<WalkEntry> {
        Some(WalkEntry { path, metadata: *metadata? })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self) -> FileKind {
        self.metadata.kind
    }
}

impl Found for WalkName {
    const METADATA: bool = false;

    fn new(path: PathBuf, kind: FileKind, _: Option<&Metadata>) -> Option<WalkName> {
        Some(WalkName { path, kind })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self) -> FileKind {
        self.kind
    }
}

/// What is in some directories, with the number of each.
type Numbered<T> = Vec<(usize, Vec<T>)>;

async fn gather<T: Found>(root: &Directory) -> Result<Vec<T>> {
    // Sorted, and by number: those of one directory's directories follow each other, in their order.
    let mut listings: Vec<Listing<T>> = vec![Listing::default()];
    let mut waiting = vec![(0, PathBuf::new())];
    let mut listing: Ordered<Task<Result<Numbered<T>>>> = Ordered::new(GROUPS_AT_ONCE);
    loop {
        while listing.has_room() && !waiting.is_empty() {
            // As many together as leaves something to the others.
            let together = (waiting.len() / GROUPS_AT_ONCE).clamp(1, GROUP_DIRECTORIES_MAX);
            let group = waiting.split_off(waiting.len() - together);
            let root = root.clone();
            listing.push(root.handle().clone().spawn(async move { list(&root, group).await }));
        }
        let Some(listed) = listing.next().await else { break };
        for (number, entries) in listed? {
            let first_below = listings.len();
            for entry in entries.iter().filter(|entry| entry.kind() == FileKind::Directory) {
                waiting.push((listings.len(), entry.path().to_path_buf()));
                listings.push(Listing::default());
            }
            listings[number] = Listing { entries: entries.into_iter(), next_below: first_below };
        }
    }
    Ok(in_order(listings))
}

/// What is in one directory, and the number of the listing of the next directory in it.
struct Listing<T> {
    entries: std::vec::IntoIter<T>,
    next_below: usize,
}

impl<T> Default for Listing<T> {
    fn default() -> Listing<T> {
        Listing { entries: Vec::new().into_iter(), next_below: 0 }
    }
}

/// Each directory followed by what is in it.
fn in_order<T: Found>(mut listings: Vec<Listing<T>>) -> Vec<T> {
    let count = listings.iter().map(|listing| listing.entries.len()).sum();
    let mut all = Vec::with_capacity(count);
    let mut open = vec![0];
    while let Some(&number) = open.last() {
        let listing = &mut listings[number];
        let Some(entry) = listing.entries.next() else {
            open.pop();
            continue;
        };
        if entry.kind() == FileKind::Directory {
            open.push(listing.next_below);
            listing.next_below += 1;
        }
        all.push(entry);
    }
    all
}

/// What is in each of some directories; in one that was removed since its name was found, nothing.
async fn list<T: Found>(root: &Directory, group: Vec<(usize, PathBuf)>) -> Result<Numbered<T>> {
    let name_of = |path: &PathBuf| match path.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => path.clone(),
    };
    let names: Vec<PathBuf> = group.iter().map(|(_, path)| name_of(path)).collect();
    let listed = root.list(&names, T::METADATA).await?;
    let mut found = Vec::with_capacity(group.len());
    for ((number, path), listed) in group.into_iter().zip(listed) {
        let entries = match listed {
            Some(listed) => entries_of(root, &path, listed).await?,
            None if path.as_os_str().is_empty() => {
                let gone = ErrorKind::NotFound.into();
                return Err(Error::new("list", Some(root.path().to_path_buf()), gone));
            }
            None => Vec::new(),
        };
        found.push((number, entries));
    }
    Ok(found)
}

/// Sorted.
async fn entries_of<T: Found>(
    root: &Directory,
    path: &Path,
    listed: ListedDirectory,
) -> Result<Vec<T>> {
    let ListedDirectory { mut batch, rest } = listed;
    let mut entries = Vec::with_capacity(batch.len());
    loop {
        for entry in batch.iter() {
            let name = Path::new(OsStr::from_bytes(entry.name.to_bytes()));
            // In one allocation: there is one for each file.
            let length = path.as_os_str().len() + 1 + name.as_os_str().len();
            let mut whole = PathBuf::with_capacity(length);
            whole.push(path);
            whole.push(name);
            let kind = match entry.kind {
                // The file system does not say without a look.
                FileKind::Unknown if !T::METADATA => match root.metadata(&whole, false).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    about => about?.kind,
                },
                kind => kind,
            };
            entries.extend(T::new(whole, kind, entry.metadata));
        }
        match &rest {
            Some(rest) if !batch.is_empty() && !batch.is_last() => {
                batch = rest.read(batch, T::METADATA).await?;
            }
            _ => break,
        }
    }
    // All are in one directory, so the bytes behind that tell.
    let above = path.as_os_str().len();
    entries.sort_unstable_by(|a: &T, b: &T| {
        let (a, b) = (a.path().as_os_str().as_bytes(), b.path().as_os_str().as_bytes());
        a[above..].cmp(&b[above..])
    });
    Ok(entries)
}
