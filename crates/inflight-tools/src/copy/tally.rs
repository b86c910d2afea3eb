//! What a copy did, as its tasks count it and as its user sees it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::Trouble;

/// What a copy did, or would do.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct CopyReport {
    /// Regular files copied.
    pub files: u64,
    /// Directories made or brought up to date.
    pub directories: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Second names of files made.
    pub hard_links: u64,
    /// Fifos, sockets and device files made.
    pub nodes: u64,
    /// Bytes of the files copied, holes included.
    pub bytes: u64,
    /// Of these, bytes of holes.
    pub hole_bytes: u64,
    /// Of these, bytes of files that share their contents with their source.
    pub cloned_bytes: u64,
    /// Of these, bytes that the kernel or a file server copied by itself.
    pub kernel_bytes: u64,
    /// Of these, bytes read around the page cache.
    pub direct_bytes: u64,
    /// Files and links that were there already.
    pub unchanged: u64,
    /// Bytes of those.
    pub unchanged_bytes: u64,
    /// Bytes compared afterwards.
    pub compared_bytes: u64,
    /// What went wrong, as far as it is listed.
    pub troubles: Vec<Trouble>,
    /// How often something went wrong.
    pub trouble_count: u64,
    /// What could not be kept of many files, in a sentence each.
    pub warnings: Vec<String>,
    /// Why it did not come to its end.
    pub stopped: Option<Stopped>,
    /// Where what is not finished was left.
    pub kept: Vec<PathBuf>,
}

impl CopyReport {
    /// Whether everything is copied and has its final name.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.trouble_count == 0 && self.stopped.is_none() && self.kept.is_empty()
    }
}

/// Why a copy did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Somebody asked for it.
    OnRequest,
    /// The target cannot take any more: the first error that said so.
    TargetFull(String),
}

/// The counters behind [`CopyReport`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) files: Count,
    pub(crate) directories: Count,
    pub(crate) symlinks: Count,
    pub(crate) hard_links: Count,
    pub(crate) nodes: Count,
    pub(crate) bytes: Count,
    pub(crate) hole_bytes: Count,
    pub(crate) cloned_bytes: Count,
    pub(crate) kernel_bytes: Count,
    pub(crate) direct_bytes: Count,
    pub(crate) unchanged: Count,
    pub(crate) unchanged_bytes: Count,
    pub(crate) compared_bytes: Count,
}

/// A number that many tasks add to.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Tally {
    pub(crate) fn report(&self) -> CopyReport {
        CopyReport {
            files: self.files.get(),
            directories: self.directories.get(),
            symlinks: self.symlinks.get(),
            hard_links: self.hard_links.get(),
            nodes: self.nodes.get(),
            bytes: self.bytes.get(),
            hole_bytes: self.hole_bytes.get(),
            cloned_bytes: self.cloned_bytes.get(),
            kernel_bytes: self.kernel_bytes.get(),
            direct_bytes: self.direct_bytes.get(),
            unchanged: self.unchanged.get(),
            unchanged_bytes: self.unchanged_bytes.get(),
            compared_bytes: self.compared_bytes.get(),
            ..CopyReport::default()
        }
    }
}
