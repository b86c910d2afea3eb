//! A tree on disk: a directory, or a single file seen as a tree of one.
//!
//! [`scan`] turns it into a manifest. What cannot be represented (devices, sockets, fifos) is left
//! out and named in a warning.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::stream::{Ordered, WalkEntry, walk};
use inflight::{Directory, FileKind, Handle, Metadata, OpenOptions};

use crate::error::{Error, Result};
use crate::manifest::{Entry, EntryKind, Manifest, Preserve, Preserved};

/// Look-ups (links, holes, attributes) under way at once.
const LOOKUPS_AT_ONCE: usize = 64;

/// Files smaller than this are never taken for sparse: the smallest hole a file system makes.
const SPARSE_BYTES_MIN: u64 = 4096;

/// Where a tree is. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    directory: Directory,
    /// The name in `directory`, if the tree is a single file.
    single: Option<Arc<Path>>,
    metadata: Metadata,
}

impl Tree {
    /// Opens the tree at `path`; a symbolic link there is followed.
    pub(crate) async fn open(handle: &Handle, path: &Path) -> Result<Tree> {
        let metadata = handle.metadata(path, true).await?;
        match metadata.kind {
            FileKind::Directory => {
                let directory = handle.open_directory(path).await?;
                Ok(Tree { directory, single: None, metadata })
            }
            FileKind::File => {
                let name = path.file_name().unwrap_or(OsStr::new("."));
                let directory = handle.open_directory(parent(path)).await?;
                Ok(Tree { directory, single: Some(Path::new(name).into()), metadata })
            }
            other => Err(Error::Tree {
                path: path.into(),
                what: format!("is a {}; give a file or a directory", other.name()),
            }),
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(crate) fn is_single(&self) -> bool {
        self.single.is_some()
    }

    /// A manifest path as the directory wants it.
    pub(crate) fn locate<'a>(&'a self, path: &'a Path) -> &'a Path {
        match &self.single {
            Some(name) => name,
            None if path.as_os_str().is_empty() => Path::new("."),
            None => path,
        }
    }

    /// A manifest path for messages.
    pub(crate) fn display_path(&self, path: &Path) -> PathBuf {
        match &self.single {
            Some(name) => self.directory.path().join(name),
            None if path.as_os_str().is_empty() => self.directory.path().to_path_buf(),
            None => self.directory.path().join(path),
        }
    }

    /// How its files are opened. A single file may be named through a link, as the user did.
    pub(crate) fn reading(&self) -> OpenOptions {
        match self.single {
            Some(_) => OpenOptions::reading(),
            None => OpenOptions::reading().no_follow(),
        }
    }

    /// The same for names that came with a patch.
    pub(crate) fn reading_beneath(&self) -> OpenOptions {
        match self.single {
            Some(_) => OpenOptions::reading(),
            None => OpenOptions::reading().beneath(),
        }
    }
}

/// The directory that a path's last component is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// A tree with its manifest, and what had to be left out.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) tree: Tree,
    pub(crate) manifest: Manifest,
    pub(crate) warnings: Vec<String>,
}

/// Lists a tree.
pub(crate) async fn scan(tree: Tree, preserve: Preserve) -> Result<Scanned> {
    let mut found = vec![WalkEntry { path: PathBuf::new(), metadata: *tree.metadata() }];
    if !tree.is_single() {
        found.extend(walk(tree.directory()).await?);
    }
    let mut scanner = Scanner {
        lookups: Ordered::new(LOOKUPS_AT_ONCE),
        manifest: Manifest { preserve, entries: Vec::with_capacity(found.len()) },
        names: HashMap::new(),
        warnings: Vec::new(),
        tree,
    };
    for entry in found {
        scanner.add(entry).await?;
    }
    while let Some(done) = scanner.lookups.next().await {
        scanner.settle(done?);
    }
    Ok(Scanned { tree: scanner.tree, manifest: scanner.manifest, warnings: scanner.warnings })
}

/// What a look-up found for one entry.
struct Found {
    entry: usize,
    target: Option<Vec<u8>>,
    holes: Vec<(u64, u64)>,
    attributes: Vec<(std::ffi::CString, Vec<u8>)>,
}

struct Scanner {
    tree: Tree,
    manifest: Manifest,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), u32>,
    lookups: Ordered<inflight::Task<Result<Found>>>,
    warnings: Vec<String>,
}

impl Scanner {
    async fn add(&mut self, found: WalkEntry) -> Result<()> {
        let WalkEntry { path, metadata } = found;
        let index = self.manifest.entries.len();
        let kind = match metadata.kind {
            FileKind::Directory => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink { target: Vec::new() },
            FileKind::File => self.file_kind(&metadata, index),
            other => {
                let path = self.tree.display_path(&path);
                self.warnings.push(format!("{} is a {}; left out", path.display(), other.name()));
                return Ok(());
            }
        };
        let preserve = self.manifest.preserve;
        let sparse = matches!(kind, EntryKind::File { size, .. } if size >= SPARSE_BYTES_MIN
            && metadata.allocated < size);
        let symlink = metadata.kind == FileKind::Symlink;
        let attributes =
            preserve.has(Preserve::XATTRS) && !matches!(kind, EntryKind::HardLink { .. });
        if sparse || symlink || attributes {
            if !self.lookups.has_room()
                && let Some(done) = self.lookups.next().await
            {
                self.settle(done?);
            }
            let (tree, path) = (self.tree.clone(), path.clone());
            let wanted = Wanted { symlink, sparse: sparse.then_some(metadata.size), attributes };
            let task = async move { wanted.look_up(&tree, &path, index).await };
            self.lookups.push(self.tree.directory().handle().spawn(task));
        }
        let mode = match kind {
            EntryKind::Directory | EntryKind::File { .. } => metadata.mode,
            _ => 0,
        };
        let file_itself = !matches!(kind, EntryKind::HardLink { .. });
        let preserved = (file_itself && preserve != Preserve::NONE).then(|| {
            Box::new(Preserved {
                modified: if preserve.has(Preserve::TIMES) {
                    metadata.modified
                } else {
                    Default::default()
                },
                owner: if preserve.has(Preserve::OWNER) {
                    metadata.owner
                } else {
                    Default::default()
                },
                attributes: Vec::new(),
            })
        });
        self.manifest.entries.push(Entry { path, kind, mode, preserved });
        Ok(())
    }

    fn file_kind(&mut self, metadata: &Metadata, index: usize) -> EntryKind {
        if metadata.links > 1 && !self.tree.is_single() {
            let identity = (metadata.device, metadata.inode);
            if let Some(original) = self.names.get(&identity) {
                return EntryKind::HardLink { original: *original };
            }
            self.names.insert(identity, index as u32);
        }
        EntryKind::File { size: metadata.size, holes: Vec::new() }
    }

    fn settle(&mut self, found: Found) {
        let entry = &mut self.manifest.entries[found.entry];
        match &mut entry.kind {
            EntryKind::Symlink { target } => *target = found.target.unwrap_or_default(),
            EntryKind::File { holes, .. } => *holes = found.holes,
            _ => {}
        }
        if let Some(preserved) = &mut entry.preserved {
            preserved.attributes = found.attributes;
        }
    }
}

/// What to look up for one entry.
struct Wanted {
    symlink: bool,
    /// The size of a file that has less space allocated.
    sparse: Option<u64>,
    attributes: bool,
}

impl Wanted {
    async fn look_up(self, tree: &Tree, path: &Path, entry: usize) -> Result<Found> {
        let place = tree.locate(path);
        let mut found = Found { entry, target: None, holes: Vec::new(), attributes: Vec::new() };
        if self.symlink {
            found.target = Some(tree.directory().read_link(place).await?);
        }
        if let Some(size) = self.sparse {
            found.holes = find_holes(tree, place, size).await?;
        }
        if self.attributes {
            found.attributes = tree.directory().attributes(place).await?;
        }
        Ok(found)
    }
}

/// The holes of a file, as (first byte, bytes).
async fn find_holes(tree: &Tree, path: &Path, size: u64) -> Result<Vec<(u64, u64)>> {
    let file = tree.directory().open(path, tree.reading()).await?;
    let mut holes = Vec::new();
    let mut position = 0;
    while position < size {
        let (data, end) = file.find_data(position).await?.unwrap_or((size, size));
        let data = data.min(size);
        if data > position {
            holes.push((position, data - position));
        }
        position = end.max(data);
    }
    file.close().await?;
    Ok(holes)
}
