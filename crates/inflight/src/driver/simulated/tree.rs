//! What lies on a simulated disk: inodes and names, as they are and as a loss of power would leave
//! them.
//!
//! Every change is made in `current` and noted in a journal. A sync moves what it is about from the
//! journal into `durable`. At a crash each note is kept or lost by chance:
//!
//! - data in sectors of [`SECTOR_BYTES`] each, so that writes are torn;
//! - names (made, removed, renamed) each as a whole, a rename with both of its names, and none before
//!   an earlier one about the same name;
//! - sizes and attributes each as a whole.
//!
//! That is no more than file systems promise, and less than most of them do.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::ops::Range;

use rustix::io::{Errno, Result};

use super::chance::Chance;
use super::file_bytes::{BLOCK_BYTES, FileBytes};
use crate::metadata::{FileKind, Owner, Timestamp};

/// Bytes that are written as a whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
pub(super) type Inode = u64;
/// The root directory.
pub(super) const ROOT: Inode = 1;

/// A file, directory or link.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) attributes: Attributes,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    File(FileBytes),
    Directory(BTreeMap<CString, Inode>),
    Symlink(CString),
    /// A name by which a socket is found.
    Socket,
}

/// What is changed as a whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) modified: Timestamp,
    pub(super) extended: BTreeMap<CString, Vec<u8>>,
}

/// A change that is not durable.
#[derive(Debug, Clone)]
enum Change {
    /// These names, each in a directory, now mean this, or nothing.
    Names(Vec<(Inode, CString, Option<Inode>)>),
    Write(Inode, u64, Vec<u8>),
    Resize(Inode, u64),
    Allocate(Inode, Range<u64>),
    Punch(Inode, Range<u64>),
    Attributes(Inode),
}

impl Change {
    /// The file or directory whose sync makes it durable, apart from names.
    fn inode(&self) -> Option<Inode> {
        match self {
            Change::Names(_) => None,
            Change::Write(inode, ..)
            | Change::Resize(inode, _)
            | Change::Allocate(inode, _)
            | Change::Punch(inode, _)
            | Change::Attributes(inode) => Some(*inode),
        }
    }

    fn names(&self) -> &[(Inode, CString, Option<Inode>)] {
        match self {
            Change::Names(names) => names,
            _ => &[],
        }
    }

    /// Whether this is about a name that `other` is about.
    fn shares_name(&self, other: &Change) -> bool {
        let same = |a: &(Inode, CString, _), b: &(Inode, CString, _)| a.0 == b.0 && a.1 == b.1;
        self.names().iter().any(|a| other.names().iter().any(|b| same(a, b)))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Tree {
    current: BTreeMap<Inode, Node>,
    durable: BTreeMap<Inode, Node>,
    journal: Vec<Change>,
    next: Inode,
    /// Bytes of blocks there may be.
    pub(super) capacity: u64,
    /// Counts changes, as a clock for modification times.
    changes: i64,
}

impl Tree {
    pub(super) fn new(capacity: u64) -> Tree {
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        let root = Node { content: Content::Directory(BTreeMap::new()), attributes };
        let current = BTreeMap::from([(ROOT, root)]);
        let durable = current.clone();
        Tree { current, durable, journal: Vec::new(), next: ROOT + 1, capacity, changes: 0 }
    }

    pub(super) fn node(&self, inode: Inode) -> Result<&Node> {
        self.current.get(&inode).ok_or(Errno::NOENT)
    }

    pub(super) fn file(&self, inode: Inode) -> Result<&FileBytes> {
        match &self.node(inode)?.content {
            Content::File(bytes) => Ok(bytes),
            Content::Directory(_) => Err(Errno::ISDIR),
            Content::Symlink(_) => Err(Errno::INVAL),
            Content::Socket => Err(Errno::NXIO),
        }
    }

    pub(super) fn directory(&self, inode: Inode) -> Result<&BTreeMap<CString, Inode>> {
        match &self.node(inode)?.content {
            Content::Directory(names) => Ok(names),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn kind(&self, inode: Inode) -> Result<FileKind> {
        Ok(match self.node(inode)?.content {
            Content::File(_) => FileKind::File,
            Content::Directory(_) => FileKind::Directory,
            Content::Symlink(_) => FileKind::Symlink,
            Content::Socket => FileKind::Socket,
        })
    }

    /// How many names a file has; two and one for each directory inside, for a directory.
    pub(super) fn links(&self, inode: Inode) -> u32 {
        let mut count = 0;
        for (holder, node) in &self.current {
            if let Content::Directory(names) = &node.content {
                count += names.values().filter(|named| **named == inode).count();
                let inside = |named: &&Inode| self.kind(**named) == Ok(FileKind::Directory);
                if *holder == inode {
                    count += 1 + names.values().filter(inside).count();
                }
            }
        }
        count as u32 + u32::from(inode == ROOT)
    }

    /// The directory that holds a directory.
    pub(super) fn holder(&self, directory: Inode) -> Option<Inode> {
        let holds = |node: &Node| match &node.content {
            Content::Directory(names) => names.values().any(|inside| *inside == directory),
            _ => false,
        };
        self.current.iter().find(|(_, node)| holds(node)).map(|(inode, _)| *inode)
    }

    fn touch(&mut self) -> Timestamp {
        self.changes += 1;
        Timestamp { seconds: 1_000_000_000 + self.changes, nanoseconds: 0 }
    }

    /// A new file, directory or link, without a name yet.
    fn born(&mut self, content: Content, mode: u32) -> Inode {
        let inode = self.next;
        self.next += 1;
        let modified = self.touch();
        let attributes = Attributes { mode, modified, ..Attributes::default() };
        let node = Node { content, attributes };
        // Without a durable name nobody finds it after a crash.
        self.durable.insert(inode, node.clone());
        self.current.insert(inode, node);
        inode
    }

    fn set_names(&mut self, names: Vec<(Inode, CString, Option<Inode>)>) -> Result<()> {
        for (directory, ..) in &names {
            self.directory(*directory)?;
        }
        let modified = self.touch();
        apply_names(&mut self.current, &names);
        for (directory, ..) in &names {
            if let Some(node) = self.current.get_mut(directory) {
                node.attributes.modified = modified;
            }
        }
        self.journal.push(Change::Names(names));
        Ok(())
    }

    pub(super) fn create(
        &mut self,
        directory: Inode,
        name: CString,
        content: Content,
        mode: u32,
    ) -> Result<Inode> {
        if self.directory(directory)?.contains_key(&name) {
            return Err(Errno::EXIST);
        }
        let inode = self.born(content, mode);
        self.set_names(vec![(directory, name, Some(inode))])?;
        Ok(inode)
    }

    pub(super) fn link(&mut self, inode: Inode, directory: Inode, name: CString) -> Result<()> {
        if self.directory(directory)?.contains_key(&name) {
            return Err(Errno::EXIST);
        }
        if self.kind(inode)? == FileKind::Directory {
            return Err(Errno::PERM);
        }
        self.set_names(vec![(directory, name, Some(inode))])
    }

    pub(super) fn remove(
        &mut self,
        directory: Inode,
        name: CString,
        wanted: FileKind,
    ) -> Result<()> {
        let inode = *self.directory(directory)?.get(&name).ok_or(Errno::NOENT)?;
        let is_directory = self.kind(inode)? == FileKind::Directory;
        match (wanted == FileKind::Directory, is_directory) {
            (true, false) => return Err(Errno::NOTDIR),
            (false, true) => return Err(Errno::ISDIR),
            (true, true) if !self.directory(inode)?.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.set_names(vec![(directory, name, None)])
    }

    pub(super) fn rename(
        &mut self,
        from: (Inode, CString),
        to: (Inode, CString),
        replace: bool,
    ) -> Result<()> {
        let inode = *self.directory(from.0)?.get(&from.1).ok_or(Errno::NOENT)?;
        if let Some(target) = self.directory(to.0)?.get(&to.1).copied() {
            if !replace {
                return Err(Errno::EXIST);
            }
            if target == inode {
                return Ok(());
            }
            match (self.kind(inode)?, self.kind(target)?) {
                (FileKind::Directory, FileKind::Directory)
                    if !self.directory(target)?.is_empty() =>
                {
                    return Err(Errno::NOTEMPTY);
                }
                (FileKind::Directory, FileKind::Directory) => {}
                (FileKind::Directory, _) => return Err(Errno::NOTDIR),
                (_, FileKind::Directory) => return Err(Errno::ISDIR),
                _ => {}
            }
        }
        if self.lies_in(to.0, inode) {
            return Err(Errno::INVAL);
        }
        self.set_names(vec![(from.0, from.1, None), (to.0, to.1, Some(inode))])
    }

    /// Whether `inode` is `above` or lies somewhere in it.
    fn lies_in(&self, inode: Inode, above: Inode) -> bool {
        inode == above
            || self.directory(above).is_ok_and(|names| {
                names.values().any(|inside| {
                    self.kind(*inside) == Ok(FileKind::Directory) && self.lies_in(inode, *inside)
                })
            })
    }

    fn change_file(&mut self, inode: Inode, change: Change) -> Result<()> {
        self.file(inode)?;
        let modified = self.touch();
        apply_to_file(&mut self.current, &change);
        if let Some(node) = self.current.get_mut(&inode) {
            node.attributes.modified = modified;
        }
        self.journal.push(change);
        Ok(())
    }

    /// Fails where the disk has no room for blocks of this range that the file has not yet.
    fn check_room(&self, inode: Inode, range: &Range<u64>) -> Result<()> {
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        let file = self.file(inode)?;
        let new = blocks.filter(|block| !file.allocated.contains(block)).count() as u64;
        if new > 0 && (self.used_blocks() + new) * BLOCK_BYTES > self.capacity {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    fn used_blocks(&self) -> u64 {
        let blocks = |node: &Node| match &node.content {
            Content::File(file) => file.allocated.len() as u64,
            _ => 1,
        };
        self.current.values().map(blocks).sum()
    }

    pub(super) fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.check_room(inode, &(offset..offset + bytes.len() as u64))?;
        self.change_file(inode, Change::Write(inode, offset, bytes.to_vec()))
    }

    pub(super) fn resize(&mut self, inode: Inode, length: u64) -> Result<()> {
        self.change_file(inode, Change::Resize(inode, length))
    }

    pub(super) fn allocate(&mut self, inode: Inode, range: Range<u64>) -> Result<()> {
        self.check_room(inode, &range)?;
        self.change_file(inode, Change::Allocate(inode, range))
    }

    pub(super) fn punch(&mut self, inode: Inode, range: Range<u64>) -> Result<()> {
        self.change_file(inode, Change::Punch(inode, range))
    }

    pub(super) fn set_attributes(
        &mut self,
        inode: Inode,
        set: impl FnOnce(&mut Attributes),
    ) -> Result<()> {
        set(&mut self.current.get_mut(&inode).ok_or(Errno::NOENT)?.attributes);
        self.journal.push(Change::Attributes(inode));
        Ok(())
    }

    /// Drops what has no name and is not open.
    /// Whether some directory has it.
    pub(super) fn is_named(&self, inode: Inode) -> bool {
        let has = |node: &Node| match &node.content {
            Content::Directory(names) => names.values().any(|inside| *inside == inode),
            _ => false,
        };
        inode == ROOT || self.current.values().any(has)
    }

    pub(super) fn forget_unnamed(&mut self, is_open: impl Fn(Inode) -> bool) {
        let named = |nodes: &BTreeMap<Inode, Node>, also: &dyn Fn(Inode) -> bool| {
            let mut reached = BTreeSet::from([ROOT]);
            reached.extend(nodes.keys().copied().filter(|inode| also(*inode)));
            let mut todo: Vec<Inode> = reached.iter().copied().collect();
            while let Some(inode) = todo.pop() {
                if let Some(Node { content: Content::Directory(names), .. }) = nodes.get(&inode) {
                    todo.extend(names.values().copied().filter(|inside| reached.insert(*inside)));
                }
            }
            reached
        };
        let current = named(&self.current, &is_open);
        self.current.retain(|inode, _| current.contains(inode));
        // What a note may still give a name is not gone.
        let noted: BTreeSet<Inode> = self
            .journal
            .iter()
            .flat_map(|change| change.names().iter().filter_map(|(.., inode)| *inode))
            .collect();
        let durable = named(&self.durable, &|inode| noted.contains(&inode));
        self.durable.retain(|inode, _| durable.contains(inode) || current.contains(inode));
        self.journal.retain(|change| {
            change.inode().is_none_or(|i| durable.contains(&i) || current.contains(&i))
        });
    }

    /// Makes one file or directory durable; of a directory, its names.
    pub(super) fn sync(&mut self, inode: Inode) -> Result<()> {
        let node = self.node(inode)?.clone();
        if let Content::Directory(_) = node.content {
            self.sync_names(inode);
            if let Some(durable) = self.durable.get_mut(&inode) {
                durable.attributes = node.attributes;
            }
        } else {
            self.durable.insert(inode, node);
        }
        self.journal.retain(|change| change.inode() != Some(inode));
        Ok(())
    }

    /// Makes the names in a directory durable, with whatever must come before.
    fn sync_names(&mut self, directory: Inode) {
        let mut wanted: Vec<bool> = self
            .journal
            .iter()
            .map(|change| change.names().iter().any(|(holder, ..)| *holder == directory))
            .collect();
        for later in (0..self.journal.len()).rev() {
            if wanted[later] {
                let earlier = wanted[..later].iter_mut().zip(&self.journal);
                for (wanted, change) in earlier {
                    *wanted |= self.journal[later].shares_name(change);
                }
            }
        }
        let mut wanted = wanted.into_iter();
        let durable = &mut self.durable;
        self.journal.retain(|change| {
            let is_wanted = wanted.next() == Some(true);
            if is_wanted {
                apply_names(durable, change.names());
            }
            !is_wanted
        });
    }

    /// Makes everything durable.
    pub(super) fn sync_all(&mut self) {
        self.durable = self.current.clone();
        self.journal.clear();
    }

    /// The power fails and comes back: what was synced is there, and of the rest what chance keeps.
    pub(super) fn crash(&mut self, chance: &mut Chance) {
        // From keeping nothing to keeping all; and what was first, up to some point.
        let kept_of_8 = [0, 4, 8, 6, 2][chance.below(5) as usize];
        let journal = std::mem::take(&mut self.journal);
        let first_lost = match chance.below(3) {
            0 => chance.below(journal.len() as u64 + 1) as usize,
            _ => journal.len(),
        };
        let mut lost: Vec<Change> = Vec::new();
        for (place, change) in journal.into_iter().enumerate() {
            let kept = place < first_lost && chance.below(8) < kept_of_8;
            match &change {
                Change::Names(names) => {
                    if kept && !lost.iter().any(|lost| lost.shares_name(&change)) {
                        apply_names(&mut self.durable, names);
                    } else {
                        lost.push(change);
                    }
                }
                Change::Write(inode, offset, bytes) => {
                    let mut at = *offset;
                    let mut bytes = &bytes[..];
                    while !bytes.is_empty() {
                        let room = SECTOR_BYTES - at as usize % SECTOR_BYTES;
                        let (sector, rest) = bytes.split_at(room.min(bytes.len()));
                        if place < first_lost && chance.below(8) < kept_of_8 {
                            let part = Change::Write(*inode, at, sector.to_vec());
                            apply_to_file(&mut self.durable, &part);
                        }
                        at += sector.len() as u64;
                        bytes = rest;
                    }
                }
                Change::Attributes(inode) if kept => {
                    let now = self.current.get(inode).map(|node| node.attributes.clone());
                    if let (Some(now), Some(node)) = (now, self.durable.get_mut(inode)) {
                        node.attributes = now;
                    }
                }
                other if kept => apply_to_file(&mut self.durable, other),
                _ => {}
            }
        }
        self.current = self.durable.clone();
        self.forget_unnamed(|_| false);
    }
}

fn apply_names(nodes: &mut BTreeMap<Inode, Node>, names: &[(Inode, CString, Option<Inode>)]) {
    for (directory, name, inode) in names {
        let Some(Node { content: Content::Directory(entries), .. }) = nodes.get_mut(directory)
        else {
            continue;
        };
        match inode {
            Some(inode) => entries.insert(name.clone(), *inode),
            None => entries.remove(name),
        };
    }
}

fn apply_to_file(nodes: &mut BTreeMap<Inode, Node>, change: &Change) {
    let node = change.inode().and_then(|inode| nodes.get_mut(&inode));
    let Some(Node { content: Content::File(file), .. }) = node else { return };
    match change {
        Change::Write(_, offset, bytes) => file.write(*offset, bytes),
        Change::Resize(_, length) => file.resize(*length),
        Change::Allocate(_, range) => {
            if range.end > file.bytes.len() as u64 {
                file.bytes.resize(range.end as usize, 0);
            }
            file.allocate(range);
        }
        Change::Punch(_, range) => file.punch(range),
        Change::Names(_) | Change::Attributes(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tree: &mut Tree, name: &str, bytes: &[u8]) -> Inode {
        let name = CString::new(name).expect("a name");
        let content = Content::File(FileBytes::default());
        let inode = tree.create(ROOT, name, content, 0o644).expect("created");
        tree.write(inode, 0, bytes).expect("written");
        inode
    }

    fn names(tree: &Tree) -> Vec<String> {
        let names = tree.directory(ROOT).expect("the root");
        names.keys().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_was_synced_survives_whatever_chance_does() {
        for seed in 0..200 {
            let mut tree = Tree::new(1 << 20);
            let kept = file(&mut tree, "kept", &[7; 2000]);
            tree.sync(kept).expect("synced");
            tree.sync(ROOT).expect("synced");
            tree.write(kept, 0, &[8; 1000]).expect("written");
            file(&mut tree, "new", b"new");
            tree.crash(&mut Chance::new(seed));
            let bytes = &tree.file(kept).expect("it is there").bytes;
            assert_eq!(bytes.len(), 2000);
            assert!(bytes[1000..].iter().all(|byte| *byte == 7));
            assert!(names(&tree).contains(&"kept".into()));
        }
    }

    #[test]
    fn chance_tears_loses_and_keeps() {
        let (mut torn, mut lost, mut kept, mut unnamed) = (0, 0, 0, 0);
        for seed in 0..300 {
            let mut tree = Tree::new(1 << 20);
            let inode = file(&mut tree, "file", &[1; 4096]);
            tree.sync(inode).expect("synced");
            tree.write(inode, 0, &[2; 4096]).expect("written");
            tree.crash(&mut Chance::new(seed));
            let Ok(file) = tree.file(inode) else {
                unnamed += 1;
                continue;
            };
            match file.bytes.iter().filter(|byte| **byte == 2).count() {
                0 => lost += 1,
                4096 => kept += 1,
                part => {
                    assert_eq!(part % SECTOR_BYTES, 0);
                    torn += 1;
                }
            }
        }
        assert!(
            torn > 10 && lost > 10 && kept > 10 && unnamed > 10,
            "{torn} {lost} {kept} {unnamed}"
        );
    }

    #[test]
    fn a_rename_happens_as_a_whole_or_not_at_all() {
        let (mut before, mut after) = (0, 0);
        for seed in 0..100 {
            let mut tree = Tree::new(1 << 20);
            file(&mut tree, "a", b"a");
            tree.sync_all();
            let (a, b) = (c"a".to_owned(), c"b".to_owned());
            tree.rename((ROOT, a), (ROOT, b), false).expect("renamed");
            tree.crash(&mut Chance::new(seed));
            match &names(&tree)[..] {
                [name] if name == "a" => before += 1,
                [name] if name == "b" => after += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(before > 10 && after > 10);
    }
}
