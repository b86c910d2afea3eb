//! A disk that is in memory only, and what goes wrong on it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::{Errno, Result};

use super::chance::Chance;
use super::devices::{DEVICE, OtherDisk};
use super::network::Network;
use super::tree::{Inode, ROOT, Tree};
use crate::address::Address;
use crate::descriptor::{Foreign, OwnedDescriptor};
use crate::operation::OpenOptions;

/// A disk that exists in memory only: for tests that want it to be slow, full, broken, or to lose
/// its power, and the machine around it: sockets reach each other there. Engines are started on it with [`simulated`](crate::Builder::simulated). Its clones are the same
/// disk, which outlives them: after [`SimulatedDisk::restart`] the next engine finds what a real
/// disk would have kept.
///
/// Everything that happens by chance follows from the seed, and an engine on it runs on one thread:
/// the same program with the same seed does the same again, operation by operation.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

/// What goes wrong on a [`SimulatedDisk`], besides a crash. Nothing, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// One read or write in so many moves fewer bytes than asked for; 0 for none.
    pub short_once_in: u32,
    /// One operation in so many is interrupted and begun again, later than others.
    pub interrupted_once_in: u32,
    /// One datagram in so many does not arrive.
    pub lost_once_in: u32,
    /// One send or receive in so many finds its connection broken.
    pub reset_once_in: u32,
    /// One operation in so many fails with an I/O error.
    pub failed_once_in: u32,
    /// The operation with this number fails with an I/O error, counted from 1 as in
    /// [`SimulatedDisk::operations`]; 0 for none.
    pub failed_at: u64,
}

pub(super) struct State {
    pub(super) seed: u64,
    pub(super) chance: Chance,
    pub(super) tree: Tree,
    pub(super) opens: BTreeMap<u64, Open>,
    pub(super) network: Network,
    next_number: u64,
    pub(super) faults: Faults,
    /// Whether files can share contents.
    pub(super) can_clone: bool,
    /// Whether it says that the page cache has everything.
    pub(super) is_cached: bool,
    /// Operations, and parts of those that work on many files.
    pub(super) operations: u64,
    /// Directories on devices of their own.
    pub(super) others: Vec<OtherDisk>,
    /// The clock.
    pub(super) now_ns: u64,
    /// A digest of what was done, in order.
    pub(super) history: u64,
    crash_at: u64,
    pub(super) crashed: bool,
}

/// Something open.
pub(super) struct Open {
    pub(super) inode: Inode,
    pub(super) options: OpenOptions,
    /// What a listing has not given yet, once it has begun.
    pub(super) listing: Option<Vec<CString>>,
    /// Whether it has the lock of what is open.
    pub(super) is_locked: bool,
}

impl SimulatedDisk {
    /// An empty disk of 1 GiB on which all that is left to chance follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> SimulatedDisk {
        SimulatedDisk::of(seed, Tree::new(1 << 30))
    }

    fn of(seed: u64, tree: Tree) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(State {
            seed,
            chance: Chance::new(seed),
            tree,
            opens: BTreeMap::new(),
            network: Network::default(),
            next_number: 1,
            faults: Faults::default(),
            can_clone: false,
            is_cached: true,
            operations: 0,
            others: Vec::new(),
            now_ns: 0,
            history: 0,
            crash_at: 0,
            crashed: false,
        })))
    }

    /// Another disk with the same things on it, to which other things may happen. Nothing is open
    /// there.
    #[must_use]
    pub fn fork(&self, seed: u64) -> SimulatedDisk {
        let state = self.state();
        let mut tree = state.tree.clone();
        tree.forget_unnamed(|_| false);
        let (can_clone, is_cached) = (state.can_clone, state.is_cached);
        let others = state.others.clone();
        drop(state);
        let fork = SimulatedDisk::of(seed, tree);
        fork.state().others = others;
        fork.set_can_clone(can_clone);
        fork.set_cached(is_cached);
        fork
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seed that it was made with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.state().seed
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Bytes of data there may be, in blocks of 4 KiB; a file or directory takes one more.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().tree.capacity = bytes;
    }

    /// Whether files can share their contents ([`Operation::CloneFile`](crate::Operation::CloneFile));
    /// at first they cannot.
    pub fn set_can_clone(&self, can: bool) {
        self.state().can_clone = can;
    }

    /// Whether the page cache is said to have everything that is on it, as it is at first, or nothing.
    pub fn set_cached(&self, everything: bool) {
        self.state().is_cached = everything;
    }

    /// Operations so far. Those that work on many files count each.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Files, directories and sockets that are open.
    #[must_use]
    pub fn opened(&self) -> usize {
        let state = self.state();
        state.opens.len() + state.network.len()
    }

    /// A digest of the operations so far in their order: equal for runs that did the same.
    #[must_use]
    pub fn history(&self) -> u64 {
        self.state().history
    }

    /// The power fails at the operation with this number, as [`SimulatedDisk::operations`] counts:
    /// it, and all that follow, fail. 0 for never.
    pub fn crash_at(&self, operation: u64) {
        self.state().crash_at = operation;
    }

    /// Whether the power failed.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// The power is back, or fails and comes back at once: what was synced is there; of the rest
    /// what chance keeps, data in sectors, names and sizes as a whole.
    pub fn restart(&self) {
        let mut state = self.state();
        let State { tree, chance, .. } = &mut *state;
        tree.crash(chance);
        state.opens.clear();
        state.network.lose_power();
        state.crashed = false;
        state.crash_at = 0;
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimulatedDisk")
            .field("seed", &state.seed)
            .field("operations", &state.operations)
            .finish_non_exhaustive()
    }
}

/// What happens to an operation before it does anything.
pub(super) enum Fate {
    /// It is performed.
    Performed,
    /// It is performed, and then the power fails: nobody learns how it went.
    LastOfAll,
    /// It fails.
    Failed(Errno),
}

impl State {
    /// Counts an operation, and says what is to happen to it.
    pub(super) fn fate(&mut self) -> Fate {
        if self.crashed {
            return Fate::Failed(Errno::IO);
        }
        self.operations += 1;
        if self.operations == self.crash_at {
            self.crashed = true;
            self.network.lose_power();
            return if self.chance.once_in(2) { Fate::LastOfAll } else { Fate::Failed(Errno::IO) };
        }
        let failed = self.operations == self.faults.failed_at
            || self.chance.once_in(self.faults.failed_once_in);
        if failed { Fate::Failed(Errno::IO) } else { Fate::Performed }
    }

    /// Counts a part of an operation: what follows its first.
    pub(super) fn next_part(&mut self) -> Result<()> {
        match self.fate() {
            Fate::Performed => Ok(()),
            Fate::LastOfAll => Err(Errno::IO),
            Fate::Failed(error) => Err(error),
        }
    }

    /// The number of something that is opened.
    pub(super) fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn add_open(&mut self, inode: Inode, options: OpenOptions) -> u64 {
        let number = self.next_number();
        self.opens.insert(number, Open { inode, options, listing: None, is_locked: false });
        number
    }

    pub(super) fn close(&mut self, number: u64) {
        self.network.close(number);
        self.opens.remove(&number);
        self.forget_unnamed();
    }

    pub(super) fn forget_unnamed(&mut self) {
        let State { tree, opens, .. } = self;
        tree.forget_unnamed(|inode| {
            inode == ROOT || opens.values().any(|open| open.inode == inode)
        });
    }
}

/// A descriptor of a simulated disk's.
struct SimulatedDescriptor {
    disk: SimulatedDisk,
    number: u64,
}

impl Foreign for SimulatedDescriptor {
    fn number(&self) -> u64 {
        self.number
    }

    fn device(&self) -> u64 {
        let state = self.disk.state();
        let open = state.opens.get(&self.number);
        open.map_or(DEVICE, |open| state.device_of(open.inode))
    }

    fn peer_address(&self) -> Address {
        self.disk.state().network.address(self.number, true).unwrap_or_default()
    }
}

impl fmt::Debug for SimulatedDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedDescriptor({})", self.number)
    }
}

impl Drop for SimulatedDescriptor {
    fn drop(&mut self) {
        self.disk.state().close(self.number);
    }
}

impl SimulatedDisk {
    pub(super) fn descriptor(&self, number: u64) -> OwnedDescriptor {
        OwnedDescriptor::foreign(SimulatedDescriptor { disk: self.clone(), number })
    }
}
