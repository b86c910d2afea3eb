//! A source and its target, open: where things are made, and how they get their final names.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use inflight::{
    DeviceKind, Directory, DirectoryBatch, Handle, Kept, Metadata, NewFile, OpenOptions,
    RemoveKind, SyncScope,
};

use super::item::{Item, path_of};
use super::route::{Route, TREE, look, refuse};
use super::settings::Settings;
use super::state::State;
use crate::error::Result;
use crate::paths::parent;

/// Tells in a work directory when it was begun.
const STATE: &str = "state";
/// The work directory inside a tree that is there already.
const WORK: &str = ".inflight-copy";
/// Tells one start of the system from the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// File systems whose files cannot share contents. Others are asked, once.
const CLONE_NOTHING: [&str; 10] =
    ["ext2", "ext3", "ext4", "f2fs", "tmpfs", "ramfs", "vfat", "msdos", "exfat", "ntfs3"];

/// How things get their final names.
enum Style {
    /// All at once: the whole tree grows in a work directory.
    Grown { work: Directory },
    /// One by one: each is made in a work directory.
    Replaced { work: Directory },
    /// Not at all.
    Dry,
}

/// A source and its target, open.
pub(super) struct Root {
    route: Route,
    source: Directory,
    /// The root of the copy, where there is one.
    made: Option<Directory>,
    /// Of a single file: its name in `source`, and in `made`.
    single: Option<(PathBuf, PathBuf)>,
    style: Style,
    work_path: PathBuf,
    /// Numbers what is made in the work directory.
    next: AtomicU64,
    /// Whether things may be there already.
    is_there: bool,
    /// Whether what looks the same must be compared: since it was copied, the power may have failed.
    pub(super) recheck: bool,
    /// Whether files can share their contents with their source, until one could not.
    pub(super) clones: AtomicBool,
    /// Whether the file server can copy by itself, until it could not.
    pub(super) kernel: AtomicBool,
    tainted: AtomicBool,
}

impl Root {
    pub(super) async fn open(state: &State, route: Route) -> Result<Root> {
        let handle = &state.handle;
        let opened = match route.is_tree() {
            true => handle.open_directory(&route.source).await?,
            false => handle.open_directory(parent(&route.source)).await?,
        };
        let name = |path: &Path| path.file_name().map(PathBuf::from).unwrap_or_default();
        let single = (!route.is_tree()).then(|| (name(&route.source), name(&route.target)));
        let grown = route.is_tree() && route.existing.is_none();
        let work_path = match route.is_tree() && !grown {
            true => route.target.join(WORK),
            false => route.work_path(),
        };
        let mut root = Root {
            route,
            source: opened,
            made: None,
            single,
            style: Style::Dry,
            work_path,
            next: AtomicU64::new(0),
            is_there: false,
            recheck: false,
            clones: AtomicBool::new(true),
            kernel: AtomicBool::new(false),
            tainted: AtomicBool::new(false),
        };
        match state.options.dry_run {
            true => root.open_dry(handle).await?,
            false => root.open_work(handle, grown).await?,
        }
        Ok(root)
    }

    /// Looks at what is there.
    async fn open_dry(&mut self, handle: &Handle) -> Result<()> {
        let unfinished = self.work_path.join(TREE);
        let there = match (self.route.is_tree(), self.route.existing.is_some()) {
            (false, _) => parent(&self.route.target),
            (true, true) => &self.route.target,
            (true, false) => &unfinished,
        };
        self.made = match handle.open_directory(there).await {
            Ok(directory) => Some(directory),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        self.is_there = self.made.is_some();
        Ok(())
    }

    /// Makes the work directory, or takes up the one that is there.
    async fn open_work(&mut self, handle: &Handle, grown: bool) -> Result<()> {
        let resumed = match handle.create_directory(&self.work_path, 0o700).await {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => true,
            Err(error) => return Err(error.into()),
        };
        let options = OpenOptions::directory().no_follow();
        let above = handle.open_directory(parent(&self.work_path)).await?;
        let name = self.work_path.file_name().unwrap_or_default();
        let work = above.open_directory(name, options).await?;
        match work.lock().await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let work = self.work_path.display();
                return refuse(format!("another copy is at work in {work}; wait for it or end it"));
            }
            // Some file systems have no locks.
            _ => {}
        }
        let boot = read_text(handle, Path::new(BOOT_ID)).await;
        if resumed {
            let begun = read_text(handle, &self.work_path.join(STATE)).await;
            self.recheck = begun.is_none() || begun != boot;
        } else {
            let boot = boot.clone().unwrap_or_default();
            let mut buffer = handle.buffer(boot.len().max(1)).await;
            buffer.extend_from_slice(&boot);
            let state = NewFile::new(Path::new(STATE), 0o600, 0, boot.len()).expect("no NUL");
            work.write_files(vec![state], buffer).await?;
        }
        if grown {
            let made = match work.create_directory(TREE, 0o700).await {
                Ok(()) => false,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => true,
                Err(error) => return Err(error.into()),
            };
            self.is_there = made;
            let tree = work.open_directory(TREE, options).await?;
            if made {
                tree.set_mode("", 0o700).await?;
            }
            self.made = Some(tree);
            self.style = Style::Grown { work };
        } else {
            self.is_there = true;
            self.made = Some(match self.route.is_tree() {
                true => handle.open_directory(&self.route.target).await?,
                false => above,
            });
            if self.route.is_tree() {
                self.take_over(handle, &boot).await?;
            }
            // What an earlier copy was at when it was interrupted is of no use.
            clear(&work, true).await?;
            self.style = Style::Replaced { work };
        }
        Ok(())
    }

    /// Removes what a copy left that had just given its tree the final name.
    async fn take_over(&mut self, handle: &Handle, boot: &Option<Vec<u8>>) -> Result<()> {
        let left = self.route.work_path();
        let Ok(work) = handle.open_directory(&left).await else { return Ok(()) };
        if let Some(begun) = read_text(handle, &left.join(STATE)).await {
            self.recheck |= boot.as_ref() != Some(&begun);
        }
        clear(&work, false).await?;
        Ok(handle.remove(&left, RemoveKind::Directory).await?)
    }

    /// What suits the devices under source and target.
    pub(super) async fn settings(&self, handle: &Handle) -> Settings {
        let from = handle.device(&self.route.source).await;
        let to = handle.device(parent(&self.route.target)).await;
        let (from, to) = match (from, to) {
            (Ok(from), Ok(to)) => (from, to),
            _ => return Settings::default(),
        };
        let both_remote = from.kind == DeviceKind::Network && from.mounted_at == to.mounted_at;
        self.kernel.store(both_remote, Relaxed);
        if CLONE_NOTHING.contains(&&*to.file_system) {
            self.clones.store(false, Relaxed);
        }
        Settings::of(&from, &to)
    }

    /// What is known of the devices of another root, which are this one's as well.
    pub(super) fn learn_from(&self, other: &Root) {
        self.kernel.store(other.kernel.load(Relaxed), Relaxed);
        self.clones.store(other.clones.load(Relaxed), Relaxed);
    }

    /// The single file that is copied, if it is one.
    pub(super) fn single_item(&self) -> Option<Item> {
        let (name, _) = self.single.as_ref()?;
        let Route { metadata, existing, .. } = self.route;
        Some(Item { name: name.clone(), metadata, existing })
    }

    /// What is known about the source, and about what is in its place, if something may be.
    pub(super) fn about(&self) -> (Metadata, Option<Metadata>) {
        let existing = self.is_there.then_some(self.route.existing.unwrap_or_default());
        (self.route.metadata, existing)
    }

    /// The source's root.
    pub(super) fn source(&self) -> &Directory {
        &self.source
    }

    /// The copy's root.
    ///
    /// # Panics
    /// In a dry run of what is not there.
    pub(super) fn target(&self) -> &Directory {
        self.made.as_ref().expect("only a dry run has none")
    }

    pub(super) fn target_if_there(&self) -> Option<&Directory> {
        self.made.as_ref()
    }

    /// What a thing is called in the copy.
    pub(super) fn target_name<'a>(&'a self, name: &'a Path) -> &'a Path {
        self.single.as_ref().map_or(name, |(_, target)| target)
    }

    pub(super) fn single_names(&self) -> Option<(&Path, &Path)> {
        self.single.as_ref().map(|(name, target)| (name.as_path(), target.as_path()))
    }

    /// Whether it has no final name yet.
    pub(super) fn is_grown(&self) -> bool {
        matches!(self.style, Style::Grown { .. })
    }

    pub(super) fn is_single(&self) -> bool {
        self.single.is_some()
    }

    /// Whether a name in the root is taken by the work directory.
    pub(super) fn is_reserved(&self, name: &Path) -> bool {
        matches!(self.style, Style::Replaced { .. }) && !self.is_single() && name == Path::new(WORK)
    }

    /// Where a thing is made before it gets its name, if that is elsewhere.
    pub(super) fn elsewhere(&self) -> Option<(Directory, PathBuf)> {
        match &self.style {
            Style::Replaced { work } => {
                let number = self.next.fetch_add(1, Relaxed);
                Some((work.clone(), PathBuf::from(number.to_string())))
            }
            _ => None,
        }
    }

    /// Whether things are made under their own names, as a name of the whole is still to come.
    pub(super) fn makes_in_place(&self) -> bool {
        !matches!(self.style, Style::Replaced { .. })
    }

    /// Something that is not whole could not be removed: nothing of it may get a final name.
    pub(super) fn taint(&self) {
        self.tainted.store(true, Relaxed);
    }

    pub(super) fn is_tainted(&self) -> bool {
        self.tainted.load(Relaxed)
    }

    /// Where unfinished things are.
    pub(super) fn kept_at(&self) -> PathBuf {
        self.work_path.clone()
    }

    /// Lets go of the work directory, so that the next copy may take it up at once.
    pub(super) async fn let_go(&self) {
        if let Style::Grown { work } | Style::Replaced { work } = &self.style {
            // Where that fails it goes when the last share of it is closed.
            let _ = work.unlock().await;
        }
    }

    /// Gives the tree its name, where it has none yet, and removes the work directory.
    pub(super) async fn publish(&self, state: &State) -> Result<()> {
        let handle = &state.handle;
        match &self.style {
            Style::Dry => return Ok(()),
            Style::Replaced { work } => clear(work, false).await?,
            Style::Grown { work } => {
                rename_new(handle, &self.work_path.join(TREE), &self.route.target).await?;
                clear(work, false).await?;
            }
        }
        let above = handle.open_directory(parent(&self.work_path)).await?;
        handle.remove(&self.work_path, RemoveKind::Directory).await?;
        if !self.is_single() && matches!(self.style, Style::Replaced { .. }) {
            // Making and removing the work directory changed them.
            let times = Kept::times_of(&self.route.metadata);
            self.target().set_times("", times).await?;
        }
        if state.options.sync {
            above.sync(SyncScope::All).await?;
        }
        Ok(())
    }
}

/// Renames without replacing, where the file system can; else after a last look.
async fn rename_new(handle: &Handle, from: &Path, to: &Path) -> Result<()> {
    let Err(error) = handle.rename(from, to, false).await else { return Ok(()) };
    if error.kind() != ErrorKind::InvalidInput {
        return Err(error.into());
    }
    match look(handle, to, false).await? {
        Some(_) => refuse(format!("{} exists by now; remove it and --resume", to.display())),
        None => Ok(handle.rename(from, to, true).await?),
    }
}

/// Removes all files in a work directory, but for the one that tells when it was begun if that is to be
/// kept.
async fn clear(work: &Directory, keep_state: bool) -> Result<()> {
    let listed = work.open_directory(".", OpenOptions::directory()).await?;
    let mut names: Vec<PathBuf> = Vec::new();
    let mut batch = listed.read(DirectoryBatch::default(), false).await?;
    while !batch.is_empty() {
        names.extend(batch.iter().map(|entry| path_of(entry.name)));
        batch = listed.read(batch, false).await?;
    }
    for name in names {
        if !(keep_state && name == Path::new(STATE)) {
            work.remove(&name, RemoveKind::File).await?;
        }
    }
    Ok(())
}

/// A short file's contents; nothing where that cannot be read.
async fn read_text(handle: &Handle, path: &Path) -> Option<Vec<u8>> {
    let file = handle.open(path, OpenOptions::reading()).await.ok()?;
    let buffer = file.read(handle.buffer(4096).await, 4096, 0).await.ok()?;
    (!buffer.is_empty()).then(|| buffer.to_vec())
}
