//! Finding what a path names on a simulated disk.

use std::collections::VecDeque;
use std::ffi::CString;

use rustix::io::{Errno, Result};

use super::disk::State;
use super::tree::{Content, Inode, ROOT};
use crate::descriptor::Descriptor;
use crate::operation::At;

/// Symbolic links followed on one path at most, as on Linux.
const LINKS_MAX: usize = 40;

/// Where a path leads.
pub(super) struct Place {
    /// The directory that holds the name.
    pub(super) directory: Inode,
    /// The name in it; `None` where the path is the directory itself.
    pub(super) name: Option<CString>,
    /// What is there, if anything.
    pub(super) inode: Option<Inode>,
}

impl Place {
    pub(super) fn existing(&self) -> Result<Inode> {
        self.inode.ok_or(Errno::NOENT)
    }

    /// The name, for what makes, renames or removes one.
    pub(super) fn name(self) -> Result<(Inode, CString)> {
        Ok((self.directory, self.name.ok_or(Errno::BUSY)?))
    }
}

/// What a path may do on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Links are followed, also as the last name.
    Follow,
    /// Links are followed, but for the last name.
    Keep,
    /// No link, and no step out of the directory it starts in.
    Beneath,
}

impl State {
    pub(super) fn inode_of(&self, descriptor: &Descriptor) -> Result<Inode> {
        let number = descriptor.foreign_number().ok_or(Errno::BADF)?;
        Ok(self.opens.get(&number).ok_or(Errno::BADF)?.inode)
    }

    pub(super) fn locate(&self, at: &At, way: Way) -> Result<Place> {
        let start = match &at.directory {
            Some(directory) => self.inode_of(directory)?,
            None => ROOT,
        };
        self.locate_from(start, at.path.to_bytes(), way)
    }

    pub(super) fn locate_from(&self, start: Inode, path: &[u8], way: Way) -> Result<Place> {
        let absolute = path.first() == Some(&b'/');
        if absolute && way == Way::Beneath {
            return Err(Errno::XDEV);
        }
        let mut directory = if absolute { ROOT } else { start };
        let mut names: VecDeque<Vec<u8>> = parts(path).collect();
        let mut links = 0;
        let mut place = Place { directory, name: None, inode: Some(directory) };
        while let Some(name) = names.pop_front() {
            let here = self.tree.directory(directory)?;
            if name == b".." {
                if way == Way::Beneath {
                    return Err(Errno::XDEV);
                }
                directory = self.parent_of(directory);
                place = Place { directory, name: None, inode: Some(directory) };
                continue;
            }
            let name = CString::new(name).map_err(|_| Errno::INVAL)?;
            let inode = here.get(&name).copied();
            let is_last = names.is_empty();
            if let Some(inode) = inode
                && let Content::Symlink(target) = &self.tree.node(inode)?.content
                && (!is_last || way != Way::Keep)
            {
                links += 1;
                if links > LINKS_MAX || way == Way::Beneath {
                    return Err(Errno::LOOP);
                }
                let target = target.to_bytes();
                if target.first() == Some(&b'/') {
                    directory = ROOT;
                }
                for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
                    names.push_front(part);
                }
                place = Place { directory, name: None, inode: Some(directory) };
                continue;
            }
            place = Place { directory, name: Some(name), inode };
            if !is_last {
                directory = inode.ok_or(Errno::NOENT)?;
                // A name below something that is no directory.
                self.tree.directory(directory)?;
            }
        }
        Ok(place)
    }

    fn parent_of(&self, directory: Inode) -> Inode {
        self.tree.holder(directory).unwrap_or(ROOT)
    }
}

/// The names of a path, in order. A dot is where it stands.
fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
}
