//! The directory beside the target in which a tree is built.

use std::path::{Path, PathBuf};

use inflight::stream::{Ordered, walk_names};
use inflight::{Directory, FileKind, Handle, RemoveKind, SyncScope};

use crate::error::{Error, Result};
use crate::manifest::{Entry, EntryKind, Manifest};
use crate::paths::temporary_beside;
use crate::pump::pump;
use crate::tree::parent;

/// Directories made, or names removed, at once.
const NAMES_AT_ONCE: usize = 64;
/// The name under which a tree that is a single file is built.
const SINGLE: &str = "file";

/// Where a tree is built. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    handle: Handle,
    path: PathBuf,
    directory: Directory,
    single: bool,
}

impl Staging {
    /// Makes the directory, which only its owner can look into.
    pub(super) async fn create(handle: &Handle, target: &Path, new: &Manifest) -> Result<Staging> {
        let path = temporary_beside(target);
        handle.create_directory(&path, 0o700).await?;
        let directory = match handle.open_directory(&path).await {
            Ok(directory) => directory,
            Err(error) => {
                let _ = handle.remove(&path, RemoveKind::Directory).await;
                return Err(error.into());
            }
        };
        let single = matches!(new.entries[0].kind, EntryKind::File { .. });
        Ok(Staging { handle: handle.clone(), path, directory, single })
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Where an entry is built.
    pub(super) fn locate<'a>(&self, path: &'a Path) -> &'a Path {
        match (self.single, path.as_os_str().is_empty()) {
            (true, _) => Path::new(SINGLE),
            (false, true) => Path::new("."),
            (false, false) => path,
        }
    }

    /// Makes all directories, for the owner alone; their permissions come last, as they may forbid
    /// to put anything inside.
    pub(super) async fn create_directories(&self, new: &Manifest) -> Result<()> {
        // Parents must be there before what is in them: one depth after the other.
        for level in by_depth(new).chunk_by(|a, b| a.0 == b.0) {
            let start = async |place: &(usize, &Path)| {
                let (directory, path) = (self.directory.clone(), place.1.to_path_buf());
                let make = async move { Ok(directory.create_directory(&path, 0o700).await?) };
                Ok(self.handle.spawn(make))
            };
            pump(level, NAMES_AT_ONCE, start, async |()| Ok(())).await?;
        }
        Ok(())
    }

    /// Makes what was built durable.
    pub(super) async fn sync(&self) -> Result<()> {
        Ok(self.directory.sync(SyncScope::FileSystem).await?)
    }

    /// Gives the finished tree its name. From then on it is no more ours to remove. Gives the
    /// directory of that name, whose sync makes it durable.
    pub(super) async fn publish(&self, target: &Path) -> Result<Directory> {
        let above = self.handle.open_directory(parent(target)).await?;
        let built = match self.single {
            true => self.path.join(SINGLE),
            false => self.path.clone(),
        };
        self.rename(&built, target).await?;
        if self.single {
            // The tree is in place; a directory that stays behind would be no reason to fail.
            let _ = self.handle.remove(&self.path, RemoveKind::Directory).await;
        }
        Ok(above)
    }

    /// Renames without replacing, where the file system can; else after a last look.
    async fn rename(&self, from: &Path, target: &Path) -> Result<()> {
        let renamed = self.handle.rename(from, target, false).await;
        let Err(error) = renamed else { return Ok(()) };
        if error.kind() != std::io::ErrorKind::InvalidInput {
            return Err(error.into());
        }
        match self.handle.metadata(target, false).await {
            Ok(_) => Err(Error::Paths(format!("{} exists by now", target.display()))),
            Err(_) => Ok(self.handle.rename(from, target, true).await?),
        }
    }

    /// Removes everything that was built. What cannot be removed stays: the error that led here is
    /// the one to tell.
    pub(super) async fn remove(&self, new: &Manifest) {
        // Directories may have got their final permissions.
        let _ = self.open_directories(new).await;
        let Ok(entries) = walk_names(&self.directory).await else {
            return;
        };
        let mut removing = Ordered::new(NAMES_AT_ONCE);
        for entry in entries.iter().filter(|entry| entry.kind != FileKind::Directory) {
            if !removing.has_room() {
                removing.next().await;
            }
            let (directory, path) = (self.directory.clone(), entry.path.clone());
            let remove = async move { directory.remove(&path, RemoveKind::File).await };
            removing.push(self.handle.spawn(remove));
        }
        while removing.next().await.is_some() {}
        for entry in entries.iter().rev() {
            if entry.kind == FileKind::Directory {
                let _ = self.directory.remove(&entry.path, RemoveKind::Directory).await;
            }
        }
        let _ = self.handle.remove(&self.path, RemoveKind::Directory).await;
    }

    async fn open_directories(&self, new: &Manifest) -> Result<()> {
        for entry in &new.entries {
            if entry.kind == EntryKind::Directory && entry.mode & 0o700 != 0o700 {
                self.directory.set_mode(self.locate(&entry.path), 0o700).await?;
            }
        }
        Ok(())
    }
}

/// The directories of a manifest without its root, with their depths, outermost first.
fn by_depth(new: &Manifest) -> Vec<(usize, &Path)> {
    let directory =
        |entry: &&Entry| entry.kind == EntryKind::Directory && !entry.path.as_os_str().is_empty();
    let directories = new.entries.iter().filter(directory).map(|entry| entry.path.as_path());
    let mut paths: Vec<(usize, &Path)> =
        directories.map(|path| (path.components().count(), path)).collect();
    paths.sort_by_key(|(depth, _)| *depth);
    paths
}
