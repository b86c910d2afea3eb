//! A file read or written through the page cache, or around it.

use crate::file::{DirectFile, File};

/// What streams work on: either kind of file.
#[derive(Debug, Clone)]
pub enum AnyFile {
    /// Through the page cache.
    Cached(File),
    /// Around it.
    Direct(DirectFile),
}

impl AnyFile {
    /// As a plain file. Of one that goes around the page cache, `read` and `write` leave the
    /// alignment to the caller.
    #[must_use]
    pub fn file(&self) -> &File {
        match self {
            AnyFile::Cached(file) => file,
            AnyFile::Direct(file) => file.file(),
        }
    }
}

impl From<File> for AnyFile {
    fn from(file: File) -> AnyFile {
        AnyFile::Cached(file)
    }
}

impl From<DirectFile> for AnyFile {
    fn from(file: DirectFile) -> AnyFile {
        AnyFile::Direct(file)
    }
}
