//! One thing to be copied.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use inflight::{FileKind, Metadata};

/// A file, link or node in a directory.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) name: PathBuf,
    pub(super) metadata: Metadata,
    /// What is in its place.
    pub(super) existing: Option<Metadata>,
}

/// A listed name.
pub(super) fn path_of(name: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name.to_bytes()))
}

impl Item {
    /// Whether what is in its place looks like what it is to become, as far as that can be told without
    /// reading.
    pub(super) fn looks_done(&self) -> bool {
        let Some(there) = &self.existing else { return false };
        let about = &self.metadata;
        there.kind == about.kind
            && match about.kind {
                FileKind::File => there.size == about.size && there.modified == about.modified,
                FileKind::Symlink => there.size == about.size,
                FileKind::CharacterDevice | FileKind::BlockDevice => there.node == about.node,
                _ => true,
            }
    }
}
