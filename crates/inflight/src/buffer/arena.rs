//! One long piece of memory, read into by many operations at once and then used as a whole.
//!
//! An [`Arena`] gives out its bytes front to back as [`Buffer`]s that do not overlap. Once all of
//! them are dropped, [`Arena::finish`] turns it into an [`ArenaBytes`]: one slice. So a large file
//! is read in parallel into the place where it is needed, without a copy. Memory that nothing
//! touched costs nothing but address space.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::arena_memory::ArenaMemory;
use super::block::Region;
use super::pool::{Buffer, Pool};

/// Memory that is given out in parts.
pub struct Arena {
    shared: Arc<ArenaMemory>,
    given: usize,
}

impl Pool {
    /// An arena of `bytes` bytes, or `None` when the budget has no room.
    #[must_use]
    pub fn try_arena(&self, bytes: usize) -> Option<Arena> {
        let reservation = self.try_reserve(bytes as u64)?;
        let region = Region::allocate(bytes.max(1))?;
        let memory = ArenaMemory::new(region, reservation, self.releaser().clone());
        Some(Arena { shared: Arc::new(memory), given: 0 })
    }

    /// An arena of `bytes` bytes, once the budget has room.
    ///
    /// # Errors
    /// `OutOfMemory` when the system has no room.
    pub async fn arena(&self, bytes: usize) -> std::io::Result<Arena> {
        self.arena_counting(bytes, bytes as u64).await
    }

    /// The same, of which only so many bytes count against the budget.
    pub(crate) async fn arena_counting(
        &self,
        bytes: usize,
        counted: u64,
    ) -> std::io::Result<Arena> {
        let reservation = self.reserve(counted).await;
        let region = Region::allocate(bytes.max(1)).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let memory = ArenaMemory::new(region, reservation, self.releaser().clone());
        Ok(Arena { shared: Arc::new(memory), given: 0 })
    }
}

impl Arena {
    /// Takes a buffer back, the first of those that were not taken back yet: from now on an
    /// [`ArenaView`] sees what it holds.
    ///
    /// # Panics
    /// When it is not that buffer, or one that was not filled came before.
    pub fn settle(&mut self, buffer: Buffer) {
        let (start, bytes) = buffer.place_in(&self.shared).expect("a buffer of this arena");
        assert_eq!(start, self.shared.settled_bytes(), "buffers come back in order, filled");
        assert!(start + bytes <= self.given);
        let filled = buffer.len();
        drop(buffer);
        self.shared.settle(filled);
    }

    /// Counts the next bytes of a mapped file as there.
    pub(crate) fn settle_mapped(&self, bytes: usize) {
        self.shared.settle(bytes);
    }

    /// A look at what was taken back, now and later.
    #[must_use]
    pub fn view(&self) -> ArenaView {
        ArenaView { shared: self.shared.clone() }
    }

    /// A place in it, whether it was given out or not.
    ///
    /// # Panics
    /// When it does not lie inside.
    #[must_use]
    pub fn range(&self, start: usize, bytes: usize) -> ArenaRange {
        let end = start.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.shared.region().bytes()), "a place in the arena");
        ArenaRange { shared: self.shared.clone(), start, bytes }
    }

    /// Bytes that were not given out yet.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.shared.region().bytes() - self.given
    }

    /// The next `length` bytes, as an empty buffer.
    ///
    /// # Panics
    /// When so many are not left.
    pub fn buffer(&mut self, length: usize) -> Buffer {
        assert!(length <= self.spare(), "{length} bytes of {} left", self.spare());
        let start = self.given;
        self.given += length;
        Buffer::part(self.shared.clone(), start, length)
    }

    /// All bytes that were given out, in one piece: what no buffer wrote is zero. Gives the arena
    /// back while a buffer of it lives.
    ///
    /// # Errors
    /// The arena itself, when a buffer of it lives.
    pub fn finish(self) -> Result<ArenaBytes, Arena> {
        let given = self.given;
        match Arc::try_unwrap(self.shared) {
            Ok(memory) => Ok(ArenaBytes { memory, length: given }),
            Err(shared) => Err(Arena { shared, given }),
        }
    }
}

/// The bytes of a file as the page cache has them, for [`Operation::Map`](crate::Operation::Map). It shows none of
/// them: only [`LoadOptions`](crate::stream::LoadOptions), which somebody gave their word to, lead to those.
pub struct MappedBytes {
    region: Region,
}

impl MappedBytes {
    /// The first `bytes` bytes of a file, at least one.
    ///
    /// # Safety
    /// As long as anybody looks at them, nobody changes or shortens the file.
    #[cfg(target_os = "linux")]
    pub(crate) unsafe fn new(
        file: std::os::fd::BorrowedFd<'_>,
        bytes: usize,
    ) -> std::io::Result<MappedBytes> {
        // SAFETY: the caller's word.
        unsafe { Region::map(file, bytes) }.map(|region| MappedBytes { region })
    }

    /// A copy of these, with zeros behind them up to `length`; none where the system has no memory for it.
    pub(crate) fn copied(bytes: &[u8], length: usize) -> Option<MappedBytes> {
        let region = Region::allocate(length.max(bytes.len()).max(1))?;
        // SAFETY: the region is as long, new and ours alone.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), region.as_ptr(), bytes.len());
        }
        Some(MappedBytes { region })
    }

    /// An arena of these, which nobody writes to: no buffers come from it.
    pub(crate) fn into_arena(self, pool: &Pool) -> Arena {
        let (given, releaser) = (self.region.bytes(), pool.releaser().clone());
        Arena { shared: Arc::new(ArenaMemory::of_file(self.region, releaser)), given }
    }
}

impl fmt::Debug for MappedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedBytes").field("length", &self.region.bytes()).finish()
    }
}

/// A place in an arena, for [`Operation::Populate`](crate::Operation::Populate).
pub struct ArenaRange {
    shared: Arc<ArenaMemory>,
    start: usize,
    bytes: usize,
}

impl ArenaRange {
    /// Has the system give its memory now. What it holds stays, and others may use it meanwhile.
    pub(crate) fn populate(&self) -> std::io::Result<()> {
        self.shared.region().populate(self.start, self.bytes)
    }
}

impl fmt::Debug for ArenaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ArenaRange { start, bytes, .. } = self;
        f.debug_struct("ArenaRange").field("start", start).field("bytes", bytes).finish()
    }
}

/// Dereferences to the bytes of an arena's buffers that were taken back.
#[derive(Clone)]
pub struct ArenaView {
    shared: Arc<ArenaMemory>,
}

impl Deref for ArenaView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.shared.settled()
    }
}

impl fmt::Debug for ArenaView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArenaView").field("length", &self.len()).finish()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("given", &self.given).field("spare", &self.spare()).finish()
    }
}

/// The bytes of an arena that is no longer given out. Dereferences to them.
pub struct ArenaBytes {
    memory: ArenaMemory,
    length: usize,
}

impl Deref for ArenaBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the region is at least `length` bytes, was zero when it was made, and only its
        // buffers, which are gone, ever wrote to it.
        unsafe { std::slice::from_raw_parts(self.memory.region().as_ptr(), self.length) }
    }
}

impl DerefMut for ArenaBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only way to the bytes.
        unsafe { std::slice::from_raw_parts_mut(self.memory.region().as_ptr(), self.length) }
    }
}

impl fmt::Debug for ArenaBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArenaBytes").field("length", &self.length).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Budget, Pool};

    /// Pages that the system gave already.
    #[cfg(target_os = "linux")]
    fn pages_there(arena: &super::Arena) -> usize {
        let region = arena.shared.region();
        let mut there = vec![0u8; region.bytes().div_ceil(crate::BLOCK_BYTES)];
        // SAFETY: the range is the region's mapping, and there is a byte for each of its pages.
        let asked = unsafe {
            libc::mincore(region.as_ptr().cast(), region.bytes(), there.as_mut_ptr().cast())
        };
        assert_eq!(asked, 0);
        there.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_made_ready_before_it_is_touched() {
        const MIB: usize = 1 << 20;
        let pool = Pool::new(Budget::new(64 << 20));
        let arena = pool.try_arena(32 * MIB + 100).expect("fits");
        assert_eq!(pages_there(&arena), 0);
        arena.range(20 * MIB + 1, 0).populate().unwrap();
        arena.range(9 * MIB + 1, MIB).populate().unwrap();
        let first = pages_there(&arena);
        // Where there are huge pages it is more than was asked for.
        assert!((256..4096).contains(&first), "{first} pages");
        arena.range(0, 32 * MIB + 100).populate().unwrap();
        assert_eq!(pages_there(&arena), 32 * 256 + 1);
    }

    #[test]
    #[should_panic(expected = "a part of an arena")]
    fn a_part_is_not_taken_for_aligned() {
        let pool = Pool::new(Budget::new(1 << 20));
        let part = pool.try_arena(10_000).expect("fits").buffer(100);
        drop(crate::AlignedBuffer::padded(part));
    }

    #[test]
    fn a_view_sees_what_was_taken_back() {
        let pool = Pool::new(Budget::new(1 << 20));
        let mut arena = pool.try_arena(100).expect("fits");
        let view = arena.view();
        let (mut first, mut second) = (arena.buffer(3), arena.buffer(5));
        first.extend_from_slice(b"abc");
        second.extend_from_slice(b"de");
        assert_eq!(&*view, b"");
        arena.settle(first);
        assert_eq!(&*view, b"abc");
        let seen = &*view;
        arena.settle(second);
        assert_eq!((seen, &*view), (&b"abc"[..], &b"abcde"[..]));
        drop(arena);
        assert_eq!(&*view, b"abcde");
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn nothing_is_taken_back_before_its_turn() {
        let pool = Pool::new(Budget::new(1 << 20));
        let mut arena = pool.try_arena(100).expect("fits");
        let (_first, second) = (arena.buffer(3), arena.buffer(5));
        arena.settle(second);
    }

    #[test]
    #[should_panic(expected = "of this arena")]
    fn nothing_of_another_arena_is_taken_back() {
        let pool = Pool::new(Budget::new(1 << 20));
        let mut arena = pool.try_arena(100).expect("fits");
        let other = pool.try_arena(100).expect("fits").buffer(3);
        arena.settle(other);
    }

    #[test]
    fn parts_become_a_whole() {
        let pool = Pool::new(Budget::new(1 << 20));
        let mut arena = pool.try_arena(10_000).expect("fits");
        let mut first = arena.buffer(3);
        let mut second = arena.buffer(5_000);
        assert_eq!((first.capacity(), second.capacity()), (3, 5_000));
        first.extend_from_slice(b"abc");
        second.extend_from_slice(b"de");
        let mut arena = arena.finish().expect_err("buffers live");
        drop((first, second));
        let last = arena.buffer(arena.spare());
        assert_eq!(last.spare(), 10_000 - 5_003);
        drop(last);
        let bytes = arena.finish().expect("none lives");
        assert_eq!(&bytes[..6], b"abcde\0");
        assert_eq!(bytes.len(), 10_000);
        assert_eq!(pool.budget().used(), 10_000);
        drop(bytes);
        assert_eq!(pool.budget().used(), 0);
        let _held = pool.try_arena(1);
        assert!(pool.try_arena(1 << 20).is_none(), "the limit holds");
    }
}
