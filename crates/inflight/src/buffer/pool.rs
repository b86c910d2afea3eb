//! The pool: blocks in classes of a power of two, reused, bounded by the budget.
//!
//! Invariant: bytes lent out plus bytes kept for reuse never exceed the budget's limit (except
//! for one request larger than the whole limit, which is served alone). A kept block of the
//! wrong class is freed before the bound would be passed.
//!
//! Where the engine minds which memory is near, what is kept is kept by node, and goes to who asks
//! there.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena_memory::ArenaMemory;
use super::block::{BLOCK_BYTES, Block};
use super::kept::{CLASSES, Kept, class_bytes, class_of};
use super::release::{MUCH_BYTES, Releaser, Unneeded};
use crate::budget::{Budget, Reservation};
use crate::numa::Nodes;

/// Hands out [`Buffer`]s and takes them back.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    budget: Budget,
    /// By node.
    kept: Box<[Mutex<Kept>]>,
    nodes: Nodes,
    releaser: Releaser,
}

impl Pool {
    /// A pool whose buffers count against `budget`.
    #[must_use]
    pub fn new(budget: Budget) -> Pool {
        Pool::with(budget, Releaser::new(MUCH_BYTES), Nodes::one(), 0)
    }

    /// The same, with memory set aside for the kernel to know: see
    /// [`registered_bytes`](crate::Builder::registered_bytes).
    pub(crate) fn with_set_aside(budget: Budget, nodes: Nodes, bytes: usize) -> Pool {
        Pool::with(budget, Releaser::new(MUCH_BYTES), nodes, bytes)
    }

    /// Where that memory is.
    pub(crate) fn set_aside(&self) -> Option<(*mut u8, usize)> {
        lock(&self.shared.kept[0]).set_aside()
    }

    /// The same, which gives memory back at once: nothing goes on beside its owner.
    pub(crate) fn simulated(budget: Budget) -> Pool {
        Pool::with(budget, Releaser::new(u64::MAX), Nodes::one(), 0)
    }

    fn with(budget: Budget, releaser: Releaser, nodes: Nodes, set_aside: usize) -> Pool {
        let kept = (0..nodes.count()).map(|place| {
            // One piece of it is all that the kernel need know.
            let set_aside = if place == 0 { set_aside } else { 0 };
            Mutex::new(Kept::with_set_aside(nodes.number(place), set_aside))
        });
        let kept = kept.collect();
        Pool { shared: Arc::new(Shared { budget, kept, nodes, releaser }) }
    }

    /// The budget all buffers count against.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// What a buffer of `capacity` bytes really takes from the budget.
    ///
    /// # Panics
    /// When `capacity` is above 2 GiB.
    #[must_use]
    pub fn footprint(capacity: usize) -> u64 {
        let class = class_of(capacity);
        assert!(class < CLASSES, "a buffer holds at most 2 GiB; {capacity} bytes were asked for");
        class_bytes(class) as u64
    }

    /// An empty buffer with room for `capacity` bytes, once the budget has them.
    ///
    /// # Panics
    /// When `capacity` is above 2 GiB.
    pub async fn get(&self, capacity: usize) -> Buffer {
        let reservation = self.shared.budget.reserve(Pool::footprint(capacity)).await;
        let buffer = self.fill(capacity, reservation);
        if !self.has_room() {
            self.releaser().finished().await;
        }
        buffer
    }

    /// The same at once, or `None` when the budget has no room.
    ///
    /// # Panics
    /// When `capacity` is above 2 GiB.
    #[must_use]
    pub fn try_get(&self, capacity: usize) -> Option<Buffer> {
        let reservation = self.shared.budget.try_reserve(Pool::footprint(capacity))?;
        let buffer = self.fill(capacity, reservation);
        self.make_room();
        Some(buffer)
    }

    /// The same for what could do without it, as reads ahead of need: leaves at least as much of the
    /// budget free as was taken in this way.
    ///
    /// # Panics
    /// When `capacity` is above 2 GiB.
    #[must_use]
    pub fn try_get_ahead(&self, capacity: usize) -> Option<Buffer> {
        let reservation = self.shared.budget.try_reserve_ahead(Pool::footprint(capacity))?;
        let buffer = self.fill(capacity, reservation);
        // Nor does it wait for the system.
        self.has_room().then_some(buffer)
    }

    /// A buffer, whose memory nobody has touched yet.
    fn fill(&self, capacity: usize, reservation: Reservation) -> Buffer {
        let node = self.shared.nodes.here();
        let room = self.room_at(node);
        let (block, blocks) = {
            let mut kept = lock(&self.shared.kept[node]);
            // Somebody else may have reserved some meanwhile.
            kept.take(class_of(capacity), room.min(self.room()))
        };
        self.releaser().release(Unneeded { blocks, region: None });
        let home = Home { pool: self.clone(), node };
        Buffer { owner: Some(Owner::Pool(block, reservation, home)), length: 0 }
    }

    /// Whether what is reserved and kept fits beside what is on its way to the system.
    fn has_room(&self) -> bool {
        let on_its_way = self.releaser().bytes();
        if on_its_way == 0 {
            return true;
        }
        let kept = self.shared.kept.iter().map(|kept| lock(kept).bytes()).sum::<u64>();
        on_its_way + kept <= self.room()
    }

    /// Waits until it does: for as long as the system needs.
    fn make_room(&self) {
        if !self.has_room() {
            self.releaser().finish();
        }
    }

    /// How many bytes may be kept beside what is reserved.
    fn room(&self) -> u64 {
        self.shared.budget.limit().saturating_sub(self.shared.budget.used())
    }

    /// The same for what is kept at one node; the others give up what would leave too little.
    fn room_at(&self, node: usize) -> u64 {
        let mut room = self.room();
        for (_, kept) in self.shared.kept.iter().enumerate().filter(|(other, _)| *other != node) {
            let mut kept = lock(kept);
            let blocks = kept.shrink_to(room);
            room = room.saturating_sub(kept.bytes());
            drop(kept);
            self.releaser().release(Unneeded { blocks, region: None });
        }
        room
    }

    pub(super) fn releaser(&self) -> &Releaser {
        &self.shared.releaser
    }

    /// Reserves memory that is no buffer, if it fits now; kept blocks make room for it.
    #[must_use]
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let reservation = self.shared.budget.try_reserve(bytes)?;
        self.give_way();
        self.make_room();
        Some(reservation)
    }

    /// The same, once it fits.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        let reservation = self.shared.budget.reserve(bytes).await;
        self.give_way();
        if !self.has_room() {
            self.releaser().finished().await;
        }
        reservation
    }

    /// Kept blocks make room for what was reserved.
    fn give_way(&self) {
        let room = self.room_at(0);
        let blocks = lock(&self.shared.kept[0]).shrink_to(room);
        self.releaser().release(Unneeded { blocks, region: None });
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a block goes when it is no longer used.
struct Home {
    pool: Pool,
    node: usize,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("budget", self.budget()).finish_non_exhaustive()
    }
}

/// Owned memory from a [`Pool`], page-aligned, or from an [`Arena`](crate::Arena): filled bytes first,
/// spare room behind them.
///
/// Dereferences to the filled bytes.
#[derive(Default)]
pub struct Buffer {
    /// `Some` until it is dropped or taken; the default, without any, has no room.
    owner: Option<Owner>,
    length: usize,
}

/// Whose memory a buffer is.
enum Owner {
    Pool(Block, Reservation, Home),
    /// So many bytes from a place on.
    Arena(Arc<ArenaMemory>, usize, usize),
}

impl Buffer {
    /// A part of an arena that nothing else uses.
    pub(super) fn part(memory: Arc<ArenaMemory>, start: usize, bytes: usize) -> Buffer {
        debug_assert!(start + bytes <= memory.region().bytes());
        Buffer { owner: Some(Owner::Arena(memory, start, bytes)), length: 0 }
    }

    /// Where it lies in that memory, and how long it is, if it is a part of it.
    pub(super) fn place_in(&self, memory: &Arc<ArenaMemory>) -> Option<(usize, usize)> {
        match &self.owner {
            Some(Owner::Arena(of, start, bytes)) if Arc::ptr_eq(of, memory) => {
                Some((*start, *bytes))
            }
            _ => None,
        }
    }

    fn start(&self) -> *mut u8 {
        match &self.owner {
            Some(Owner::Pool(block, ..)) => block.as_ptr(),
            // SAFETY: parts lie inside their region.
            Some(Owner::Arena(memory, start, _)) => unsafe { memory.region().as_ptr().add(*start) },
            None => std::ptr::without_provenance_mut(BLOCK_BYTES),
        }
    }

    /// Whether it comes from the pool: then it is aligned to a page and whole pages long.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        matches!(self.owner, Some(Owner::Pool(..)))
    }

    /// Bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        match &self.owner {
            Some(Owner::Pool(block, ..)) => block.bytes(),
            Some(Owner::Arena(_, _, bytes)) => *bytes,
            None => 0,
        }
    }

    /// Bytes that can still be appended.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.capacity() - self.length
    }

    /// Forgets the filled bytes behind the first `length`.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Forgets all filled bytes.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// The filled bytes, to change in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the first `length` bytes were written by an append or a read, and `&mut self`
        // makes this the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.length) }
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// When they do not fit into the spare room.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.spare(), "{} bytes into {}", bytes.len(), self.spare());
        // SAFETY: source and target are valid for that many bytes (checked above for the
        // target) and cannot overlap, as `&mut self` excludes a borrow of our own bytes.
        unsafe {
            let end = self.start().add(self.length);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        self.length += bytes.len();
    }

    /// Appends `count` zero bytes.
    ///
    /// # Panics
    /// When they do not fit into the spare room.
    pub fn extend_zeros(&mut self, count: usize) {
        self.extend_fill(0, count);
    }

    /// Appends `count` bytes of value `byte`.
    ///
    /// # Panics
    /// When they do not fit into the spare room.
    pub fn extend_fill(&mut self, byte: u8, count: usize) {
        assert!(count <= self.spare(), "{count} bytes into {}", self.spare());
        // SAFETY: the range lies inside the block (checked above) and is ours alone.
        unsafe { std::ptr::write_bytes(self.start().add(self.length), byte, count) }
        self.length += count;
    }

    /// Where the spare room starts: what a driver hands to the kernel.
    pub(crate) fn spare_ptr(&self) -> *mut u8 {
        // SAFETY: `length` never exceeds the block's size.
        unsafe { self.start().add(self.length) }
    }

    /// Where the filled bytes start: what a driver hands to the kernel.
    pub(crate) fn filled_ptr(&self) -> *const u8 {
        self.start()
    }

    /// Counts `bytes` of the spare room as filled.
    ///
    /// # Safety
    /// The first `bytes` bytes of the spare room have been written.
    pub(crate) unsafe fn assume_filled(&mut self, bytes: usize) {
        assert!(bytes <= self.spare(), "the kernel wrote past the buffer");
        self.length += bytes;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `length` bytes were written by an append or a read.
        unsafe { std::slice::from_raw_parts(self.start(), self.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(Owner::Pool(block, reservation, home)) = self.owner.take() else {
            return;
        };
        // Kept before the reservation ends: whoever the freed budget wakes finds the block.
        lock(&home.pool.shared.kept[home.node]).give(block);
        drop(reservation);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("length", &self.length)
            .field("capacity", &self.capacity())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_page_aligned_and_reused() {
        let pool = Pool::new(Budget::new(1 << 20));
        let mut first = pool.try_get(5000).expect("fits");
        assert_eq!(first.capacity(), 8192);
        assert_eq!(first.filled_ptr() as usize % BLOCK_BYTES, 0);
        first.extend_from_slice(b"abc");
        first.extend_zeros(2);
        assert_eq!(&*first, b"abc\0\0");
        let address = first.filled_ptr();
        drop(first);
        let second = pool.try_get(8192).expect("fits");
        assert_eq!(second.filled_ptr(), address);
        assert!(second.is_empty(), "a reused buffer starts empty");
    }

    #[test]
    fn kept_blocks_make_room_for_other_classes() {
        let pool = Pool::new(Budget::new(64 << 10));
        let small: Vec<Buffer> = (0..16).map(|_| pool.try_get(4096).expect("fits")).collect();
        assert!(pool.try_get(1).is_none(), "the limit holds");
        drop(small);
        assert_eq!(lock(&pool.shared.kept[0]).bytes(), 64 << 10);
        let large = pool.try_get(64 << 10).expect("kept blocks do not count as used");
        assert_eq!(lock(&pool.shared.kept[0]).bytes(), 0, "kept plus lent stays within the limit");
        drop(large);
    }
    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_kept_is_kept_where_it_was_asked_for() {
        use rustix::thread::{CpuSet, sched_setaffinity};
        let Some(processors) = crate::numa::tests::two_processors() else { return };
        let here = move |node: usize| {
            let mut set = CpuSet::new();
            set.set(processors[node]);
            sched_setaffinity(None, &set).is_ok()
        };
        // In a thread of its own, as it stays where it is put.
        let moved = std::thread::spawn(move || {
            let [one, other] = processors.map(|processor| processor.to_string());
            let nodes = crate::numa::tests::nodes("0-1", &[&one, &other]);
            let pool = Pool::with_set_aside(Budget::new(4 << 20), nodes, 0);
            let kept = |node: usize| lock(&pool.shared.kept[node]).bytes();
            if !here(0) {
                return;
            }
            let one = pool.try_get(1 << 20).expect("fits");
            let place = one.filled_ptr();
            assert!(here(1));
            let two = pool.try_get(1 << 20).expect("fits");
            assert_ne!(two.filled_ptr(), place);
            drop((one, two));
            assert!(kept(0) >= 1 << 20 && kept(1) >= 1 << 20 && kept(0) + kept(1) <= 4 << 20);
            assert!(here(0));
            let again = pool.try_get(1 << 20).expect("fits");
            assert_eq!(again.filled_ptr(), place, "what was used here goes out here");
            drop(again);
            let all = pool.try_get(4 << 20).expect("the other node gives up what it keeps");
            assert_eq!(kept(0) + kept(1), 0);
            drop(all);
        });
        moved.join().expect("no panic");
    }
}
