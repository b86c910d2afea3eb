//! What a tree consists of, apart from contents.
//!
//! Entries are sorted component by component, each directory before what is in it, the root (an
//! empty path) first. Names are bytes: nothing here assumes UTF-8.

use std::ffi::CString;
use std::ops::BitOr;
use std::path::PathBuf;

use inflight::{Owner, Timestamp};

/// BLAKE3 of a file's data: all its bytes, holes left out.
pub type Digest = [u8; 32];

/// A tree without its contents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// What the entries' `preserved` holds.
    pub preserve: Preserve,
    /// The entries, in order.
    pub entries: Vec<Entry>,
}

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the root; empty for the root.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with set-user, set-group and sticky; 0 for links.
    pub mode: u32,
    /// What was asked for on top; hard links have none, as it belongs to the file.
    pub preserved: Option<Box<Preserved>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Bytes, holes included.
        size: u64,
        /// Holes as (first byte, bytes), in order, apart from each other, inside the size.
        holes: Vec<(u64, u64)>,
    },
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: Vec<u8>,
    },
    /// Another name of a file earlier in the manifest.
    HardLink {
        /// Index of that file's entry.
        original: u32,
    },
}

impl EntryKind {
    /// The name for messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            EntryKind::Directory => "directory",
            EntryKind::File { .. } => "file",
            EntryKind::Symlink { .. } => "symbolic link",
            EntryKind::HardLink { .. } => "hard link",
        }
    }
}

/// What is kept of an entry only when asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preserved {
    /// Last modification, with [`Preserve::TIMES`].
    pub modified: Timestamp,
    /// User and group, with [`Preserve::OWNER`].
    pub owner: Owner,
    /// Extended attributes sorted by name, with [`Preserve::XATTRS`].
    pub attributes: Vec<(CString, Vec<u8>)>,
}

/// A set of things to preserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preserve(u8);

impl Preserve {
    /// Contents, names, kinds and permissions only.
    pub const NONE: Preserve = Preserve(0);
    /// Modification times.
    pub const TIMES: Preserve = Preserve(1);
    /// User and group, by number.
    pub const OWNER: Preserve = Preserve(2);
    /// Extended attributes.
    pub const XATTRS: Preserve = Preserve(4);

    /// Whether all of `other` is in the set.
    #[must_use]
    pub const fn has(self, other: Preserve) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set as it stands in a patch.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set of these bits, if all are known.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Preserve> {
        if bits < 8 { Some(Preserve(bits)) } else { None }
    }

    /// The names of what is in the set.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [(Preserve::TIMES, "times"), (Preserve::OWNER, "owner"), (Preserve::XATTRS, "xattrs")]
            .into_iter()
            .filter_map(|(item, name)| self.has(item).then_some(name))
            .collect()
    }
}

impl BitOr for Preserve {
    type Output = Preserve;

    fn bitor(self, other: Preserve) -> Preserve {
        Preserve(self.0 | other.0)
    }
}
