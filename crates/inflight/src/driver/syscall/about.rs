//! What is known about files beside their contents, and is set: metadata and extended attributes.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{
    self, AtFlags, FileType, Mode, StatxFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
};
use rustix::io::{Errno, Result, retry_on_intr};

use super::directory;
use crate::metadata::{FileKind, Metadata, Owner, SetTimes, Timestamp};
use crate::operation::{At, SetMetadata};

pub(super) fn stat(directory: BorrowedFd<'_>, path: &CStr, follow: bool) -> Result<Metadata> {
    let mut flags = AtFlags::STATX_DONT_SYNC;
    if path.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    } else if !follow {
        flags |= AtFlags::SYMLINK_NOFOLLOW;
    }
    // STATX_DIOALIGN, which the library's flags do not name.
    let direct_alignment = StatxFlags::from_bits_retain(0x2000);
    let mask = StatxFlags::BASIC_STATS | direct_alignment;
    let x = retry_on_intr(|| fs::statx(directory, path, flags, mask))?;
    let answered = x.stx_mask & direct_alignment.bits() != 0;
    Ok(Metadata {
        kind: file_kind(FileType::from_raw_mode(x.stx_mode.into())),
        mode: u32::from(x.stx_mode) & 0o7777,
        size: x.stx_size,
        allocated: x.stx_blocks * 512,
        accessed: timestamp(x.stx_atime),
        modified: timestamp(x.stx_mtime),
        owner: Owner { user: x.stx_uid, group: x.stx_gid },
        node: x.stx_rdev_major << MINOR_BITS | x.stx_rdev_minor,
        device: fs::makedev(x.stx_dev_major, x.stx_dev_minor),
        inode: x.stx_ino,
        links: x.stx_nlink,
        direct_alignment: if answered {
            let alignment = x.stx_dio_offset_align.max(x.stx_dio_mem_align);
            // Nobody minds by how much it is too large.
            u16::try_from(alignment).unwrap_or(u16::MAX)
        } else {
            0
        },
    })
}

fn timestamp(time: fs::StatxTimestamp) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
}

pub(super) fn file_kind(kind: FileType) -> FileKind {
    match kind {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharacterDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => FileKind::Unknown,
    }
}

pub(super) fn set_mode(at: &At, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    match (&at.directory, at.path.is_empty()) {
        (Some(descriptor), true) => fs::fchmod(descriptor, mode),
        _ => fs::chmodat(directory(at), &*at.path, mode, AtFlags::empty()),
    }
}

pub(super) fn set_owner(at: &At, Owner { user, group }: Owner) -> Result<()> {
    let (user, group) = (Some(fs::Uid::from_raw(user)), Some(fs::Gid::from_raw(group)));
    match (&at.directory, at.path.is_empty()) {
        (Some(descriptor), true) => fs::fchown(descriptor, user, group),
        _ => fs::chownat(directory(at), &*at.path, user, group, AtFlags::SYMLINK_NOFOLLOW),
    }
}

pub(super) fn set_times(at: &At, times: SetTimes) -> Result<()> {
    let times = system_times(times);
    match (&at.directory, at.path.is_empty()) {
        (Some(descriptor), true) => fs::futimens(descriptor, &times),
        _ => fs::utimensat(directory(at), &*at.path, &times, AtFlags::SYMLINK_NOFOLLOW),
    }
}

pub(super) fn system_times(times: SetTimes) -> Timestamps {
    let spec = |time: Option<Timestamp>| match time {
        Some(time) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    Timestamps { last_access: spec(times.accessed), last_modification: spec(times.modified) }
}

/// Sets what is not right already.
pub(super) fn set_metadata(at: &At, metadata: SetMetadata) -> Result<()> {
    match (&at.directory, at.path.is_empty()) {
        (Some(descriptor), true) => set_of_open(descriptor.as_fd(), metadata),
        _ => {
            let there = stat(directory(at), &at.path, false)?;
            let SetMetadata { owner, mode, times } = to_be_set(metadata, &there);
            if let Some(owner) = owner {
                set_owner(at, owner)?;
            }
            if let Some(mode) = mode {
                set_mode(at, mode)?;
            }
            times.map_or(Ok(()), |times| set_times(at, times))
        }
    }
}

/// The same for something open.
pub(super) fn set_of_open(file: BorrowedFd<'_>, metadata: SetMetadata) -> Result<()> {
    let there = stat(file, c"", false)?;
    set_differing(file, to_be_set(metadata, &there))
}

fn set_differing(file: BorrowedFd<'_>, metadata: SetMetadata) -> Result<()> {
    let SetMetadata { owner, mode, times } = metadata;
    if let Some(Owner { user, group }) = owner {
        fs::fchown(file, Some(fs::Uid::from_raw(user)), Some(fs::Gid::from_raw(group)))?;
    }
    if let Some(mode) = mode {
        fs::fchmod(file, Mode::from_raw_mode(mode))?;
    }
    times.map_or(Ok(()), |times| fs::futimens(file, &system_times(times)))
}

/// What of it differs. Another owner takes set-user bits away, so the permissions are set then, too.
fn to_be_set(metadata: SetMetadata, there: &Metadata) -> SetMetadata {
    let owner = metadata.owner.filter(|owner| *owner != there.owner);
    let is_link = there.kind == FileKind::Symlink;
    let mode = metadata.mode.filter(|mode| !is_link && (owner.is_some() || *mode != there.mode));
    SetMetadata { owner, mode, times: metadata.times }
}

/// Bits of a minor number, as the kernel has them.
const MINOR_BITS: u32 = 20;

pub(super) fn create(at: &At, kind: FileKind, mode: u32, node: u32) -> Result<()> {
    let kind = match kind {
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
        FileKind::CharacterDevice => FileType::CharacterDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        _ => return Err(Errno::INVAL),
    };
    let device = fs::makedev(node >> MINOR_BITS, node & ((1 << MINOR_BITS) - 1));
    fs::mknodat(directory(at), &*at.path, kind, Mode::from_raw_mode(mode), device)
}

/// The system has no calls for attributes relative to a directory: a name through the descriptor
/// table serves, and does not follow the last component.
fn attribute_path(at: &At) -> CString {
    let Some(directory) = &at.directory else {
        return at.path.clone().into_owned();
    };
    if at.path.to_bytes().first() == Some(&b'/') {
        return at.path.clone().into_owned();
    }
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(at.path.to_bytes());
    // Neither part holds a NUL.
    CString::new(path).unwrap_or_default()
}

pub(super) fn read_attributes(at: &At) -> Result<Vec<(CString, Vec<u8>)>> {
    if let (Some(descriptor), true) = (&at.directory, at.path.is_empty()) {
        return attributes_of(descriptor.as_fd());
    }
    let path = attribute_path(at);
    collect_attributes(
        |names| match names {
            None => fs::llistxattr_query(&*path),
            Some(names) => fs::llistxattr(&*path, rustix::buffer::spare_capacity(names)),
        },
        |name, value| match value {
            None => fs::lgetxattr_query(&*path, name),
            Some(value) => fs::lgetxattr(&*path, name, rustix::buffer::spare_capacity(value)),
        },
    )
}

/// Those of an open file.
pub(super) fn attributes_of(file: BorrowedFd<'_>) -> Result<Vec<(CString, Vec<u8>)>> {
    collect_attributes(
        |names| match names {
            None => fs::flistxattr_query(file),
            Some(names) => fs::flistxattr(file, rustix::buffer::spare_capacity(names)),
        },
        |name, value| match value {
            None => fs::fgetxattr_query(file, name),
            Some(value) => fs::fgetxattr(file, name, rustix::buffer::spare_capacity(value)),
        },
    )
}

/// Both calls say how much room they need where they are given none.
fn collect_attributes(
    list: impl Fn(Option<&mut Vec<u8>>) -> Result<usize>,
    get: impl Fn(&CStr, Option<&mut Vec<u8>>) -> Result<usize>,
) -> Result<Vec<(CString, Vec<u8>)>> {
    let mut names = Vec::with_capacity(list(None).or_else(no_attributes)?);
    if names.capacity() == 0 {
        return Ok(Vec::new());
    }
    list(Some(&mut names))?;
    let mut attributes = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let mut value = Vec::with_capacity(get(name, None)?);
        if value.capacity() > 0 {
            get(name, Some(&mut value))?;
        }
        attributes.push((name.to_owned(), value));
    }
    attributes.sort();
    Ok(attributes)
}

/// A file system without attributes has none of them.
fn no_attributes(error: Errno) -> Result<usize> {
    match error {
        Errno::NOTSUP => Ok(0),
        other => Err(other),
    }
}

/// Gives a path the attributes of another, and what else is asked for. The owner comes first, as some
/// attributes are lost when that changes. Says how many it may not have.
pub(super) fn copy_metadata(from: &At, to: &At, metadata: SetMetadata) -> Result<u64> {
    let attributes = read_attributes(from)?;
    let set = |metadata| set_metadata(to, metadata);
    give_all(&attributes, metadata, set, |name, value| write_attribute(to, name, value))
}

/// The same for open files.
pub(super) fn copy_metadata_of_open(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    metadata: SetMetadata,
) -> Result<u64> {
    give_all_to_open(&attributes_of(from)?, to, metadata)
}

/// The same for a file that was just made with these permissions, in the same directory as others before it.
pub(super) fn copy_metadata_of_made(
    from: BorrowedFd<'_>,
    (to, asked): (BorrowedFd<'_>, u32),
    metadata: SetMetadata,
    made: &mut MadeBefore,
) -> Result<u64> {
    let attributes = attributes_of(from)?;
    if !attributes.is_empty() {
        return give_all_to_open(&attributes, to, metadata);
    }
    let there = match made.like(asked) {
        Some(there) => there,
        None => made.learn(asked, stat(to, c"", false)?),
    };
    set_differing(to, to_be_set(metadata, &there)).map(|()| 0)
}

fn give_all_to_open(
    attributes: &[(CString, Vec<u8>)],
    to: BorrowedFd<'_>,
    metadata: SetMetadata,
) -> Result<u64> {
    let give = |name: &CStr, value: &[u8]| fs::fsetxattr(to, name, value, XattrFlags::empty());
    give_all(attributes, metadata, |metadata| set_of_open(to, metadata), give)
}

/// What is known of files made in one directory, one after the other. Whom they belong to does not change from
/// one to the next, nor which permissions the directory or the process takes away: so not each needs a look.
#[derive(Debug, Default)]
pub(super) struct MadeBefore {
    last: Option<Metadata>,
    /// Permissions that were asked for in some, and which of them were given.
    asked: u32,
    given: u32,
    /// Whether some were given that nobody asked for, as servers may be told to do: then each gets its look.
    adds: bool,
}

impl MadeBefore {
    /// What a look at one made with these permissions would say of its owner and permissions, if that is known.
    fn like(&self, asked: u32) -> Option<Metadata> {
        let last = self.last.filter(|_| !self.adds && asked & !self.asked == 0)?;
        Some(Metadata { mode: asked & self.given, ..last })
    }

    /// Takes note of what one made with these permissions is.
    fn learn(&mut self, asked: u32, there: Metadata) -> Metadata {
        self.adds |= there.mode & !asked != 0;
        self.asked |= asked;
        self.given = self.given & !asked | asked & there.mode;
        self.last = Some(there);
        there
    }
}

fn give_all(
    attributes: &[(CString, Vec<u8>)],
    metadata: SetMetadata,
    set: impl Fn(SetMetadata) -> Result<()>,
    give: impl Fn(&CStr, &[u8]) -> Result<()>,
) -> Result<u64> {
    if !attributes.is_empty() {
        set(SetMetadata { owner: metadata.owner, ..SetMetadata::default() })?;
    }
    let mut lost = 0;
    for (name, value) in attributes {
        match give(name, value) {
            Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::INVAL) => lost += 1,
            other => other?,
        }
    }
    set(metadata)?;
    Ok(lost)
}

pub(super) fn write_attribute(at: &At, name: &CStr, value: &[u8]) -> Result<()> {
    match (&at.directory, at.path.is_empty()) {
        (Some(descriptor), true) => fs::fsetxattr(descriptor, name, value, XattrFlags::empty()),
        _ => fs::lsetxattr(&*attribute_path(at), name, value, XattrFlags::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_others_is_what_a_look_says() {
        let directory = tempfile::tempdir().unwrap();
        let made = |number: usize, asked: u32| {
            let path = directory.path().join(number.to_string());
            let flags = fs::OFlags::CREATE | fs::OFlags::EXCL | fs::OFlags::WRONLY;
            fs::open(path, flags, Mode::from_raw_mode(asked)).unwrap()
        };
        let mut before = MadeBefore::default();
        let mut looks = 0;
        let all = [0o644, 0o600, 0o755, 0o777, 0o666, 0o640, 0, 0o711, 0o777];
        for (number, asked) in all.into_iter().enumerate() {
            let there = stat(made(number, asked).as_fd(), c"", false).unwrap();
            let known = before.like(asked).unwrap_or_else(|| {
                looks += 1;
                before.learn(asked, there)
            });
            assert_eq!((known.mode, known.owner), (there.mode, there.owner), "{asked:o}");
        }
        assert_eq!(looks, 3, "for 644, 755 and 777");
    }

    #[test]
    fn where_permissions_are_added_each_gets_its_look() {
        let mut before = MadeBefore::default();
        before.learn(0o644, Metadata { mode: 0o644, ..Metadata::default() });
        assert_eq!(before.like(0o600).map(|there| there.mode), Some(0o600));
        before.learn(0o600, Metadata { mode: 0o660, ..Metadata::default() });
        assert_eq!((before.like(0o600), before.like(0o644)), (None, None));
    }
}
