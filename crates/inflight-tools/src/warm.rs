//! Bringing files into the page cache.
//!
//! What is there already is counted, not read. The rest is read through the page cache, front to back in
//! large requests, several files at a time, into memory that nobody looks at. Nothing is locked there: the
//! system may drop it again, and does when it needs the memory; so warming stops at a limit.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use inflight::stream::{Reader, walk};
use inflight::{Directory, FileKind, Handle, OpenOptions, Progress};

use crate::error::{Error, Result, Trouble};
use crate::paths::parent;

/// Files read at the same time.
const FILES_AT_ONCE: usize = 32;
/// Bytes of one read, and how many of one file are under way.
const REQUEST: (usize, usize) = (1 << 20, 4);
/// So many troubles are listed; all are counted.
const TROUBLES_MAX: usize = 1000;

/// What warming did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct WarmReport {
    /// Regular files looked at; one with several names is one.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, bytes that the page cache had already, in whole pages.
    pub cached_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes that were left out because of the limit.
    pub left_bytes: u64,
    /// What went wrong, as far as it is listed.
    pub troubles: Vec<Trouble>,
    /// How often something went wrong.
    pub trouble_count: u64,
}

/// A file to be looked at.
struct Candidate {
    root: Directory,
    path: PathBuf,
    size: u64,
    /// Its device and its number there.
    identity: (u64, u64),
}

#[derive(Default)]
struct State {
    waiting: Mutex<VecDeque<Candidate>>,
    troubles: Mutex<Vec<Trouble>>,
    trouble_count: AtomicU64,
    cached: AtomicU64,
    read: AtomicU64,
    left: AtomicU64,
    /// Bytes that may still be read.
    room: AtomicU64,
}

impl State {
    fn trouble(&self, error: &dyn std::fmt::Display) {
        self.trouble_count.fetch_add(1, Relaxed);
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() < TROUBLES_MAX {
            troubles.push(Trouble { text: error.to_string() });
        }
    }

    fn next(&self) -> Option<Candidate> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Takes so many bytes of what may still be read; says whether they were there.
    fn take_room(&self, bytes: u64) -> bool {
        self.room.fetch_update(Relaxed, Relaxed, |room| room.checked_sub(bytes)).is_ok()
    }
}

/// Brings files and everything in directories into the page cache. Reads at most `limit` bytes: files that
/// would go beyond it are left out. What goes wrong with one file does not stop the others.
///
/// # Errors
/// When a path is not there, or is neither file nor directory.
pub async fn warm(
    handle: &Handle,
    progress: &Arc<Progress>,
    paths: &[PathBuf],
    limit: u64,
) -> Result<WarmReport> {
    progress.enter("listing");
    let mut found = Vec::new();
    for path in paths {
        found.extend(candidates(handle, path).await?);
    }
    // In the order in which file systems lay them out; and each but once.
    found.sort_by_key(|candidate| candidate.identity);
    found.dedup_by_key(|candidate| candidate.identity);
    let bytes = found.iter().map(|candidate| candidate.size).sum();
    let files = found.len() as u64;
    progress.expect(bytes);
    progress.enter("warming");
    let state = Arc::new(State {
        waiting: Mutex::new(found.into()),
        room: AtomicU64::new(limit),
        ..State::default()
    });
    let tasks: Vec<_> = (0..FILES_AT_ONCE)
        .map(|_| {
            let (state, progress) = (state.clone(), progress.clone());
            handle.spawn(async move {
                while let Some(candidate) = state.next()
                    && !progress.is_cancelled()
                {
                    if let Err(error) = warm_file(&state, &candidate).await {
                        state.trouble(&error);
                    }
                    progress.advance(candidate.size);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    let troubles =
        std::mem::take(&mut *state.troubles.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(WarmReport {
        files,
        bytes,
        cached_bytes: state.cached.load(Relaxed),
        read_bytes: state.read.load(Relaxed),
        left_bytes: state.left.load(Relaxed),
        troubles,
        trouble_count: state.trouble_count.load(Relaxed),
    })
}

/// All regular files at and below a path.
async fn candidates(handle: &Handle, path: &Path) -> Result<Vec<Candidate>> {
    let about = handle.metadata(path, true).await?;
    if about.kind != FileKind::Directory {
        if about.kind != FileKind::File {
            let (path, kind) = (path.display(), about.kind.name());
            return Err(Error::Paths(format!("{path} is a {kind}; name files and directories")));
        }
        let root = handle.open_directory(parent(path)).await?;
        let name = path.file_name().map(PathBuf::from).unwrap_or_default();
        let identity = (about.device, about.inode);
        return Ok(vec![Candidate { root, path: name, size: about.size, identity }]);
    }
    let root = handle.open_directory(path).await?;
    let entries = walk(&root).await?.into_iter();
    let files = entries.filter(|entry| entry.metadata.kind == FileKind::File);
    let candidate = |entry: inflight::stream::WalkEntry| Candidate {
        root: root.clone(),
        path: entry.path,
        size: entry.metadata.size,
        identity: (entry.metadata.device, entry.metadata.inode),
    };
    Ok(files.map(candidate).collect())
}

async fn warm_file(state: &State, candidate: &Candidate) -> Result<()> {
    let Candidate { root, path, size, .. } = candidate;
    let file = root.open(path, OpenOptions::reading().no_wait()).await?;
    let cached = file.cached_bytes(*size).await?;
    state.cached.fetch_add(cached, Relaxed);
    let missing = size - cached;
    if missing == 0 {
        return Ok(());
    }
    if !state.take_room(missing) {
        state.left.fetch_add(missing, Relaxed);
        return Ok(());
    }
    let mut reader = Reader::new(file, 0..*size).requests(REQUEST.0, REQUEST.1);
    let mut read = 0;
    while let Some((_, buffer)) = reader.next().await? {
        read += buffer.len() as u64;
    }
    state.read.fetch_add(read.min(missing), Relaxed);
    Ok(())
}
