//! What the system says about a path, and the entries of a directory.

use std::ffi::CStr;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// Something this crate has no name for.
    #[default]
    Unknown,
}

impl FileKind {
    /// The name for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symbolic link",
            FileKind::Fifo => "fifo",
            FileKind::Socket => "socket",
            FileKind::CharacterDevice => "character device",
            FileKind::BlockDevice => "block device",
            FileKind::Unknown => "unknown kind of file",
        }
    }
}

/// A point in time, as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC; negative before.
    pub seconds: i64,
    /// Nanoseconds on top, below one billion.
    pub nanoseconds: u32,
}

/// The times a [`SetTimes`](crate::Operation::SetTimes) writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetTimes {
    /// Last access; unchanged when `None`.
    pub accessed: Option<Timestamp>,
    /// Last modification; unchanged when `None`.
    pub modified: Option<Timestamp>,
}

/// Numeric user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Owner {
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
}

/// What the system knows about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with set-user, set-group and sticky: 12 bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes that have space allocated to them; less than `size` where there are holes.
    pub allocated: u64,
    /// Last access, as far as the file system keeps it.
    pub accessed: Timestamp,
    /// Last modification.
    pub modified: Timestamp,
    /// User and group.
    pub owner: Owner,
    /// Of a device file, the device that it stands for: its major number in the upper 12 bits, its minor
    /// in the others.
    pub node: u32,
    /// Which file system: with `inode` the identity of a file.
    pub device: u64,
    /// Which file on it.
    pub inode: u64,
    /// How many names the file has.
    pub links: u32,
    /// What offsets and lengths of direct I/O must be multiples of, in bytes; 0 where the system
    /// does not say or does not support it.
    pub direct_alignment: u16,
}

impl Metadata {
    /// Whether two answers are about the same file, whatever its name.
    #[must_use]
    pub fn same_file(&self, other: &Metadata) -> bool {
        self.device == other.device && self.inode == other.inode
    }

    /// Whether it has less space allocated than its size, by more than chance: short files are not
    /// looked at.
    #[must_use]
    pub fn has_holes(&self) -> bool {
        const BYTES_MIN: u64 = 64 << 10;
        self.size >= BYTES_MIN && self.allocated < self.size
    }
}

/// One name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryEntry<'a> {
    /// The name, without any `/`.
    pub name: &'a CStr,
    /// What it is; [`FileKind::Unknown`] where the file system does not say without a look.
    pub kind: FileKind,
    /// The metadata, if the read asked for it.
    pub metadata: Option<&'a Metadata>,
}

/// A batch of directory entries, kept in two arrays that are reused from batch to batch.
#[derive(Debug, Default)]
pub struct DirectoryBatch {
    names: Vec<u8>,
    entries: Vec<Listed>,
    is_last: bool,
}

#[derive(Debug, Clone, Copy)]
struct Listed {
    /// Where its name starts.
    name: usize,
    kind: FileKind,
    inode: u64,
    metadata: Option<Metadata>,
}

impl DirectoryBatch {
    /// How many entries it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is nothing behind it, as far as that is known: the next one may be empty without.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_last
    }

    pub(crate) fn set_last(&mut self) {
        self.is_last = true;
    }

    /// The entries, in the order of their inodes where there are such.
    pub fn iter(&self) -> impl Iterator<Item = DirectoryEntry<'_>> {
        self.entries.iter().map(|listed| DirectoryEntry {
            name: name_at(&self.names, listed.name),
            kind: listed.kind,
            metadata: listed.metadata.as_ref(),
        })
    }

    pub(crate) fn clear(&mut self) {
        self.names.clear();
        self.entries.clear();
        self.is_last = false;
    }

    pub(crate) fn push(&mut self, name: &CStr, kind: FileKind, inode: u64) {
        self.entries.push(Listed { name: self.names.len(), kind, inode, metadata: None });
        self.names.extend_from_slice(name.to_bytes_with_nul());
    }

    /// Into the order of inodes.
    pub(crate) fn sort(&mut self) {
        self.entries.sort_unstable_by_key(|listed| listed.inode);
    }

    /// Asks for the metadata of each; what is not there any more is left out.
    pub(crate) fn look_at_each<E>(
        &mut self,
        mut look: impl FnMut(&CStr) -> Result<Option<Metadata>, E>,
    ) -> Result<(), E> {
        let (names, mut failed) = (&self.names, None);
        self.entries.retain_mut(|listed| {
            if failed.is_some() {
                return false;
            }
            match look(name_at(names, listed.name)) {
                Ok(Some(metadata)) => {
                    (listed.kind, listed.metadata) = (metadata.kind, Some(metadata));
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

fn name_at(names: &[u8], start: usize) -> &CStr {
    CStr::from_bytes_until_nul(&names[start..]).unwrap_or_default()
}
