//! The manifest's encoding, and the checks that make a decoded one safe to act on.
//!
//! After [`decode`] every path is relative, without `.` or `..`, listed once, in order, and inside
//! directories that the manifest lists before it, so that nothing a patch says can name a place
//! outside the tree, or go through a link that the patch itself made.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use inflight::{Owner, Timestamp};

use super::listing::{Listing, Stretch};
use super::wire::{Cursor, put_bytes, put_signed, put_varint};
use crate::damage::Damage;
use crate::manifest::{Entry, EntryKind, Manifest, Preserve, Preserved};

/// The longest path, in bytes: what Linux takes in one call.
const PATH_BYTES_MAX: usize = 4096;
/// The longest name, in bytes: what file systems in use can hold, with room to spare.
const NAME_BYTES_MAX: usize = 1024;

const DIRECTORY: u8 = 0;
const FILE: u8 = 1;
const SYMLINK: u8 = 2;
const HARD_LINK: u8 = 3;
/// A file of the same path and contents as one of the other tree.
const KEPT_FILE: u8 = 4;

/// What entries have, each in a column of its own: what is alike stands together, so compression
/// finds a quarter more in it than in entry after entry.
#[derive(Debug, Clone, Default)]
struct Columns<T> {
    kinds: T,
    /// Bytes that a path shares with the one before, and what it has behind them, ended by a zero.
    shared: T,
    suffixes: T,
    modes: T,
    /// The lowest byte of sizes, the next one, and what is above: the first has nothing in common
    /// with anything.
    sizes: [T; 3],
    holes: T,
    links: T,
    seconds: T,
    nanoseconds: T,
    users: T,
    groups: T,
    attributes: T,
    /// Bytes of kept files that follow each other.
    kept: T,
}

/// How many columns there are.
const COLUMNS: usize = 15;

impl<T> Columns<T> {
    /// The columns in the order in which they are stored.
    fn new(columns: [T; COLUMNS]) -> Columns<T> {
        let [kinds, shared, suffixes, modes, low, middle, high, holes, links, rest @ ..] = columns;
        let [seconds, nanoseconds, users, groups, attributes, kept] = rest;
        let sizes = [low, middle, high];
        Columns {
            kinds,
            shared,
            suffixes,
            modes,
            sizes,
            holes,
            links,
            seconds,
            nanoseconds,
            users,
            groups,
            attributes,
            kept,
        }
    }

    fn into_array(self) -> [T; COLUMNS] {
        let [low, middle, high] = self.sizes;
        [
            self.kinds,
            self.shared,
            self.suffixes,
            self.modes,
            low,
            middle,
            high,
            self.holes,
            self.links,
            self.seconds,
            self.nanoseconds,
            self.users,
            self.groups,
            self.attributes,
            self.kept,
        ]
    }
}

/// The payload of a manifest's blocks, joined. `kept` says which entries are files with data, and
/// without holes, that the other tree has as well.
pub(crate) fn encode(manifest: &Manifest, kept: &[bool]) -> Vec<u8> {
    let mut columns: Columns<Vec<u8>> = Columns::default();
    let mut previous: &[u8] = &[];
    // Bytes of the stretch of kept files under way.
    let mut stretch = None;
    for (entry, kept) in manifest.entries.iter().zip(kept) {
        let path = entry.path.as_os_str().as_bytes();
        let shared = path.iter().zip(previous).take_while(|(a, b)| a == b).count();
        columns.kinds.push(match entry.kind {
            EntryKind::Directory => DIRECTORY,
            EntryKind::File { .. } if *kept => KEPT_FILE,
            EntryKind::File { .. } => FILE,
            EntryKind::Symlink { .. } => SYMLINK,
            EntryKind::HardLink { .. } => HARD_LINK,
        });
        put_varint(&mut columns.shared, shared as u64);
        columns.suffixes.extend_from_slice(&path[shared..]);
        columns.suffixes.push(0);
        match entry.kind {
            EntryKind::File { size, .. } if *kept => {
                put_varint(&mut columns.modes, entry.mode.into());
                *stretch.get_or_insert(0) += size;
            }
            _ => encode_kind(&mut columns, entry, &mut stretch),
        }
        if let Some(preserved) = &entry.preserved {
            encode_preserved(&mut columns, manifest.preserve, preserved);
        }
        previous = path;
    }
    end_stretch(&mut columns, &mut stretch);
    let mut out = vec![manifest.preserve.bits()];
    put_varint(&mut out, manifest.entries.len() as u64);
    columns.into_array().iter().for_each(|column| put_bytes(&mut out, column));
    out
}

fn end_stretch(columns: &mut Columns<Vec<u8>>, stretch: &mut Option<u64>) {
    if let Some(bytes) = stretch.take() {
        put_varint(&mut columns.kept, bytes);
    }
}

fn encode_kind(columns: &mut Columns<Vec<u8>>, entry: &Entry, stretch: &mut Option<u64>) {
    match &entry.kind {
        EntryKind::Directory => put_varint(&mut columns.modes, entry.mode.into()),
        EntryKind::File { size, holes } => {
            end_stretch(columns, stretch);
            put_varint(&mut columns.modes, entry.mode.into());
            let [low, middle, high] = &mut columns.sizes;
            low.push(*size as u8);
            middle.push((size >> 8) as u8);
            put_varint(high, size >> 16);
            put_varint(&mut columns.holes, holes.len() as u64);
            let mut end = 0;
            for (hole, length) in holes {
                put_varint(&mut columns.holes, hole - end);
                put_varint(&mut columns.holes, *length);
                end = hole + length;
            }
        }
        EntryKind::Symlink { target } => put_bytes(&mut columns.links, target),
        EntryKind::HardLink { original } => put_varint(&mut columns.links, (*original).into()),
    }
}

fn encode_preserved(columns: &mut Columns<Vec<u8>>, preserve: Preserve, preserved: &Preserved) {
    if preserve.has(Preserve::TIMES) {
        put_signed(&mut columns.seconds, preserved.modified.seconds);
        put_varint(&mut columns.nanoseconds, preserved.modified.nanoseconds.into());
    }
    if preserve.has(Preserve::OWNER) {
        put_varint(&mut columns.users, preserved.owner.user.into());
        put_varint(&mut columns.groups, preserved.owner.group.into());
    }
    if preserve.has(Preserve::XATTRS) {
        put_varint(&mut columns.attributes, preserved.attributes.len() as u64);
        for (name, value) in &preserved.attributes {
            put_bytes(&mut columns.attributes, name.as_bytes());
            put_bytes(&mut columns.attributes, value);
        }
    }
}

/// Reads a manifest and checks it: see the module's text.
///
/// Prefixes that paths share can make a manifest much larger than its payload: what it takes is
/// counted, and bounded by `memory_bytes_max`.
pub(crate) fn decode(payload: &[u8], memory_bytes_max: u64) -> Result<Listing, Damage> {
    let mut cursor = Cursor::new(payload);
    let bits = cursor.byte("what is preserved")?;
    let preserve = Preserve::from_bits(bits)
        .ok_or_else(|| Damage::unknown(0, format!("preserved properties {bits:#x}")))?;
    let count = cursor.count("the number of entries")?;
    if u32::try_from(count).is_err() {
        return Err(Damage::new(0, "a manifest has more entries than can be numbered"));
    }
    let mut columns: [Cursor<'_>; COLUMNS] = std::array::from_fn(|_| Cursor::new(&[]));
    for column in &mut columns {
        *column = Cursor::new(cursor.bytes("a column of a manifest")?);
    }
    cursor.finish("a manifest")?;
    let mut columns = Columns::new(columns);
    let mut manifest = Manifest { preserve, entries: Vec::new() };
    let mut memory_bytes = payload.len() as u64;
    let mut stretches = Stretches::default();
    for number in 0..count {
        let kind = columns.kinds.byte("an entry's kind")?;
        let entry = decode_entry(kind, &mut columns, &manifest)?;
        check_place(&entry, &manifest.entries)?;
        match entry.kind {
            EntryKind::File { .. } if kind == KEPT_FILE => stretches.add_kept(number as u32),
            EntryKind::File { size, .. } => {
                stretches.end(&mut columns.kept)?;
                stretches.add_bytes(size)?;
            }
            _ => {}
        }
        memory_bytes += footprint(&entry);
        if memory_bytes > memory_bytes_max {
            return Err(Damage::too_large(2 * memory_bytes));
        }
        manifest.entries.push(entry);
    }
    stretches.end(&mut columns.kept)?;
    columns.into_array().iter().try_for_each(|column| column.finish("a column of a manifest"))?;
    match manifest.entries.first() {
        Some(Entry { path, kind: EntryKind::Directory | EntryKind::File { .. }, .. })
            if path.as_os_str().is_empty() =>
        {
            Ok(Listing::new(manifest, stretches.kept, stretches.all))
        }
        _ => Err(Damage::new(0, "a manifest does not start with its root")),
    }
}

/// Gathers the kept files of a manifest, and counts the bytes of all files.
#[derive(Default)]
struct Stretches {
    kept: Vec<u32>,
    all: Vec<Stretch>,
    bytes: u64,
}

impl Stretches {
    fn add_kept(&mut self, entry: u32) {
        self.kept.push(entry);
    }

    fn add_bytes(&mut self, bytes: u64) -> Result<(), Damage> {
        let sum = self.bytes.checked_add(bytes).filter(|bytes| *bytes <= i64::MAX as u64);
        let what = "a manifest's sizes add up to more than 8 EiB";
        self.bytes = sum.ok_or_else(|| Damage::new(0, what))?;
        Ok(())
    }

    /// Ends the stretch under way, if one is.
    fn end(&mut self, column: &mut Cursor<'_>) -> Result<(), Damage> {
        let (start, end) = (self.all.last().map_or(0, |last| last.end), self.kept.len());
        if start == end {
            return Ok(());
        }
        let bytes = column.varint("the bytes of kept files")?;
        if bytes < (end - start) as u64 {
            return Err(Damage::new(0, "kept files have less than a byte each"));
        }
        self.all.push(Stretch { end, bytes });
        self.add_bytes(bytes)
    }
}

/// Memory that an entry takes, with its place in the layout and its digest.
pub(crate) fn footprint(entry: &Entry) -> u64 {
    let own = match &entry.kind {
        EntryKind::File { holes, .. } => 64 * holes.len(),
        EntryKind::Symlink { target } => target.len(),
        EntryKind::Directory | EntryKind::HardLink { .. } => 0,
    };
    let preserved = entry.preserved.as_ref().map_or(0, |preserved| {
        let attributes = preserved.attributes.iter();
        96 + attributes.map(|(name, value)| 64 + name.count_bytes() + value.len()).sum::<usize>()
    });
    (size_of::<Entry>() + 160 + entry.path.as_os_str().len() + own + preserved) as u64
}

fn decode_entry(
    kind: u8,
    columns: &mut Columns<Cursor<'_>>,
    manifest: &Manifest,
) -> Result<Entry, Damage> {
    let path = decode_path(columns, manifest.entries.last())?;
    let (kind, mode) = match kind {
        DIRECTORY => (EntryKind::Directory, decode_mode(&mut columns.modes)?),
        FILE => {
            let mode = decode_mode(&mut columns.modes)?;
            let size = decode_size(&mut columns.sizes)?;
            (EntryKind::File { size, holes: decode_holes(&mut columns.holes, size)? }, mode)
        }
        KEPT_FILE => {
            let kind = EntryKind::File { size: 0, holes: Vec::new() };
            (kind, decode_mode(&mut columns.modes)?)
        }
        SYMLINK => {
            let target = columns.links.bytes("a symbolic link")?.to_vec();
            if target.is_empty() || target.contains(&0) || target.len() > PATH_BYTES_MAX {
                return Err(Damage::new(0, format!("{} is no valid link", path.display())));
            }
            (EntryKind::Symlink { target }, 0)
        }
        HARD_LINK => {
            let original = columns.links.varint("a hard link's original")?;
            let entries = &manifest.entries;
            let file = usize::try_from(original).ok().and_then(|index| entries.get(index));
            if !file.is_some_and(|file| matches!(file.kind, EntryKind::File { .. })) {
                let what = format!("{} is a link to no earlier file", path.display());
                return Err(Damage::new(0, what));
            }
            (EntryKind::HardLink { original: original as u32 }, 0)
        }
        other => return Err(Damage::unknown(0, format!("entries of kind {other}"))),
    };
    let preserved = match (&kind, manifest.preserve) {
        // What is preserved belongs to the file, of which this is only a name.
        (EntryKind::HardLink { .. }, _) | (_, Preserve::NONE) => None,
        (_, preserve) => Some(Box::new(decode_preserved(columns, preserve)?)),
    };
    Ok(Entry { path, kind, mode, preserved })
}

fn decode_path(
    columns: &mut Columns<Cursor<'_>>,
    previous: Option<&Entry>,
) -> Result<PathBuf, Damage> {
    let previous = previous.map_or(&[][..], |entry| entry.path.as_os_str().as_bytes());
    let shared = columns.shared.varint("a shared prefix")?;
    let shared = usize::try_from(shared).ok().and_then(|shared| previous.get(..shared));
    let shared = shared.ok_or_else(|| Damage::new(0, "a path shares more than there is"))?;
    let suffix = columns.suffixes.until_zero("a path")?;
    if shared.len() + suffix.len() > PATH_BYTES_MAX {
        return Err(Damage::new(0, "a path is longer than any system takes"));
    }
    let mut path = shared.to_vec();
    path.extend_from_slice(suffix);
    check_path(&path)?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

/// A path is empty (the root), or names of files joined by single slashes.
fn check_path(path: &[u8]) -> Result<(), Damage> {
    if path.is_empty() {
        return Ok(());
    }
    for name in path.split(|byte| *byte == b'/') {
        let bad = match name {
            b"" => Some("an empty name or a leading or trailing slash"),
            b"." | b".." => Some("a name that means another directory"),
            _ if name.len() > NAME_BYTES_MAX => Some("a name longer than any file system takes"),
            _ => None,
        };
        if let Some(bad) = bad {
            let path = Path::new(OsStr::from_bytes(path)).display();
            return Err(Damage::new(0, format!("the path {path:?} has {bad}")));
        }
    }
    Ok(())
}

/// Entries are in order, listed once, and inside directories that were listed before.
fn check_place(entry: &Entry, before: &[Entry]) -> Result<(), Damage> {
    let Some(last) = before.last() else {
        return Ok(());
    };
    let path = entry.path.display();
    if entry.path <= last.path {
        return Err(Damage::new(0, format!("the path {path:?} is listed twice or out of order")));
    }
    // In this order the parent is the last entry, or one that the last entry is inside of.
    let parent = entry.path.parent().unwrap_or(Path::new(""));
    let index = before.binary_search_by(|other| other.path.as_path().cmp(parent));
    let directory = index.is_ok_and(|index| before[index].kind == EntryKind::Directory);
    match directory {
        true => Ok(()),
        false => Err(Damage::new(0, format!("the path {path:?} is in no listed directory"))),
    }
}

fn decode_mode(cursor: &mut Cursor<'_>) -> Result<u32, Damage> {
    match cursor.varint("permissions")? {
        mode if mode <= 0o7777 => Ok(mode as u32),
        mode => Err(Damage::new(0, format!("{mode:#o} are no permissions"))),
    }
}

fn decode_size([low, middle, high]: &mut [Cursor<'_>; 3]) -> Result<u64, Damage> {
    let what = "a file's size";
    let (low, middle, high) = (low.byte(what)?, middle.byte(what)?, high.varint(what)?);
    match high >> 48 {
        0 => Ok(high << 16 | u64::from(middle) << 8 | u64::from(low)),
        _ => Err(Damage::new(0, "a file has more bytes than can be counted")),
    }
}

fn decode_holes(cursor: &mut Cursor<'_>, size: u64) -> Result<Vec<(u64, u64)>, Damage> {
    let count = cursor.count("the number of holes")?;
    let mut holes = Vec::new();
    let mut end = 0u64;
    for number in 0..count {
        let (gap, length) = (cursor.varint("a hole's place")?, cursor.varint("a hole's length")?);
        let hole = end.checked_add(gap);
        let behind = hole.and_then(|hole| hole.checked_add(length)).filter(|end| *end <= size);
        let (Some(hole), Some(behind)) = (hole, behind) else {
            return Err(Damage::new(0, "a hole reaches past its file"));
        };
        if length == 0 || (gap == 0 && number > 0) {
            return Err(Damage::new(0, "holes touch or are empty"));
        }
        holes.push((hole, length));
        end = behind;
    }
    Ok(holes)
}

fn decode_preserved(
    columns: &mut Columns<Cursor<'_>>,
    preserve: Preserve,
) -> Result<Preserved, Damage> {
    let mut preserved = Preserved::default();
    if preserve.has(Preserve::TIMES) {
        let seconds = columns.seconds.signed("a time")?;
        let nanoseconds = columns.nanoseconds.varint("a time")?;
        if nanoseconds >= 1_000_000_000 {
            return Err(Damage::new(0, "a time has too many nanoseconds"));
        }
        preserved.modified = Timestamp { seconds, nanoseconds: nanoseconds as u32 };
    }
    if preserve.has(Preserve::OWNER) {
        let number = |column: &mut Cursor<'_>| {
            let number = column.varint("an owner")?;
            u32::try_from(number).map_err(|_| Damage::new(0, "an owner's number is too large"))
        };
        let (user, group) = (number(&mut columns.users)?, number(&mut columns.groups)?);
        preserved.owner = Owner { user, group };
    }
    if preserve.has(Preserve::XATTRS) {
        let attributes = &mut columns.attributes;
        for _ in 0..attributes.count("the number of attributes")? {
            let name = CString::new(attributes.bytes("an attribute's name")?)
                .map_err(|_| Damage::new(0, "an attribute's name has a NUL byte"))?;
            let value = attributes.bytes("an attribute's value")?.to_vec();
            if preserved.attributes.last().is_some_and(|(last, _)| *last >= name) {
                return Err(Damage::new(0, "attributes are listed twice or out of order"));
            }
            preserved.attributes.push((name, value));
        }
    }
    Ok(preserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &[u8], size: u64) -> Entry {
        Entry {
            path: OsStr::from_bytes(path).into(),
            kind: EntryKind::File { size, holes: Vec::new() },
            mode: 0o644,
            preserved: None,
        }
    }

    fn directory(path: &str) -> Entry {
        Entry { path: path.into(), kind: EntryKind::Directory, mode: 0o755, preserved: None }
    }

    fn round_trip(entries: Vec<Entry>) -> Result<Listing, Damage> {
        let kept = vec![false; entries.len()];
        decode(&encode(&Manifest { preserve: Preserve::NONE, entries }, &kept), 1 << 30)
    }

    #[test]
    fn everything_round_trips() {
        let preserve = Preserve::TIMES | Preserve::OWNER | Preserve::XATTRS;
        let preserved = Some(Box::new(Preserved {
            modified: Timestamp { seconds: -7, nanoseconds: 999_999_999 },
            owner: Owner { user: u32::MAX, group: 5 },
            attributes: vec![(c"user.x".into(), vec![0, 255])],
        }));
        let mut entries = vec![
            directory(""),
            directory("d"),
            file(b"d/\xff\xfe", 10),
            file(b"sparse", 1 << 40),
            file(b"z", 0),
        ];
        entries[3].kind = EntryKind::File { size: 1 << 40, holes: vec![(0, 5), (100, 1 << 39)] };
        let link = EntryKind::Symlink { target: b"../\xff".to_vec() };
        entries.push(Entry { kind: link, mode: 0, ..file(b"zl", 0) });
        entries.push(Entry {
            kind: EntryKind::HardLink { original: 2 },
            mode: 0,
            ..file(b"zz", 0)
        });
        let names = |entry: &&mut Entry| !matches!(entry.kind, EntryKind::HardLink { .. });
        for entry in entries.iter_mut().filter(names) {
            entry.preserved.clone_from(&preserved);
        }
        let manifest = Manifest { preserve, entries };
        let payload = encode(&manifest, &vec![false; manifest.entries.len()]);
        let listing = decode(&payload, 1 << 30).unwrap();
        assert_eq!(listing.is_kept(), [false, false]);
        assert_eq!(listing.with_sizes(&[]).unwrap(), manifest);
        assert!(decode(&payload, 1000).is_err(), "more than is allowed");
    }

    #[test]
    fn kept_files_leave_their_sizes_to_the_trees() {
        let sizes = [70_000, 1, 0, 5, 300];
        let mut entries = vec![directory("")];
        entries.extend(
            (0..5).map(|file_number: u8| {
                file(&[b'a' + file_number], sizes[usize::from(file_number)])
            }),
        );
        let manifest = Manifest { preserve: Preserve::NONE, entries };
        let kept = [false, true, true, false, false, true];
        let listing = decode(&encode(&manifest, &kept), 1 << 30).unwrap();
        assert_eq!(listing.kept().collect::<Vec<_>>(), ["a", "b", "e"].map(Path::new));
        assert_eq!(listing.is_kept(), [true, true, false, true]);
        assert_eq!(listing.bytes(), 70_306);
        let is_possible = |kept, size| listing.check_size(kept, size).is_none();
        assert!(is_possible(0, 70_001) && is_possible(1, 70_001) && is_possible(2, 300));
        assert!(!is_possible(1, 70_002) && !is_possible(2, 301) && !is_possible(0, 0));
        assert!(listing.add_up(&[70_000, 1, 300]) && listing.add_up(&[1, 70_000, 300]));
        assert!(!listing.add_up(&[70_000, 2, 300]) && !listing.add_up(&[u64::MAX, 2, 300]));
        assert_eq!(listing.clone().with_sizes(&[70_000, 1, 300]).unwrap(), manifest);
        assert!(listing.clone().with_sizes(&[u64::MAX, 1, 300]).is_none());
        let stand_ins = crate::layout::Layout::new(&listing.with_stand_ins());
        let starts: Vec<u64> = stand_ins.files.iter().map(|file| file.image.start).collect();
        assert_eq!(starts[2..], [70_001, 70_001, 70_006], "what is not kept is in its place");
        assert_eq!(stand_ins.bytes, 70_306);
    }

    #[test]
    fn stretches_of_kept_files_have_bytes_for_each() {
        let manifest =
            Manifest { entries: vec![directory(""), file(b"a", 0)], ..Manifest::default() };
        assert!(decode(&encode(&manifest, &[false, true]), 1 << 30).is_err());
    }

    #[test]
    fn hostile_paths_are_refused() {
        for path in ["../x", "/x", "a/../../x", "a/./b", "a//b", "a/", "..", ".", "a\0b", "x/y"] {
            let error = round_trip(vec![directory(""), directory("a"), file(path.as_bytes(), 1)]);
            assert!(error.is_err(), "{path:?}");
        }
        let through_link =
            Entry { kind: EntryKind::Symlink { target: b"/".to_vec() }, ..file(b"l", 0) };
        assert!(round_trip(vec![directory(""), through_link, file(b"l/x", 1)]).is_err());
        assert!(round_trip(vec![directory(""), file(b"a", 1), file(b"a", 1)]).is_err(), "twice");
        assert!(round_trip(vec![directory(""), file(b"b", 1), file(b"a", 1)]).is_err(), "order");
        assert!(round_trip(vec![file(b"a", 1)]).is_err(), "no root");
        assert!(round_trip(vec![file(b"", 1), file(b"a", 1)]).is_err(), "inside a file");
        assert!(round_trip(vec![file(b"", 1)]).is_ok(), "a single file");
        assert!(round_trip(vec![directory(""), file(&[b'x'; 1025], 1)]).is_err(), "long name");
    }

    #[test]
    fn sizes_cannot_overflow() {
        let entries = vec![directory(""), file(b"a", u64::MAX / 2), file(b"b", u64::MAX / 2)];
        assert!(round_trip(entries).is_err());
    }
}
