//! What can be measured: a kind of work, and a way to do it.

use serde::{Deserialize, Serialize};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Work {
    /// A large file that is not in the page cache, read from front to back.
    ReadCold,
    /// A large file that is there, read from front to back.
    ReadCached,
    /// Blocks at random places of a large file, around the page cache.
    ReadRandom,
    /// A large file, written until it is durable.
    Write,
    /// Small files whose contents are not in the page cache: opened, read, closed.
    FilesCold,
    /// Small files that are there: opened, read, closed.
    FilesCached,
    /// Small files: what the system knows about each.
    FilesStat,
}

impl Work {
    /// All, in the order in which they are told.
    pub const ALL: [Work; 7] = [
        Work::ReadCold,
        Work::Write,
        Work::ReadCached,
        Work::ReadRandom,
        Work::FilesCold,
        Work::FilesCached,
        Work::FilesStat,
    ];

    /// What it is called.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Work::ReadCold => "Reading a large file for the first time",
            Work::ReadCached => "Reading a large file again",
            Work::ReadRandom => "Reading at random places",
            Work::Write => "Writing a large file",
            Work::FilesCold => "Reading small files for the first time",
            Work::FilesCached => "Reading small files again",
            Work::FilesStat => "Looking at small files",
        }
    }

    /// Whether what counts is how many, rather than how many bytes.
    #[must_use]
    pub const fn counts_operations(self) -> bool {
        matches!(self, Work::ReadRandom | Work::FilesCold | Work::FilesCached | Work::FilesStat)
    }
}

/// How it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mode {
    /// Around the page cache.
    Direct,
    /// Through the page cache.
    Buffered,
    /// Through the page cache, which is told that the file is read from front to back.
    Sequential,
    /// Through the page cache, which drops it again.
    Uncached,
    /// Mapped into memory, and brought there page by page as it is looked at.
    Mapped,
    /// Mapped into memory, and brought there in steps.
    Populated,
    /// Many small files in one operation.
    Batch,
}

impl Mode {
    /// All, in the order in which they are told.
    pub const ALL: [Mode; 7] = [
        Mode::Direct,
        Mode::Buffered,
        Mode::Sequential,
        Mode::Uncached,
        Mode::Mapped,
        Mode::Populated,
        Mode::Batch,
    ];

    /// What it is called in tables and legends.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Direct => "direct",
            Mode::Buffered => "buffered",
            Mode::Sequential => "sequential hint",
            Mode::Uncached => "dontcache",
            Mode::Mapped => "map",
            Mode::Populated => "map, populated",
            Mode::Batch => "batch",
        }
    }

    /// What it means, for who has never read about it.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Mode::Direct => "straight between the device and the program's memory (O_DIRECT)",
            Mode::Buffered => "through the system's page cache, as most programs do it",
            Mode::Sequential => {
                "as buffered, after telling the system that all of it will be read in order \
                 (POSIX_FADV_SEQUENTIAL)"
            }
            Mode::Uncached => {
                "through the page cache, which gives the memory back at once (RWF_DONTCACHE)"
            }
            Mode::Mapped => {
                "the file appears in memory; each page is fetched when it is touched (mmap)"
            }
            Mode::Populated => {
                "mapped, and the system is asked to fetch so many bytes at a time \
                 (MADV_POPULATE_READ)"
            }
            Mode::Batch => "many small files opened, read and closed in one request to the engine",
        }
    }
}

/// One way to do one kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Setting {
    /// What is done.
    pub work: Work,
    /// How.
    pub mode: Mode,
    /// Bytes of one request; 0 where it has no size.
    pub request_bytes: u64,
    /// Requests under way at once.
    pub depth: usize,
    /// Threads that start them and take their results.
    pub threads: usize,
}

impl Setting {
    /// Memory for what is under way.
    #[must_use]
    pub const fn memory_bytes(&self) -> u64 {
        self.request_bytes * self.depth as u64
    }
}
