//! Open directories: listing them, and everything that is named relative to them.
//!
//! All paths here are relative to the directory. `..` and symbolic links inside them are the
//! system's to resolve, except where [`crate::OpenOptions::beneath`] is asked for.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::mem::take;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::buffer::Buffer;
use crate::descriptor::{Descriptor, Sort};
use crate::error::{Error, Result};
use crate::file::{DirectFile, File};
use crate::handle::{Handle, at, metadata_at, text};
use crate::metadata::{DirectoryBatch, FileKind, Metadata, Owner, SetTimes};
use crate::operation::{
    At, CopiedFile, DirectoryCopy, DirectoryListing, FilePiece, Level, NewFile, OpenOptions,
    Operation, RemoveKind, SetMetadata, SyncScope,
};
use crate::pending::Pending;

/// How deep a directory may be below the root of the file system.
const DEPTH_MAX: usize = 4096;

/// What [`Directory::list`] found.
#[derive(Debug)]
pub struct ListedDirectory {
    /// Its first entries.
    pub batch: DirectoryBatch,
    /// Where these are not all, the directory, to [read](Directory::read) on from.
    pub rest: Option<Directory>,
}

/// What came of a directory in [`Directory::copy_directory`].
#[derive(Debug)]
pub struct CopiedDirectory {
    /// The directory and its copy, where anything is left to do; else all that is in it was copied, and the copy has its
    /// metadata.
    pub opened: Option<(Directory, Directory)>,
    /// The first part of what is in it, with metadata.
    pub batch: DirectoryBatch,
    /// Whether it was listed. Else there is nothing in `batch`, and its listing begins at the front.
    pub is_listed: bool,
    /// Of each entry in `batch` whether it was copied, as far as was tried.
    pub copied: Vec<bool>,
    /// Directories in it that were made, with their place in `batch`.
    pub inside: Vec<(usize, CopiedDirectory)>,
    /// Extended attributes that copies did not get, as their file system or their user may not; without those
    /// in `inside`.
    pub attributes_lost: u64,
}

impl CopiedDirectory {
    fn of(level: Level, handle: &Handle, (from, to): (PathBuf, PathBuf)) -> CopiedDirectory {
        let Level { batch, is_listed, copied, inside, attributes_lost, opened, .. } = level;
        let names: Vec<&OsStr> =
            batch.iter().map(|entry| OsStr::from_bytes(entry.name.to_bytes())).collect();
        let of = |(place, level): (usize, Level)| {
            let paths = (from.join(names[place]), to.join(names[place]));
            (place, CopiedDirectory::of(level, handle, paths))
        };
        let inside = inside.into_iter().map(of).collect();
        let opened = opened.map(|(source, made)| {
            let directory = |opened, path| Directory {
                descriptor: handle.share(opened, path, Sort::Other),
                handle: handle.clone(),
            };
            (directory(source, from), directory(made, to))
        });
        CopiedDirectory { opened, batch, is_listed, copied, inside, attributes_lost }
    }
}

/// An open directory.
#[derive(Clone)]
pub struct Directory {
    descriptor: Descriptor,
    handle: Handle,
}

impl Directory {
    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.descriptor.path()
    }

    /// The engine it belongs to.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// This directory for an [`Operation`].
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn at(&self, operation: &'static str, path: &Path) -> Result<At> {
        at(operation, Some(&self.descriptor), path)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// The system's, or `InvalidInput` for a path that holds a NUL byte; so for all methods here.
    pub async fn open(&self, path: impl AsRef<Path>, options: OpenOptions) -> Result<File> {
        let descriptor =
            self.handle.open_at(Some(&self.descriptor), path.as_ref(), options).await?;
        Ok(File::new(descriptor, self.handle.clone()))
    }

    /// Opens a file around the page cache.
    ///
    /// # Errors
    /// As for [`Handle::open_direct`](crate::Handle::open_direct).
    pub async fn open_direct(
        &self,
        path: impl AsRef<Path>,
        options: OpenOptions,
    ) -> Result<DirectFile> {
        DirectFile::open(&self.handle, Some(&self.descriptor), path.as_ref(), options).await
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn open_directory(
        &self,
        path: impl AsRef<Path>,
        options: OpenOptions,
    ) -> Result<Directory> {
        let options = OpenOptions { directory: true, ..options };
        let descriptor =
            self.handle.open_at(Some(&self.descriptor), path.as_ref(), options).await?;
        Ok(Directory { descriptor, handle: self.handle.clone() })
    }

    /// Appends pieces of files to `buffer` in one operation: see [`Operation::ReadFiles`]. Each
    /// piece says how much of it was read.
    pub fn read_files(
        &self,
        pieces: Vec<FilePiece>,
        options: OpenOptions,
        buffer: Buffer,
    ) -> Pending<(Vec<FilePiece>, Buffer)> {
        let directory = Some(self.descriptor.clone());
        let operation = Operation::ReadFiles { directory, options, pieces, current: 0, buffer };
        self.handle.start(
            || operation,
            |operation, _| match operation {
                Operation::ReadFiles { pieces, buffer, .. } => (take(pieces), take(buffer)),
                other => unreachable!("{other:?} came back for a read"),
            },
        )
    }

    /// Makes files of ranges of `buffer` in one operation: see [`Operation::WriteFiles`].
    ///
    /// # Panics
    /// When a range lies outside the filled part of the buffer.
    pub fn write_files(&self, files: Vec<NewFile>, buffer: Buffer) -> Pending<Buffer> {
        for file in &files {
            let end = file.start.checked_add(file.length);
            assert!(end.is_some_and(|end| end <= buffer.len()), "a write must lie in its buffer");
        }
        let directory = Some(self.descriptor.clone());
        let operation = Operation::WriteFiles { directory, files, current: 0, buffer };
        self.handle.start(
            || operation,
            |operation, _| match operation {
                Operation::WriteFiles { buffer, .. } => take(buffer),
                other => unreachable!("{other:?} came back for a write"),
            },
        )
    }

    /// Copies small files into another directory, with their extended attributes, in one operation:
    /// see [`Operation::CopyFiles`]. The buffer, which is only worked with, has room for the longest of
    /// them and a byte more. Each says whether it was copied.
    ///
    /// # Panics
    /// When the buffer has no room.
    pub fn copy_files(
        &self,
        to: &Directory,
        files: Vec<CopiedFile>,
        buffer: Buffer,
    ) -> Pending<Vec<CopiedFile>> {
        let fits = files.iter().all(|file| file.length < buffer.capacity());
        assert!(fits, "a copy needs room for its longest file and a byte more");
        let (from, to) = (self.descriptor.clone(), to.descriptor.clone());
        let (current, reading) = (0, true);
        let operation = Operation::CopyFiles { from, to, files, current, reading, buffer };
        self.handle.start(
            || operation,
            |operation, _| match operation {
                Operation::CopyFiles { files, .. } => take(files),
                other => unreachable!("{other:?} came back for a copy"),
            },
        )
    }

    /// Makes a directory at a path of `target` and copies what is small in the one at a path of this into it, in
    /// one operation: see [`Operation::CopyDirectory`].
    ///
    /// # Errors
    /// As for [`Directory::open_directory`], of either; then nothing was copied.
    ///
    /// # Panics
    /// When the buffer has no room at all.
    pub async fn copy_directory(
        &self,
        path: impl AsRef<Path>,
        target: (&Directory, impl AsRef<Path>),
        copy: DirectoryCopy,
    ) -> Result<CopiedDirectory> {
        assert!(copy.buffer.capacity() > 0, "a copy needs room");
        let (from, to) = (self.at("open", path.as_ref())?, target.0.at("open", target.1.as_ref())?);
        let copy = Box::new(copy);
        let operation = Operation::CopyDirectory { from, to, reading: true, copy };
        match self.handle.submit(operation).await?.0 {
            Operation::CopyDirectory { from, to, copy, .. } => {
                let paths = (from.display_path(), to.display_path());
                Ok(CopiedDirectory::of(copy.top, &self.handle, paths))
            }
            other => unreachable!("{other:?} came back for a copy"),
        }
    }

    /// What the system knows about a path; the empty path is the directory itself.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn metadata(&self, path: impl AsRef<Path>, follow: bool) -> Result<Metadata> {
        metadata_at(&self.handle, self.at("look at", path.as_ref())?, follow).await
    }

    /// Sets owner, permissions and times, of a symbolic link itself, as far as asked for; the empty path
    /// is the directory itself.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn set_metadata(&self, path: impl AsRef<Path>, metadata: SetMetadata) -> Result<()> {
        let at = self.at("set owner, permissions or times of", path.as_ref())?;
        self.handle.run(Operation::SetMetadata { at, metadata }).await
    }

    /// Gives a path of this directory the extended attributes of a path in another, and sets owner,
    /// permissions and times as [`Directory::set_metadata`] does; the empty paths are the directories
    /// themselves. Gives the number of attributes that it may not have.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn copy_metadata(
        &self,
        path: impl AsRef<Path>,
        from: (&Directory, impl AsRef<Path>),
        metadata: SetMetadata,
    ) -> Result<u64> {
        let what = "set owner, permissions or times of";
        let (to, from) = (self.at(what, path.as_ref())?, from.0.at(what, from.1.as_ref())?);
        let metadata = Box::new(metadata);
        let operation = Operation::CopyMetadata { from, to, metadata };
        self.handle.submit(operation).await.map(|(_, lost)| lost)
    }

    /// Sets permission bits, looking through symbolic links; the empty path is the directory itself.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let at = self.at("set the permissions of", path.as_ref())?;
        self.handle.run(Operation::SetMode { at, mode }).await
    }

    /// Sets times, of a symbolic link itself; the empty path is the directory itself.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn set_times(&self, path: impl AsRef<Path>, times: SetTimes) -> Result<()> {
        let at = self.at("set the times of", path.as_ref())?;
        self.handle.run(Operation::SetTimes { at, times }).await
    }

    /// Sets user and group, of a symbolic link itself; the empty path is the directory itself.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn set_owner(&self, path: impl AsRef<Path>, owner: Owner) -> Result<()> {
        let at = self.at("set the owner of", path.as_ref())?;
        self.handle.run(Operation::SetOwner { at, owner }).await
    }

    /// Renames below this directory.
    ///
    /// # Errors
    /// As for [`Directory::open`]; `AlreadyExists` if the new name exists and `replace` is off.
    pub async fn rename(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
        replace: bool,
    ) -> Result<()> {
        let (from, to) = (self.at("rename", from.as_ref())?, self.at("rename", to.as_ref())?);
        self.handle.run(Operation::Rename { from, to, replace }).await
    }

    /// Removes a name.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn remove(&self, path: impl AsRef<Path>, kind: RemoveKind) -> Result<()> {
        let at = self.at("remove", path.as_ref())?;
        self.handle.run(Operation::Remove { at, kind }).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn create_directory(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let at = self.at("create directory", path.as_ref())?;
        self.handle.run(Operation::CreateDirectory { at, mode }).await
    }

    /// Makes a symbolic link that says `target`.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn create_symlink(
        &self,
        target: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<()> {
        let at = self.at("create symbolic link", path.as_ref())?;
        let target =
            text("create symbolic link", path.as_ref(), target.as_ref().as_os_str().as_bytes())?;
        self.handle.run(Operation::CreateSymlink { target, at }).await
    }

    /// Makes a fifo, a socket's name or a device file: see [`Operation::CreateNode`].
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn create_node(
        &self,
        path: impl AsRef<Path>,
        kind: FileKind,
        mode: u32,
        node: u32,
    ) -> Result<()> {
        let at = self.at("create", path.as_ref())?;
        self.handle.run(Operation::CreateNode { at, kind, mode, node }).await
    }

    /// Makes a second name for a file.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn create_hard_link(
        &self,
        original: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<()> {
        let original = self.at("create hard link", original.as_ref())?;
        let at = self.at("create hard link", path.as_ref())?;
        self.handle.run(Operation::CreateHardLink { original, at }).await
    }

    /// What a symbolic link says.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn read_link(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let at = self.at("read symbolic link", path.as_ref())?;
        let operation = Operation::ReadLink { at, target: Vec::new() };
        match self.handle.submit(operation).await? {
            (Operation::ReadLink { target, .. }, _) => Ok(target),
            (other, _) => unreachable!("{other:?} came back for a symbolic link"),
        }
    }

    /// The next entries, with their metadata if asked for; an empty batch at the end. The batch
    /// passed in is reused. The position is that of the open directory.
    pub fn read(&self, batch: DirectoryBatch, metadata: bool) -> Pending<DirectoryBatch> {
        let directory = self.descriptor.clone();
        let operation = Operation::ReadDirectory { directory, metadata, batch };
        self.handle.start(
            || operation,
            |operation, _| match operation {
                Operation::ReadDirectory { batch, .. } => take(batch),
                other => unreachable!("{other:?} came back for a listing"),
            },
        )
    }

    /// Lists directories below this one, in one operation: the first entries of each, with their metadata if asked
    /// for, and nothing for those that are not there. Links are not followed.
    ///
    /// # Errors
    /// As for [`Directory::open_directory`], of any of them.
    pub async fn list(
        &self,
        paths: &[impl AsRef<Path>],
        metadata: bool,
    ) -> Result<Vec<Option<ListedDirectory>>> {
        let listing = |path: &Path| {
            let invalid = |error| Error::new("list", Some(self.path().join(path)), error);
            DirectoryListing::new(path).map_err(invalid)
        };
        let listings = paths.iter().map(|path| listing(path.as_ref())).collect::<Result<_>>()?;
        let directory = Some(self.descriptor.clone());
        let operation = Operation::ListDirectories { directory, metadata, listings, current: 0 };
        match self.handle.submit(operation).await?.0 {
            Operation::ListDirectories { listings, .. } => {
                let listed = listings.into_iter().zip(paths).map(|(listing, path)| {
                    let rest = listing.rest.map(|opened| Directory {
                        descriptor: self.handle.share(opened, self.path().join(path), Sort::Other),
                        handle: self.handle.clone(),
                    });
                    let batch = listing.batch;
                    (!listing.is_missing).then_some(ListedDirectory { batch, rest })
                });
                Ok(listed.collect())
            }
            other => unreachable!("{other:?} came back for a listing"),
        }
    }

    /// What the system knows about the directories above this one, the next first, up to the root.
    ///
    /// # Errors
    /// The system's.
    pub async fn ancestors(&self) -> Result<Vec<Metadata>> {
        let mut above = PathBuf::new();
        let mut found: Vec<Metadata> = Vec::new();
        let mut last = self.metadata("", true).await?;
        for _ in 0..DEPTH_MAX {
            above.push("..");
            let next = self.metadata(&above, true).await?;
            if next.same_file(&last) {
                break;
            }
            found.push(next);
            last = next;
        }
        Ok(found)
    }

    /// All extended attributes of a path, of a symbolic link itself, sorted by name; the empty path is
    /// the directory itself.
    ///
    /// # Errors
    /// As for [`Directory::open`]. A file system without attributes has none.
    pub async fn attributes(&self, path: impl AsRef<Path>) -> Result<Vec<(CString, Vec<u8>)>> {
        let at = self.at("read extended attributes of", path.as_ref())?;
        let operation = Operation::ReadAttributes { at, attributes: Vec::new() };
        match self.handle.submit(operation).await? {
            (Operation::ReadAttributes { attributes, .. }, _) => Ok(attributes),
            (other, _) => unreachable!("{other:?} came back for attributes"),
        }
    }

    /// Sets one extended attribute, of a symbolic link itself; the empty path is the directory itself.
    ///
    /// # Errors
    /// As for [`Directory::open`].
    pub async fn set_attribute(
        &self,
        path: impl AsRef<Path>,
        name: &[u8],
        value: Vec<u8>,
    ) -> Result<()> {
        let at = self.at("set extended attribute of", path.as_ref())?;
        let name = text("set extended attribute of", path.as_ref(), name)?;
        self.handle.run(Operation::WriteAttribute { at, name, value }).await
    }

    /// Takes its lock, which others that know of locks take too; it is held until
    /// [`Directory::unlock`], or until the last share of this is closed.
    ///
    /// # Errors
    /// `WouldBlock` where somebody has it; the system's, where there are no locks.
    pub fn lock(&self) -> Pending<()> {
        self.handle.run(Operation::Lock { file: self.descriptor.clone(), held: true })
    }

    /// Gives its lock back, for all shares of this.
    pub fn unlock(&self) -> Pending<()> {
        self.handle.run(Operation::Lock { file: self.descriptor.clone(), held: false })
    }

    /// Makes names created in it, or the whole file system, durable.
    pub fn sync(&self, scope: SyncScope) -> Pending<()> {
        self.handle.run(Operation::Sync { file: self.descriptor.clone(), scope })
    }
}

impl Handle {
    /// Opens a directory, to list it and to resolve paths against it.
    ///
    /// # Errors
    /// As for [`Handle::open`].
    pub async fn open_directory(&self, path: impl AsRef<Path>) -> Result<Directory> {
        let descriptor = self.open_at(None, path.as_ref(), OpenOptions::directory()).await?;
        Ok(Directory { descriptor, handle: self.clone() })
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Directory").field(&self.path()).finish()
    }
}
