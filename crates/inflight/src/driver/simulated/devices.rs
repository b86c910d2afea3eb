//! Which of the simulated machine's devices something is on.

use super::tree::{Inode, Tree};

/// The number of the device that the root is on.
pub(super) const DEVICE: u64 = 1;

/// A directory on a device of its own.
#[derive(Clone, Copy)]
pub(super) struct OtherDisk {
    pub(super) root: Inode,
    /// Operations there take so many times as long.
    pub(super) slower: u32,
}

/// The other disk that an inode is on, by number from 0.
pub(super) fn other_disk(others: &[OtherDisk], tree: &Tree, inode: Inode) -> Option<usize> {
    if others.is_empty() {
        return None;
    }
    let mut here = Some(inode);
    while let Some(inode) = here {
        if let Some(number) = others.iter().position(|other| other.root == inode) {
            return Some(number);
        }
        here = tree.holder(inode);
    }
    None
}
