//! Other disks on a simulated machine: a directory, and all that is below it, lies on a device of its own,
//! which may be slow.

use std::path::Path;
use std::time::Duration;

use rustix::io::{Errno, Result};

use super::devices::{DEVICE, OtherDisk, other_disk};
use super::disk::{SimulatedDisk, State};
use super::path::Way;
use super::tree::Inode;
use crate::operation::{At, Operation};

impl SimulatedDisk {
    /// From now on, the directory at `path` and all below it is on another device, where operations take
    /// `slower` times as long. Nothing is renamed, linked or cloned from one device to another. As there
    /// is one power for all, they crash together.
    ///
    /// # Errors
    /// When there is no directory at `path`.
    pub fn set_other_disk(&self, path: impl AsRef<Path>, slower: u32) -> std::io::Result<()> {
        let at = At::new(None, path.as_ref())?;
        let mut state = self.state();
        let root = state.locate(&at, Way::Keep).and_then(|place| place.existing())?;
        state.tree.directory(root)?;
        state.others.push(OtherDisk { root, slower });
        Ok(())
    }

    /// What the clock of the machine says: it moves only when everyone waits.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.state().now_ns)
    }
}

impl State {
    fn other_disk(&self, inode: Inode) -> Option<usize> {
        other_disk(&self.others, &self.tree, inode)
    }

    /// The number of an inode's device.
    pub(super) fn device_of(&self, inode: Inode) -> u64 {
        self.other_disk(inode).map_or(DEVICE, |number| DEVICE + 1 + number as u64)
    }

    /// Fails unless both are on one device.
    pub(super) fn on_one_device(&self, a: Inode, b: Inode) -> Result<()> {
        if self.device_of(a) == self.device_of(b) { Ok(()) } else { Err(Errno::XDEV) }
    }

    /// How many times as long an operation takes: as on the slowest disk that it is about.
    pub(super) fn slowness(&self, operation: &Operation) -> u64 {
        if self.others.is_empty() {
            return 1;
        }
        let open = |descriptor| self.inode_of(descriptor).ok();
        let inodes = match operation {
            Operation::CopyFiles { from, to, .. }
            | Operation::CloneFile { from, to }
            | Operation::CopyRange { from, to, .. }
            | Operation::Splice { from, to, .. } => [open(from), open(to)],
            Operation::CopyDirectory { from, to, .. } => {
                [from, to].map(|at| at.directory.as_ref().and_then(open))
            }
            Operation::ReadFiles { directory, .. } | Operation::WriteFiles { directory, .. } => {
                [directory.as_ref().and_then(open), None]
            }
            other => {
                let place = other.at().and_then(|at| self.locate(at, Way::Keep).ok());
                let named = place.map(|place| place.inode.unwrap_or(place.directory));
                [other.descriptor().and_then(open), named]
            }
        };
        let disks = inodes.into_iter().flatten().filter_map(|inode| self.other_disk(inode));
        disks.map(|number| u64::from(self.others[number].slower)).max().unwrap_or(1)
    }
}
